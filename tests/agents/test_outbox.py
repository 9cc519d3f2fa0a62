"""Text on its way from a model's thread to its readers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.outbox import Outbox


def words(text: str) -> list[Delta]:
    return [Delta("answer", word) for word in text.split()]


async def test_all_that_is_emitted_arrives_in_order_at_its_own_reader():
    outbox = Outbox(asyncio.get_running_loop())
    queues: list[asyncio.Queue[Delta]] = [asyncio.Queue() for _ in range(3)]
    emitters = [outbox.emitter(queue.put_nowait) for queue in queues]

    def write() -> None:
        for n in range(3000):
            emitters[n % 3](Delta("answer", f"{n},"))

    with ThreadPoolExecutor(1) as worker:
        writing = worker.submit(write)
        heard = [""] * 3
        wanted = ["".join(f"{n}," for n in range(first, 3000, 3)) for first in range(3)]
        for place, queue in enumerate(queues):
            while heard[place] != wanted[place]:
                heard[place] += (await queue.get()).text
        writing.result()
    assert all(queue.empty() for queue in queues)


async def test_pieces_of_one_section_that_waited_come_as_one():
    outbox = Outbox(asyncio.get_running_loop())
    heard: list[Delta] = []
    emit = outbox.emitter(heard.append)
    for delta in (*words("a b"), Delta("thinking", "c"), *words("d")):
        emit(delta)
    assert not heard
    assert outbox.deliver() and not outbox.deliver()
    assert heard == [Delta("answer", "ab"), Delta("thinking", "c"), Delta("answer", "d")]


async def test_a_reply_that_begins_while_others_are_written_is_not_kept_waiting():
    outbox = Outbox(asyncio.get_running_loop())
    first: asyncio.Queue[Delta] = asyncio.Queue()
    second: asyncio.Queue[Delta] = asyncio.Queue()
    outbox.emitter(first.put_nowait)(Delta("answer", "a"))
    await first.get()
    outbox.emitter(second.put_nowait)(Delta("answer", "b"))
    await asyncio.sleep(0)
    assert second.get_nowait().text == "b"


def test_text_for_a_loop_that_was_closed_is_dropped():
    loop = asyncio.new_event_loop()
    heard: list[Delta] = []
    emit = Outbox(loop).emitter(heard.append)
    loop.close()
    emit(Delta("answer", "a"))
    assert not heard
