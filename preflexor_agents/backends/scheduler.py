"""Writes several replies at once with one model: each step advances the sequences that are ready by one batch.

A job is a generator: it asks for a prompt to be evaluated (`Prefill`), is sent how many tokens of it were in the cache,
and is then sent one drawn token for every time it yields, until it returns. Jobs are admitted in order of arrival, as
soon as the cache has room for all that they may write, so none is starved.
"""

import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from preflexor_agents.backends import widths
from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.backends.context import Context, Row
from preflexor_agents.backends.lookup import Lookup
from preflexor_agents.backends.pieces import LONG_PIECE_TOK, PIECE_TOK, piece_end
from preflexor_agents.backends.prefixes import Prefixes, Slot, alike_tok
from preflexor_agents.errors import BackendError

T = TypeVar("T")
MOST_LIVE = 16
"""Most replies written at once; never more than half of the sequences, so that there is always an idle one."""


class Prefill(NamedTuple):
    """What a job asks first."""

    prompt: list[int]
    most: int
    """Tokens that it will take at most, so much room is kept for it."""
    chain: int
    """llama.cpp's sampler chain that its tokens are drawn with."""


Job = Generator[Prefill | None, int, T]


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """A job that nobody has begun, or that waits for room."""

    job: Job[T]
    cancel: CancelFlag
    result: "Future[T | None]"
    """None if it was cancelled."""
    asked: Prefill | None = None


@dataclass(slots=True, eq=False)
class _Live:
    """A job that is being done."""

    work: Waiting[Any]
    asked: Prefill
    expected: int
    """Tokens of the prompt that it need not evaluate, as was seen when it was admitted."""
    slot: Slot | None = None
    """From its first piece on."""
    cached: int = 0
    pending: int | None = None
    """The token drawn last, not evaluated yet; None until the prompt is done."""
    drawn: int = 0
    lookup: Lookup = field(default_factory=Lookup)

    @property
    def cells_to_come(self) -> int:
        done = len(self.slot.tokens) if self.slot is not None else self.expected
        return len(self.asked.prompt) + self.asked.most - done


