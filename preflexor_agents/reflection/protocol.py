"""What comes next in a run: a pure function from the state to one step. Engine, agents and group chat all ask it.

Critic variant, after the draft: critique -> revise the thinking -> answer from it -> gate. Self variant: the
model's own reflection takes the place of the critique. Preset `paper` is the published loop (arXiv 2410.12375):
every revision is taken and the answers are merged at the end.
"""

import zlib
from dataclasses import replace

from preflexor_agents import prompts
from preflexor_agents.budget import Budget
from preflexor_agents.config import Sampling
from preflexor_agents.events import Role, RoundFinished, RunFinished, Stage, StepFinished, StopReason
from preflexor_agents.prompts import Grounds, Message
from preflexor_agents.reflection.marks import marked
from preflexor_agents.reflection.state import Draft, State, said
from preflexor_agents.reflection.steps import Call, Cite, Generate, OpenRound, Retrieve, Step
from preflexor_agents.reflection.verdicts import points, same, sound

NO_REFLECTION = "No feedback was given; check every step."


def next_step(state: State, *, elapsed_s: float = 0.0, cancelled: bool = False) -> Step | None:
    """What to do now; None once the run has finished.

    Args:
        state: the fold of all events so far.
        elapsed_s: seconds since the run started.
        cancelled: whether the user asked to stop; the run then ends with the best so far.
    """
    if state.finished:
        return None
    stop = _stop(state, elapsed_s, cancelled=cancelled)
    if stop in ("budget_tokens", "budget_seconds", "cancelled"):
        return (
            _cut(state, f"stopped: {stop.replace('_', ' ')}")
            if state.round_open
            else _ending(state, stop, merged=None, elapsed_s=elapsed_s)
        )
    if state.round_open:
        return _cut(state, "you stopped this round") if state.stopped else _in_round(state, elapsed_s)
    if stop is None:
        return OpenRound(round=state.round + 1, steering=state.waiting)
    return _integrate(state, stop, elapsed_s)


def budget_left(state: State, elapsed_s: float) -> Budget:
    """What is left of the run's limits."""
    return Budget(state.config.budget_tok - state.usage.generated, state.config.budget_s - elapsed_s)


def _stop(state: State, elapsed_s: float, *, cancelled: bool) -> StopReason | None:
    if cancelled:
        return "cancelled"
    spent = budget_left(state, elapsed_s).spent()
    if spent:
        return spent
    if state.round_open or not state.round:
        return None
    if state.waiting:
        return None  # what the user said last gets a round of its own
    if state.converged and state.config.converge:
        return "converged"
    return "rounds" if state.round >= state.config.rounds else None


def _in_round(state: State, elapsed_s: float) -> Step:
    if state.has_store and not state.retrieved and not state.failed("retrieve"):
        if state.best is None:
            words = (state.question, *state.steering)
            return Retrieve(round=state.round, query=" ".join(words), k=state.config.passages)
        if state.config.retrieve_every_round or state.fresh_steering:
            query = _query(state)
            if query is not None:
                return Retrieve(round=state.round, query=query, k=state.config.passages)
    return _first_round(state, elapsed_s) if state.best is None else _later_round(state, state.best)


def _query(state: State) -> str | None:
    """The search of a later round, once there is a critique to search with."""
    if state.config.variant == "self":
        feedback = state.best.reflection if state.best else ""
        return " ".join((state.question, *state.steering, feedback))
    critique = state.done("critique").get(0)
    if critique is None or _is_settled(state, said(critique)):
        return None
    return " ".join((state.question, *state.steering, said(critique)))


def _is_settled(state: State, critique: str) -> bool:
    """Whether the critic's word ends the round: nothing to change, and nothing new from the user."""
    answered = state.best is not None and bool(state.best.answer)
    return state.config.converge and sound(critique) and not state.fresh_steering and answered


def _cut(state: State, reason: str) -> RoundFinished:
    """Close the open round where it stands: a draft counts as far as it came; a revision is kept, but not taken."""
    drafts = _drafts(state) if state.best is None else {}
    if drafts:
        champion, _ = _knock_out(state, drafts)
        return _proposal(drafts[champion], accepted=True, score=None, reason=reason)
    revision, answer = state.done("revise").get(0), state.done("answer").get(0)
    if not state.stopped or revision is None or answer is None or not answer.answer.strip():
        return _kept(state, reason)
    partial = Draft(
        round=state.round, thinking=said(revision), reflection=answer.reflection, answer=answer.answer.strip()
    )
    return _proposal(partial, accepted=False, score=None, reason=reason)


# ---- the first round, and later ones as long as there is no answer: drafts and the choice among them


