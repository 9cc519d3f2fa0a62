"""So many pieces of work at a time, each result as it is there."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


async def as_they_end(works: Iterable[Work[T]], *, slots: int) -> AsyncGenerator[T, None]:
    """The results in the order of their ends; closing it cancels what runs. What a piece of work raises comes out."""
    waiting = iter(works)
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < slots and (work := next(waiting, None)) is not None:
                running.add(asyncio.create_task(work()))
            if not running:
                return
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