class Scheduler:
    """The jobs of one model. `submit` may be called from any thread, the rest from the context's own."""

    def __init__(self, context: Context, name: str) -> None:
        """Begin with nothing to do; `name` is what timings are kept under."""
        self._context = context
        self._name = name
        self._prefixes = Prefixes(context)
        self._widths = widths.recall(name)
        self._chosen: dict[int, int] = {}
        """What `_widths` said."""
        self._time_from = float("inf") if self._widths.seconds else 0.0
        """When, by the monotonic clock, the widths may be timed."""
        self._arrived: deque[Waiting[Any]] = deque()
        self._live: list[_Live] = []
        self._full = False
        """Whether the next job waits for room; looked at again when one has ended."""

    def submit(self, job: Job[T], cancel: CancelFlag) -> "Future[T | None]":
        """Queue a job; its result is None if it was cancelled. `drive` does the work."""
        result: Future[T | None] = Future()
        result.set_running_or_notify_cancel()  # from here on only the scheduler ends it
        self._arrived.append(Waiting(job, cancel, result))
        return result

    def drive(self) -> None:
        """Work until nothing is left to do."""
        try:
            while self._drop_cancelled() or self._arrived:
                self._admit()
                self._prefill()
                self._decode()
        except BaseException as error:
            waiting = [self._arrived.popleft() for _ in range(len(self._arrived))]  # more may come at any time
            for live in self._live[:]:
                self._broken(live, error)
            for work in waiting:
                work.job.close()
                _fail(work, error)
            raise

    def _drop_cancelled(self) -> int:
        """Let cancelled jobs go; returns how many live ones are left."""
        self._context.interrupt.clear()
        for live in [live for live in self._live if live.work.cancel.is_set()]:
            self._end(live)
            live.work.job.close()
            live.work.result.set_result(None)
        return len(self._live)

    def _admit(self) -> None:
        """Begin the jobs for which there is room, in order of arrival."""
        most = min(MOST_LIVE, self._context.sequences // 2)
        while self._arrived and len(self._live) < most and not self._full:
            work = self._arrived[0]
            if work.cancel.is_set():
                work.job.close()
                work.result.set_result(None)
            elif work.asked is None and not self._asked(work):
                pass
            elif work.asked is not None:
                live = _Live(work, work.asked, self._expected(work.asked.prompt))
                self._full = bool(self._live) and not self._has_room(live, self._live)
                if self._full:
                    return
                self._live.append(live)
            self._arrived.popleft()

    def _asked(self, work: Waiting[Any]) -> bool:
        """Let the job say what it wants; False if it ended there."""
        try:
            work.asked = next(work.job)
        except StopIteration as end:
            work.result.set_result(end.value)
        except BaseException as error:  # goes to who asked
            _fail(work, error)
        return work.asked is not None

    def _expected(self, prompt: list[int]) -> int:
        known = self._prefixes.best(prompt)
        if not self._context.shares:
            return known
        return max((known, *(alike_tok(live.asked.prompt, prompt) for live in self._live)))

    def _has_room(self, more: _Live, beside: list[_Live]) -> bool:
        """Whether the cache holds all that these may still write."""
        promised = sum(live.cells_to_come for live in (more, *beside))
        return self._prefixes.live_cells() + promised <= self._context.cells

    def _prefill(self) -> None:
        """Evaluate one piece of the oldest prompt that is not done, unless another one is about to bring its part."""
        live = next((live for live in self._live if live.pending is None and not self._is_served(live)), None)
        if live is None:
            return
        prompt = live.asked.prompt
        if live.slot is None and not self._open(live):
            return
        assert live.slot is not None
        done = len(live.slot.tokens)
        hurries = any(other.pending is not None for other in self._live) or not self._context.shares
        piece = prompt[done : piece_end(done, len(prompt), most=PIECE_TOK if hurries else LONG_PIECE_TOK)]
        last = done + len(piece) == len(prompt)
        rows = [Row(token, done + n, live.slot.number, False) for n, token in enumerate(piece)]
        if last:
            rows[-1] = rows[-1]._replace(wanted=True)
        if not self._evaluate(rows, [live]):
            return
        self._prefixes.add(live.slot, piece)
        if last:
            for ready in (live, *self._opened_twins(live.slot, prompt)):
                self._start(ready, len(rows) - 1)

    def _open(self, live: _Live) -> bool:
        """Give a job its place in the cache; if less of its prompt was there than it seemed, it may have to wait."""
        opened = [other for other in self._live if other.slot is not None]
        live.slot = self._prefixes.open(live.asked.prompt)
        live.cached = len(live.slot.tokens)
        if not opened or self._has_room(live, opened):
            return True
        self._end(live)
        self._arrived.appendleft(live.work)
        self._full = True
        return False

    def _opened_twins(self, slot: Slot, prompt: list[int]) -> list[_Live]:
        """The jobs that wait for the same prompt, as far as there is room, each with it in a slot of its own."""
        opened = [other for other in self._live if other.slot is not None]
        twins = []
        for twin in [live for live in self._live if live.slot is None and live.asked.prompt == prompt]:
            twin.expected = len(prompt)
            if not self._context.shares or not self._has_room(twin, opened):
                break
            twin.slot = self._prefixes.open([])
            self._prefixes.share(slot, twin.slot, len(prompt))
            twin.cached = len(prompt)
            twins.append(twin)
            opened.append(twin)
        return twins

    def _is_served(self, live: _Live) -> bool:
        """Whether a prompt that is being evaluated will bring more of this one: what they share, or all if it is equal.

        Whatever the cache has of that beginning, the other one had when it was opened.
        """
        if live.slot is not None or not self._context.shares:
            return False
        prompt = live.asked.prompt
        return any(
            len(other.slot.tokens) < alike_tok(other.asked.prompt, prompt) or other.asked.prompt == prompt
            for other in self._live
            if other.slot is not None and other.pending is None
        )

    def _start(self, live: _Live, row: int) -> None:
        """The prompt is done: draw the first token."""
        try:
            live.work.job.send(live.cached)
        except BaseException as error:  # goes to who asked
            self._broken(live, error)
            return
        self._give(live, self._context.draw(live.asked.chain, row))

    def _decode(self) -> None:
        """Advance as many of the ready sequences as is fastest, the oldest ones."""
        ready = [live for live in self._live if live.pending is not None]
        if not ready:
            return
        if len(ready) > 1:
            self._time_widths(ready[0])
        group = ready[: self._width(len(ready))]
        drafts = self._drafts(group)
        rows: list[Row] = []
        for live in group:
            assert live.slot is not None and live.pending is not None
            at = len(live.slot.tokens)
            tokens = [live.pending, *drafts]
            rows += [Row(token, at + n, live.slot.number, True) for n, token in enumerate(tokens)]
        if not self._evaluate(rows, group):
            return
        if drafts:
            self._verify(group[0], drafts)
            return
        for row, live in enumerate(group):
            self._advance(live, row)

    def _width(self, ready: int) -> int:
        width = self._chosen.get(ready)
        if width is None:
            width = self._chosen[ready] = self._widths.choose(ready)
        return width

    def _drafts(self, group: list[_Live]) -> list[int]:
        """Guessed tokens, where a single reply is written and guessing pays."""
        if len(group) > 1 or not self._context.shares:
            return []
        live = group[0]
        assert live.slot is not None and live.pending is not None
        guess = live.lookup.draft(live.slot.tokens, live.pending)[: live.asked.most - live.drawn]
        if not guess:
            return []
        self._time_widths(live)
        return guess[: live.lookup.length(self._widths.cost)]

    def _time_widths(self, live: _Live) -> None:
        """Once for each model, build and number of threads, behind the text of a job; again if it was disturbed."""
        if time.monotonic() < self._time_from or not self._context.shares:
            return
        slots = self._prefixes.scratch(max(widths.CANDIDATES))
        if slots and live.slot is not None:
            places = [count(len(live.slot.tokens)) for _ in slots]
            for slot in slots:
                self._context.copy(live.slot.number, slot.number, len(live.slot.tokens))

            def step(width: int) -> bool:
                used = zip(slots[:width], places, strict=False)
                return self._context.evaluate([Row(0, next(place), slot.number, True) for slot, place in used])

            try:
                timing = widths.timed(step, threads=self._context.busy_threads)
            finally:
                for slot in slots:
                    self._context.cut(slot.number, 0)
            if timing.widths.seconds:
                self._widths, self._chosen = timing.widths, {}
                self._time_from = float("inf") if timing.undisturbed else time.monotonic() + widths.AGAIN_S
            if timing.undisturbed:
                widths.remember(self._name, timing.widths)

    def _verify(self, live: _Live, drafts: list[int]) -> None:
        """Take the guessed tokens as far as they are what is drawn."""
        assert live.slot is not None
        right = 0
        alive = self._advance(live, 0)
        while alive and right < len(drafts) and live.pending == drafts[right]:
            right += 1
            alive = self._advance(live, right)
        live.lookup.learn(len(drafts), right)
        self._context.cut(live.slot.number, len(live.slot.tokens))

    def _advance(self, live: _Live, row: int) -> bool:
        """The pending token is evaluated: draw the next one; False if the job ended."""
        assert live.slot is not None and live.pending is not None
        self._prefixes.add(live.slot, [live.pending])
        return self._give(live, self._context.draw(live.asked.chain, row))

    def _give(self, live: _Live, token: int) -> bool:
        live.pending = token
        live.drawn += 1
        try:
            live.work.job.send(token)
        except StopIteration as end:
            self._end(live)
            live.work.result.set_result(end.value)
        except BaseException as error:  # goes to who asked
            self._broken(live, error)
        else:
            return True
        return False

    def _evaluate(self, rows: list[Row], lives: list[_Live]) -> bool:
        try:
            if not self._prefixes.make_room(len(rows)):
                raise BackendError(f"the cache of {self._context.cells} tokens is full; ask for fewer replies at once")
            cancel = lives[0].work.cancel if len(lives) == 1 else None  # others who leave cost a long piece nothing
            return self._context.evaluate(rows, cancel=cancel)
        except BackendError as error:
            for live in lives:
                self._broken(live, error)
            return False

    def _broken(self, live: _Live, error: BaseException) -> None:
        self._end(live)
        live.work.job.close()
        _fail(live.work, error)

    def _end(self, live: _Live) -> None:
        self._live.remove(live)
        self._full = False
        if live.slot is not None:
            self._prefixes.release(live.slot)


def _fail(work: Waiting[Any], error: BaseException) -> None:
    if not work.result.done():
        work.result.set_exception(error)