def _first_round(state: State, elapsed_s: float) -> Step:
    config = state.config
    done, failed = state.done("draft"), state.failed("draft")
    missing = [n for n in range(config.candidates) if n not in done and n not in failed]
    if missing:
        several = config.candidates > 1
        sampling = replace(config.thinker, temperature=config.candidate_temperature) if several else config.thinker
        messages = prompts.draft(_grounds(state), reflect=config.variant == "self")
        calls = [_call(state, "draft", n, messages, sampling) for n in missing]
        return Generate(round=state.round, role="thinker", stage="draft", calls=tuple(calls))
    drafts = _drafts(state)
    if not drafts:
        reason = "; ".join(f.error for f in failed.values()) or "the draft is empty"
        return RunFinished(answer="", stop_reason="failed", usage=state.usage, seconds=elapsed_s, error=reason)
    champion, comparison = _knock_out(state, drafts)
    if comparison:
        return comparison
    best = drafts[champion]
    reason = "first draft" if config.candidates == 1 else f"draft {champion + 1} of {config.candidates} chosen"
    return _proposal(best, accepted=True, score=None, reason=reason)


def _drafts(state: State) -> dict[int, Draft]:
    """The round's candidates that hold an answer; if none does, those that hold at least thinking."""
    done = {
        n: Draft(round=state.round, thinking=s.thinking, reflection=s.reflection, answer=s.answer.strip())
        for n, s in sorted(state.done("draft").items())
    }
    answered = {n: d for n, d in done.items() if d.answer}
    return answered or {n: d for n, d in done.items() if d.thinking.strip()}


def _knock_out(state: State, drafts: dict[int, Draft]) -> tuple[int, Generate | None]:
    """The candidate that stands after the comparisons so far, and the comparison still to make.

    Candidate n meets the one that stands in two calls, numbered 2n (it is B) and 2n+1 (it is A).
    """
    standing = min(drafts)
    for n in sorted(drafts)[1:]:
        if same(drafts[n].answer, drafts[standing].answer):
            continue
        won = _duel(state, "select", n, drafts[standing].answer, drafts[n].answer)
        if isinstance(won, Generate):
            return standing, won
        if won is not None and won > 0.5:
            standing = n
    return standing, None


# ---- later rounds: feedback, revision, answer, gate


def _later_round(state: State, best: Draft) -> Step:
    config = state.config
    if config.variant == "critic":
        critique = state.done("critique").get(0)
        if critique is None:
            failure = state.failed("critique").get(0)
            if failure:
                return _kept(state, f"the critic failed: {failure.error}")
            messages = prompts.critique(_grounds(state), thinking=best.thinking, answer=best.answer)
            return _one_call(state, "critic", "critique", messages, config.improver)
        feedback = said(critique)
        if _is_settled(state, feedback):
            return _kept(state, "the critic found nothing to change", converged=True)
    else:
        feedback = best.reflection.strip() or NO_REFLECTION
    revision = state.done("revise").get(0)
    if revision is None:
        failure = state.failed("revise").get(0)
        if failure:
            return _kept(state, f"the reviser failed: {failure.error}")
        messages = prompts.revise(_grounds(state), thinking=best.thinking, feedback=feedback)
        return _one_call(state, "reviser", "revise", messages, config.improver)
    answer = state.done("answer").get(0)
    if answer is None:
        failure = state.failed("answer").get(0)
        if failure:
            return _kept(state, f"the thinker failed: {failure.error}")
        messages = prompts.draft(_grounds(state), reflect=config.variant == "self")
        return _one_call(state, "thinker", "answer", messages, config.thinker, thinking=said(revision))
    return _gate(state, best, said(revision), answer)


def _gate(state: State, best: Draft, thinking: str, answer: StepFinished) -> Step:
    new = Draft(round=state.round, thinking=thinking, reflection=answer.reflection, answer=answer.answer.strip())
    if not new.answer:
        return _proposal(new, accepted=False, score=None, reason="the revision has no answer")
    if not state.config.gate:
        return _proposal(new, accepted=True, score=None, reason="every revision is taken")
    if not best.answer:
        return _proposal(new, accepted=True, score=None, reason="the answer so far was empty")
    if same(new.answer, best.answer):
        return _proposal(new, accepted=False, score=None, reason="the revision changes nothing", converged=True)
    score = _duel(state, "gate", 0, best.answer, new.answer)
    if isinstance(score, Generate):
        return score
    if score is None:
        return _proposal(new, accepted=False, score=None, reason=f"the judge failed: {_failure(state, 'gate')}")
    verdict = "better" if score > 0.5 else "not better"
    return _proposal(new, accepted=score > 0.5, score=score, reason=f"the judge found it {verdict} ({score:.2f})")


# ---- the end: merge, choose, cite


