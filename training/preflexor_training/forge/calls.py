"""Calls of models: from the cache, or paid for within the budget, tried again where that may help, and recorded."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from preflexor_agents.backends.base import Backend, Completion, Request, complete
from preflexor_agents.config import GREEDY
from preflexor_agents.errors import BackendError, ForgeError
from preflexor_agents.events import Usage
from preflexor_agents.prompts import Message
from preflexor_training.forge.cache import CallCache, Paid, content_key, prompt_sha256, sha256_of
from preflexor_training.forge.limits import BudgetSpent, Purse, Slots
from preflexor_training.forge.records import CallRecord
from preflexor_training.forge.steps import Ask, Call, Who

FailureKind = Literal["error", "timeout", "too_long", "empty", "malformed", "refusal"]
_REFUSAL = re.compile(
    r"\W*(?:i(?:['\u2019]?m| am) (?:(?:very |really |so )?sorry|not able to|unable to)\b|sorry\b|as an ai\b|"
    r"(?:but )?i (?:cannot|can ?not|can['\u2019]t|won['\u2019]t|must decline)\b)",
    re.IGNORECASE,
)
"""How models begin that decline."""
_PROBE = Request(messages=(Message("user", "Say yes."),), sampling=replace(GREEDY, max_tok=1))
_TIMEOUTS = 2
"""A call is not waited for more often than that."""


class CallFailed(BackendError):
    """A call came to nothing, whatever was tried."""

    def __init__(self, kind: FailureKind, message: str, *, tries: int = 0) -> None:
        super().__init__(message)
        self.kind, self.tries = kind, tries


class BackendGone(ForgeError):
    """A model has stopped answering; no row is made without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a call is worth waiting for."""

    tries: int = 4
    """For one reply, and replies for one call."""
    timeout_s: float = 600.0
    """Without a word of the reply, from the moment that it is the call's turn."""
    backoff_s: float = 1.0
    """Before the second try of one reply; twice as long before each further one."""
    failures: int = 5
    """Calls of one backend to which nothing came, one after the other: it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Who answers."""

    backend: Backend
    adapter_sha256: str = ""
    """Of the adapter that the backend has loaded, where its SPEC does not say."""


@dataclass(slots=True)
class Spending:
    """What the calls of this process came to."""

    paid: int = 0
    """Replies."""
    cached: int = 0
    """Replies that were paid for before."""
    failures: Counter[FailureKind] = field(default_factory=Counter)
    """Tries that came to nothing, by kind."""
    usage: Usage = field(default_factory=Usage)
    """Of the replies that were paid for."""


