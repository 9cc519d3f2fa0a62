"""The processes of one run: how they find one another, what the leader tells them, and how a failure ends them all.

A launcher (accelerate, torchrun) starts the same command several times and says which one each is. The first leads:
it alone reads and writes the run, and tells the others what to do next with it. Messages are JSON: between processes
as elsewhere nothing is unpickled.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from preflexor_agents.errors import InputError, PreflexorError, TrainingError

MOST_WAIT = timedelta(days=30)
"""For what the leader tells next: while it makes rows or is asked for samples, the others have nothing to do."""
STEP_WAIT = timedelta(hours=2)
"""For one another within a step or while a checkpoint is written."""
LAST_WORD_S = 5.0
"""That one process waits for another to say by itself what went wrong."""
_SILENCE = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "imed out")
_FAILED, _ENDED, _TOLD = "preflexor/failed", "preflexor/ended", "preflexor/told"


def processes() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this one is; 0 leads."""
    return _number("RANK", 0)


@dataclass(frozen=True, slots=True)
class Crew:
    """All processes of a run, as seen from one of them. `store` is the launcher's table of words, which outlives us."""

    group: Any
    store: Any

    def tell(self, message: Mapping[str, Any]) -> None:
        """From the leader to all others."""
        import torch
        from torch import distributed

        data = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        with reaching():
            distributed.broadcast(torch.tensor([len(data)]), src=0, group=self.group)
            distributed.broadcast(data, src=0, group=self.group)

    def hear(self) -> dict[str, Any]:
        """What the leader tells next."""
        import torch
        from torch import distributed

        size = torch.zeros(1, dtype=torch.int64)
        with reaching():
            distributed.broadcast(size, src=0, group=self.group)
            data = torch.zeros(int(size), dtype=torch.uint8)
            distributed.broadcast(data, src=0, group=self.group)
        message: dict[str, Any] = json.loads(data.numpy().tobytes())
        return message

    def wait(self) -> None:
        """Until all are here."""
        from torch import distributed

        with reaching():
            distributed.barrier(group=self.group)


@contextmanager
def reaching() -> Iterator[None]:
    """Around what takes all processes. Raises TrainingError if one of them has gone."""
    try:
        yield
    except RuntimeError as e:
        if not any(word in str(e) for word in _SILENCE):
            raise
        raise TrainingError(
            f"another of the {processes()} processes has gone, perhaps killed for the memory that it took"
        ) from None


@contextmanager
def leading(failed: Callable[[str], None]) -> Iterator[Crew]:
    """Lead the processes.

    Args:
        failed: is told in one line what went wrong in another process, from a thread; when it returns this process
            ends at once with exit code 1, as it may be waiting for the other inside a library that hears nothing.
    """
    crew = _join()
    threading.Thread(target=_listen, args=(crew.store.clone(), failed), daemon=True).start()
    try:
        yield crew
    finally:
        crew.store.set(_ENDED, "")
    crew.tell({"do": "end"})
    _part()


@contextmanager
def following() -> Iterator[Crew]:
    """Follow the leader. An error is the leader's to tell: it is handed over, unless the leader has ended itself.

    Signals are the leader's too: it ends after a step and says so, or it dies, which is noticed here.

    Raises:
        SystemExit: with exit code 1, after an error.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    crew = _join()
    try:
        yield crew
    except (PreflexorError, RuntimeError, OSError, MemoryError) as e:
        _hand_over(crew.store, e)
        raise SystemExit(1) from None
    _part()


def _join() -> Crew:
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    cuda, here = torch.cuda.is_available(), _number("LOCAL_RANK", 0)
    if cuda and here >= (count := torch.cuda.device_count()):
        raise InputError(f"process {rank() + 1} of {processes()} has no GPU, here are {count}; start fewer processes")
    if cuda:
        torch.cuda.set_device(here)
    store, place, size = next(rendezvous("env://", timeout=STEP_WAIT))
    backend = "cuda:nccl,cpu:gloo" if cuda else "gloo"
    distributed.init_process_group(
        backend, store=PrefixStore("training", store), rank=place, world_size=size, timeout=STEP_WAIT
    )
    return Crew(distributed.new_group(backend="gloo", timeout=MOST_WAIT), store)


def _part() -> None:
    from torch import distributed

    distributed.destroy_process_group()


def _listen(store: Any, failed: Callable[[str], None]) -> None:
    try:
        store.wait([_FAILED], MOST_WAIT)
        line = store.get(_FAILED).decode()
    except RuntimeError:  # the launcher has gone, or this process is about to
        return
    failed(line)
    store.set(_TOLD, "")
    os._exit(1)


def _hand_over(store: Any, error: BaseException) -> None:
    try:
        if _comes(store, _ENDED):
            return
        said = " ".join(str(error).split()) or type(error).__name__
        what = said if isinstance(error, PreflexorError) else f"{type(error).__name__}: {said[:300]}"
        store.set(_FAILED, f"process {rank() + 1} of {processes()}: {what}")
        _comes(store, _TOLD)
    except RuntimeError:
        return


def _comes(store: Any, word: str) -> bool:
    """Whether a word is there soon. (Waiting for it in the store would have it complain about the time.)"""
    until = time.monotonic() + LAST_WORD_S
    while not (there := store.check([word])) and time.monotonic() < until:
        time.sleep(0.1)
    return bool(there)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