def _integrate(state: State, stop: StopReason, elapsed_s: float) -> Step:
    config, best = state.config, state.best
    if config.integrate == "never" or state.stopped or best is None:
        return _ending(state, stop, merged=None, elapsed_s=elapsed_s)
    if config.integrate == "or_select" and state.ruled:
        return _ending(state, stop, merged=None, elapsed_s=elapsed_s)  # the user has chosen
    answers = _answers_to_merge(state)
    if config.integrate == "or_select" and len(answers) < 2:
        return _ending(state, stop, merged=None, elapsed_s=elapsed_s)
    merge = state.done("integrate").get(0)
    if merge is None:
        if state.failed("integrate"):
            return _ending(state, stop, merged=None, elapsed_s=elapsed_s)
        messages = prompts.integrate(_grounds(state), answers=answers)
        return _one_call(state, "integrator", "integrate", messages, config.improver)
    merged = said(merge)
    if config.integrate == "always" or not best.answer:
        return _ending(state, stop, merged=merged or None, elapsed_s=elapsed_s)
    if not merged or same(merged, best.answer):
        return _ending(state, stop, merged=None, elapsed_s=elapsed_s)
    score = _duel(state, "choose", 0, best.answer, merged)
    if isinstance(score, Generate):
        return score
    won = score is not None and score > 0.5
    return _ending(state, stop, merged=merged if won else None, elapsed_s=elapsed_s)


def _answers_to_merge(state: State) -> list[str]:
    """The published merge takes every answer (self variant: without the first); ours takes different ones."""
    answers = [a.answer for a in state.answers if a.answer]
    if state.config.integrate == "always":
        published_self = state.config.variant == "self" and len(answers) > 1
        return answers[1:] if published_self else answers
    distinct: list[str] = []
    for text in answers:
        if not any(same(text, other) for other in distinct):
            distinct.append(text)
    return distinct


def _ending(state: State, stop: StopReason, *, merged: str | None, elapsed_s: float) -> Step:
    best = state.best
    answer = merged or (best.answer if best else "")
    to_cite = state.has_store and state.passages and answer and stop != "cancelled"
    if to_cite and state.cited is None and not state.failed("cite"):
        return Cite(round=state.round, answer=answer, passages=state.passages)
    return RunFinished(
        answer=marked(answer, state.cited) if state.cited else answer,
        stop_reason=stop,
        best_round=best.round if best else 0,
        integrated=merged is not None,
        usage=state.usage,
        seconds=elapsed_s,
    )


# ---- shared pieces


def _grounds(state: State) -> Grounds:
    return Grounds(question=state.question, passages=state.passages, steering=state.steering, earlier=state.earlier)


def _duel(state: State, stage: Stage, n: int, old: str, new: str) -> float | Generate | None:
    """The challenger's share of two blind comparisons, in both orders; a step if they are still to be made.

    None if neither comparison could be made.
    """
    done, failed = state.done(stage), state.failed(stage)
    orders = {2 * n: (old, new, "B"), 2 * n + 1: (new, old, "A")}
    missing = [c for c in orders if c not in done and c not in failed]
    if missing:
        calls = [
            _call(state, stage, c, prompts.judge(_grounds(state), a=orders[c][0], b=orders[c][1]), state.config.judge)
            for c in missing
        ]
        return Generate(round=state.round, role="judge", stage=stage, calls=tuple(calls))
    won = [points(said(done[c]), challenger=orders[c][2]) for c in orders if c in done]
    return sum(won) / len(won) if won else None


def _one_call(
    state: State,
    role: Role,
    stage: Stage,
    messages: tuple[Message, ...],
    sampling: Sampling,
    *,
    thinking: str | None = None,
) -> Generate:
    call = _call(state, stage, 0, messages, sampling, thinking=thinking)
    return Generate(round=state.round, role=role, stage=stage, calls=(call,))


def _call(
    state: State,
    stage: Stage,
    candidate: int,
    messages: tuple[Message, ...],
    sampling: Sampling,
    *,
    thinking: str | None = None,
) -> Call:
    key = f"{state.config.seed}/{state.round}/{stage}/{candidate}"
    seed = zlib.crc32(key.encode()) & 0x7FFFFFFF
    return Call(candidate=candidate, messages=messages, thinking=thinking, sampling=sampling, seed=seed)


def _proposal(
    draft: Draft, *, accepted: bool, score: float | None, reason: str, converged: bool = False
) -> RoundFinished:
    return RoundFinished(
        round=draft.round,
        thinking=draft.thinking,
        reflection=draft.reflection,
        answer=draft.answer,
        accepted=accepted,
        score=score,
        reason=reason,
        converged=converged,
    )


def _kept(state: State, reason: str, *, converged: bool = False) -> RoundFinished:
    return RoundFinished(round=state.round, accepted=False, reason=reason, converged=converged)


def _failure(state: State, stage: Stage) -> str:
    return "; ".join(f.error for f in state.failed(stage).values())