@dataclass(slots=True)
class Asked:
    """What was asked for one row."""

    records: list[tuple[int, CallRecord]] = field(default_factory=list)
    """Each with the place of its step among the row's steps."""
    lost: list[tuple[Who, int]] = field(default_factory=list)
    """Calls to which nothing came: of whom, and how many calls its backend had been sent by then."""
    under_way: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first call is to be paid for, or the row is at its end without one."""


@dataclass(slots=True)
class _Line:
    """The way to a backend."""

    slots: Slots
    sent: int = 0
    """Calls so far; their numbers, from 1, tell whether one was sent after another was lost."""
    answered: int = 0
    """The last call to which a reply came."""
    lost: int = 0
    """Calls to which nothing came since then."""

    def alive(self, number: int) -> None:
        """Note that a reply came to a call."""
        if number > self.answered:
            self.answered, self.lost = number, 0


class Calls:
    """All calls of a run."""

    def __init__(
        self, models: Mapping[Who, Model], *, cache: CallCache, slots: int, purse: Purse, patience: Patience
    ) -> None:
        """Begin a run.

        Args:
            models: who answers; one backend may have several parts.
            cache: of the run.
            slots: most calls of one backend at once.
            purse: tokens that may be generated.
            patience: with failures.
        """
        self.spending = Spending()
        self._models = models
        self._cache = cache
        self._purse = purse
        self._patience = patience
        lines = {id(model.backend): _Line(Slots(slots)) for model in models.values()}
        self._lines = {who: lines[id(model.backend)] for who, model in models.items()}
        self._flying: dict[str, asyncio.Event] = {}

    def slots(self, who: Who) -> Slots:
        """What calls of that part wait for."""
        return self._lines[who].slots

    def settled(self, asked: Asked) -> bool:
        """Whether every backend that failed a row has answered a later call, so that the failure was the row's own."""
        return all(self._lines[who].answered > sent for who, sent in asked.lost)

    async def settle(self, asked: Asked) -> None:
        """Ask the backends that failed a row for a word, when no other call will tell whether they are alive.

        Raises:
            BackendGone: one does not answer.
        """
        for who, sent in asked.lost:
            backend, line = self._models[who].backend, self._lines[who]
            if line.answered > sent:
                continue
            try:
                async with asyncio.timeout(self._patience.timeout_s):
                    await complete(backend, _PROBE)
            except (BackendError, TimeoutError) as error:
                raise BackendGone(f"{backend.spec} is gone: {' '.join(str(error).split()) or 'no answer'}") from error
            line.sent += 1
            line.alive(line.sent)

    def asker(self, asked: Asked, *, row: int, place: int) -> Ask:
        """What makes the calls of one step of a row.

        Args:
            asked: takes a note of each call.
            row: number of the row; the calls of lower ones go first.
            place: of the step among the row's steps.
        """

        async def ask(call: Call) -> Completion:
            return await self._ask(call, row, lambda record: asked.records.append((place, record)), asked)

        return ask

    async def _ask(self, call: Call, row: int, note: Callable[[CallRecord], None], asked: Asked) -> Completion:
        request, tries = call.request, 0
        failure = CallFailed("error", "it was not asked")
        for n in range(self._patience.tries):
            request = replace(call.request, seed=_other_seed(call.request.seed, n)) if n else call.request
            try:
                paid = await self._reply(call, request, row, asked)
            except CallFailed as error:
                note(self._record(call, request, Completion(), tries=tries + error.tries, error=str(error)))
                if error.kind != "too_long":
                    self._note_loss(call.who, asked, error)
                raise
            tries += paid.tries
            found = _useless(call, paid.reply)
            if found is None:
                note(self._record(call, request, paid.reply, tries=tries))
                return paid.reply
            failure = found
            self.spending.failures[failure.kind] += 1
        note(self._record(call, request, paid.reply, tries=tries, error=str(failure)))
        raise failure

    def _note_loss(self, who: Who, asked: Asked, error: CallFailed) -> None:
        """Raises BackendGone: too many calls were lost since the backend last answered."""
        line = self._lines[who]
        asked.lost.append((who, line.sent))
        line.lost += 1
        if line.lost >= self._patience.failures:
            spec = self._models[who].backend.spec
            raise BackendGone(f"{spec} is gone: {line.lost} calls failed one after the other, the last: {error}")

    async def _reply(self, call: Call, request: Request, row: int, asked: Asked) -> Paid:
        """From the cache, else from the backend; one that is in flight already is waited for."""
        model = self._models[call.who]
        key = content_key(model.backend.spec, model.adapter_sha256, request, attempt=call.attempt)
        while flying := self._flying.get(key):
            await flying.wait()
        known = self._cache.get(key)
        if known is not None:
            self.spending.cached += 1
            return known
        self._flying[key] = asyncio.Event()
        asked.under_way.set()
        try:
            paid = await self._insist(call.who, model.backend, request, row)
            self._cache.put(key, paid)
        finally:
            self._flying.pop(key).set()
        return paid

    async def _insist(self, who: Who, backend: Backend, request: Request, row: int) -> Paid:
        """Ask until something comes. Raises CallFailed when patience ends."""
        kinds: list[FailureKind] = []
        line = self._lines[who]
        while True:
            try:
                async with line.slots.taken(row):
                    line.sent += 1
                    number = line.sent
                    reply = await self._paid(backend, request)
            except TimeoutError:
                kinds.append("timeout")
                message = f"{backend.spec} was silent for {self._patience.timeout_s:g} s"
            except BackendError as error:
                kinds.append("too_long" if await _is_too_long(backend, request) else "error")
                message = str(error)
            else:
                line.alive(number)
                self.spending.paid += 1
                self.spending.usage += reply.usage
                return Paid(reply, len(kinds) + 1)
            self.spending.failures[kinds[-1]] += 1
            over = kinds[-1] == "too_long" or kinds.count("timeout") == _TIMEOUTS
            if over or len(kinds) == self._patience.tries:
                raise CallFailed(kinds[-1], message, tries=len(kinds))
            await asyncio.sleep(self._patience.backoff_s * 2 ** (len(kinds) - 1))

    async def _paid(self, backend: Backend, request: Request) -> Completion:
        """One try. Raises BackendError, TimeoutError, or BudgetSpent."""
        wanted = request.sampling.max_tok
        granted = await self._purse.take(wanted)
        capped = replace(request, sampling=replace(request.sampling, max_tok=granted))
        written, wait_s = 0, self._patience.timeout_s
        try:
            async with asyncio.timeout(wait_s) as limit, aclosing(backend.generate(capped)) as items:
                async for item in items:
                    limit.reschedule(asyncio.get_running_loop().time() + wait_s)
                    if isinstance(item, Completion):
                        written = item.usage.generated
                        break
                    written += 1
                else:
                    raise BackendError(f"{backend.spec} ended without a reply")
        finally:
            self._purse.give_back(granted, used=written)
        if granted < wanted and item.finish_reason == "length":
            raise BudgetSpent("budget_tokens")
        return item

    def _record(self, call: Call, request: Request, reply: Completion, *, tries: int, error: str = "") -> CallRecord:
        model = self._models[call.who]
        return CallRecord(
            step=call.step,
            who=call.who,
            model=model.backend.spec,
            adapter_sha256=model.adapter_sha256,
            prompt_sha256=prompt_sha256(request),
            seed=request.seed,
            tokens_prompt=reply.usage.prompt,
            tokens_cached=reply.usage.cached,
            tokens_generated=reply.usage.generated,
            seconds=reply.seconds,
            tries=tries,
            error=error,
        )


def _useless(call: Call, reply: Completion) -> CallFailed | None:
    """What is wrong with a reply, so that another is worth asking for.

    A student's refusal is its own answer, which training is to be better than.
    """
    answer = reply.answer.strip()
    if not answer:
        return None if call.may_be_empty else CallFailed("empty", f"{call.step}: the answer is empty")
    if call.request.json_schema is not None:
        return None if _is_object(answer) else CallFailed("malformed", f"{call.step}: no JSON object: {answer[:60]!r}")
    if call.who != "student" and not call.may_decline and _REFUSAL.match(answer):
        return CallFailed("refusal", f"{call.step}: the model declines: {answer[:60]!r}")
    return None


def _is_object(text: str) -> bool:
    """Whether it is an object; a line break within a string harms nobody who looks at the values."""
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _other_seed(seed: int, n: int) -> int:
    return int(sha256_of([seed, n])[:8], 16) >> 1


async def _is_too_long(backend: Backend, request: Request) -> bool:
    """Whether a prompt fails since it does not fit, which no further try will change."""
    try:
        return bool(backend.context_tok) and await backend.count_tok(request.messages) >= backend.context_tok
    except BackendError:
        return False
