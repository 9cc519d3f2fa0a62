"""What one question came to, as a value and as a line of JSON; a fold over the events of its run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.scoring import right
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.events import Cited, Event, RoundFinished, RunFinished, StepFinished, Usage
from preflexor_agents.reflection.verdicts import same


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One question, asked of one system with one seed."""

    task: str
    system: str
    seed: int
    column: str
    answer: str = ""
    thinking: str = ""
    """That the first draft was written with."""
    right: bool = False
    well_formed: bool | None = None
    """Whether the draft has thinking and an answer, whole; None if no thinking was asked for."""
    drafts_right: tuple[bool, ...] = ()
    """Of each draft; the oracle takes the best."""
    rounds_right: tuple[bool, ...] = ()
    """Of the answer that stood after each round."""
    proposed_right: tuple[bool | None, ...] = ()
    """Of what each round after the first proposed; None if it proposed nothing."""
    accepted: tuple[bool, ...] = ()
    """Whether it was taken."""
    changed: tuple[bool, ...] = ()
    """Whether its words differ from those of the answer before."""
    rounds_calls: tuple[int, ...] = ()
    """Calls until the end of each round; likewise the following."""
    rounds_tokens: tuple[int, ...] = ()
    """Written."""
    rounds_seconds: tuple[float, ...] = ()
    claims: int = 0
    """Sentences of the answer that were looked for in the passages."""
    supported: int = 0
    """Those whose quote stands in a document."""
    tokens_prompt: int = 0
    tokens_cached: int = 0
    tokens_generated: int = 0
    calls: int = 0
    seconds: float = 0.0
    stop_reason: str = ""
    error: str = ""

    def key(self) -> tuple[str, str, int]:
        """What tells it from the others of a run."""
        return self.system, self.task, self.seed


def to_json(result: Result) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(result)


def from_json(data: Mapping[str, Any], *, where: str) -> Result:
    """The inverse of `to_json`. Raises InputError, beginning with `where`."""
    known = {f.name for f in fields(Result)}
    if data.keys() - known or not {"task", "system", "seed", "column"} <= data.keys():
        raise InputError(f"{where} is no result of this version; evaluate into a new folder")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Result(**values)


def folded(task: Task, events: Iterable[Event], *, system: str, seed: int, closed_s: Sequence[float] = ()) -> Result:
    """What the events of a run come to.

    Args:
        task: what was asked.
        events: of the run, in their order.
        system: who was asked.
        seed: of the run.
        closed_s: seconds from its start to the end of each round.
    """
    usage, calls, seconds = Usage(), 0, 0.0
    drafts: list[StepFinished] = []
    closed: list[RoundFinished] = []
    spent: list[tuple[int, int]] = []
    claims = supported = 0
    ended: RunFinished | None = None
    for event in events:
        match event:
            case StepFinished():
                usage, calls = usage + event.usage, calls + 1
                if event.stage == "draft":
                    drafts.append(event)
            case RoundFinished():
                closed.append(event)
                spent.append((calls, usage.generated))
            case Cited():
                quoted = {citation.claim for citation in event.citations}
                claims, supported = len(quoted) + len(event.unsupported), len(quoted)
            case RunFinished():
                ended, seconds = event, event.seconds
    rounds = _rounds(task, closed)
    answer = ended.answer if ended is not None else ""
    return Result(
        task=task.id,
        system=system,
        seed=seed,
        column=task.column,
        answer=answer,
        thinking=drafts[0].thinking if drafts else "",
        right=right(task, answer),
        well_formed=_well_formed(drafts[0]) if drafts else None,
        drafts_right=tuple(right(task, draft.answer) for draft in drafts),
        rounds_calls=tuple(made for made, _ in spent),
        rounds_tokens=tuple(tok for _, tok in spent),
        rounds_seconds=tuple(closed_s),
        claims=claims,
        supported=supported,
        tokens_prompt=usage.prompt,
        tokens_cached=usage.cached,
        tokens_generated=usage.generated,
        calls=calls,
        seconds=seconds,
        stop_reason=ended.stop_reason if ended is not None else "failed",
        error=ended.error if ended is not None else "the run did not end",
        **rounds,
    )


def _rounds(task: Task, closed: list[RoundFinished]) -> dict[str, tuple[Any, ...]]:
    """Round by round: what stood, what was proposed, and what became of it."""
    standing, stood, proposed, accepted, changed = "", [], [], [], []
    for number, closing in enumerate(closed):
        if number:
            proposed.append(right(task, closing.answer) if closing.answer else None)
            accepted.append(closing.accepted)
            changed.append(bool(closing.answer) and not same(closing.answer, standing))
        if closing.accepted:
            standing = closing.answer
        stood.append(right(task, standing))
    return {
        "rounds_right": tuple(stood),
        "proposed_right": tuple(proposed),
        "accepted": tuple(accepted),
        "changed": tuple(changed),
    }


def _well_formed(draft: StepFinished) -> bool:
    """One thinking section and an answer, both with words in them, and the end of the turn."""
    odd = any("thinking" in note or "tag" in note for note in draft.notes)
    return bool(draft.thinking.strip() and draft.answer.strip()) and draft.finish_reason == "stop" and not odd
