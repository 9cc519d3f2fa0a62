"""Many rows at once, handed on in order of their numbers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from preflexor_training.forge.calls import Asked, Calls
from preflexor_training.forge.rows import one_error

AHEAD = 4
"""Rows that are made at once, for each call that is made at once; fewer as long as these keep all calls busy."""


T = TypeVar("T")


class Finished(NamedTuple, Generic[T]):
    """A row, and what was asked for it."""

    row: T
    asked: Asked


async def in_order(
    numbers: Iterable[int],
    make: Callable[[int, Asked], Awaitable[T]],
    *,
    calls: Calls,
    slots: int,
    hand_on: Callable[[T], Awaitable[None]],
    rows_at_once: int | None = None,
) -> None:
    """Make rows side by side and hand them on one after the other.

    A row is begun when there is a place for a call that no other row wants, so that few are under way and the calls of
    each come close together. With one slot a row is begun when the one before has ended: the published serial order.
    A row that a backend failed is held back until that backend has answered another call; if it does not, the run ends
    and the row is made anew the next time.

    Args:
        numbers: of the rows, without gaps, rising.
        make: makes one.
        calls: that they make.
        slots: calls of one backend at once.
        hand_on: takes each row; not called again before it has ended.
        rows_at_once: rows under way at most; as many as keep all slots busy if not given.

    Raises:
        PreflexorError: what ends the run; what was handed on stays.
    """
    finished: dict[int, Finished[T]] = {}
    waiting = list(numbers)
    due = iter(waiting)
    next_up = next(due, None)
    room = asyncio.Semaphore(1 if slots == 1 else rows_at_once or slots * AHEAD)

    handing = asyncio.Lock()

    async def flush() -> None:
        nonlocal next_up
        async with handing:
            while next_up in finished and calls.settled(finished[next_up].asked):
                await hand_on(finished.pop(next_up).row)
                next_up = next(due, None)

    async def one(number: int, asked: Asked) -> None:
        try:
            finished[number] = Finished(await make(number, asked), asked)
        finally:
            asked.under_way.set()
            room.release()
        await flush()

    with one_error():
        async with asyncio.TaskGroup() as group:
            for number in waiting:
                await room.acquire()
                await calls.slots("teacher").until_idle()
                asked = Asked()
                group.create_task(one(number, asked))
                await asked.under_way.wait()
    while next_up in finished:
        await calls.settle(finished[next_up].asked)
        await flush()
