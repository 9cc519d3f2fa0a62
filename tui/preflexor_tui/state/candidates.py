"""The drafts that a round chose from, and how each did in the blind comparisons."""

from dataclasses import dataclass

from preflexor_agents.reflection.verdicts import points, same
from preflexor_tui.state.run import Round, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One draft among several."""

    number: int
    """From 1."""
    step: Step
    score: float | None = None
    """Share of its comparisons won against the draft that stood until then; None if it was not compared."""
    against: int | None = None
    """The draft that it was compared with, from 1."""
    same_as: int | None = None
    """The standing draft that says the same words, from 1."""
    chosen: bool = False


def candidates(round: Round) -> tuple[Candidate, ...]:
    """The drafts of a round in their order; empty where there was only one.

    Draft n meets the one that stands in two calls of the judge: in call 2n it is B, in call 2n+1 it is A.
    """
    drafts = {s.candidate: s for s in round.steps if s.stage == "draft"}
    if len(drafts) < 2:
        return ()
    verdicts = {s.candidate: s for s in round.steps if s.stage == "select" and s.status == "done"}
    answered = [n for n, s in sorted(drafts.items()) if s.answer.strip()] or sorted(drafts)
    standing, found = answered[0], []
    for n, step in sorted(drafts.items()):
        if n == standing or n not in answered:
            found.append(Candidate(number=n + 1, step=step))
        elif same(step.answer, drafts[standing].answer):
            found.append(Candidate(number=n + 1, step=step, same_as=standing + 1))
        else:
            score = _score(verdicts, n)
            found.append(Candidate(number=n + 1, step=step, score=score, against=standing + 1))
            standing = n if score is not None and score > 0.5 else standing
    is_over = round.finished is not None
    return tuple(
        Candidate(
            number=c.number,
            step=c.step,
            score=c.score,
            against=c.against,
            same_as=c.same_as,
            chosen=is_over and c.number == standing + 1,
        )
        for c in found
    )


def _score(verdicts: dict[int, Step], n: int) -> float | None:
    won = [
        points(verdicts[call].said, challenger=letter)
        for call, letter in ((2 * n, "B"), (2 * n + 1, "A"))
        if call in verdicts
    ]
    return sum(won) / len(won) if won else None
