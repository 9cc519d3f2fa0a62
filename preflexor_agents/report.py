"""What a run came to, as one JSON object: a fold over its events, with a published schema."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from preflexor_agents.events import (
    Cited,
    Event,
    Resumed,
    Retrieved,
    RoundFinished,
    RoundStarted,
    Ruled,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    Usage,
)


def report(events: Iterable[Event]) -> dict[str, Any]:
    """The object that `preflexor ask --json` prints; validates against `SCHEMA`. A cut-off run gives what it has."""
    result: dict[str, Any] = {
        "question": "",
        "answer": "",
        "rounds": [],
        "citations": [],
        "unsupported": [],
        "passages": [],
        "model": "",
        "models": {},
        "seed": 0,
        "preset": "",
        "stop_reason": "cancelled",
        "best_round": 0,
        "integrated": False,
        "error": "",
        "usage": asdict(Usage()) | {"calls": 0, "failed_calls": 0, "seconds": 0.0},
        "notes": [],
    }
    for event in events:
        _fold(result, event)
    return result


def _fold(result: dict[str, Any], event: Event) -> None:  # noqa: C901 - one case per event
    rounds: list[dict[str, Any]] = result["rounds"]
    match event:
        case RunStarted():
            result.update(question=event.question, models=event.models, model=event.models.get("thinker", ""))
            result.update(seed=event.config.get("seed", 0), preset=event.config.get("preset", ""))
        case RoundStarted(round=n, steering=steering):
            rounds.append(_new_round(n, list(steering)))
        case Retrieved(passages=passages):
            known = {p["chunk_id"] for p in result["passages"]}
            result["passages"] += [asdict(p) for p in passages if p.chunk_id not in known]
        case StepFinished():
            _count(result, rounds, event)
        case StepFailed():
            result["usage"]["failed_calls"] += 1
            result["notes"].append(f"{event.role} ({event.stage}) failed: {event.error}")
        case RoundFinished():
            entry = rounds[-1] if rounds else {}
            entry.update(thinking=event.thinking, reflection=event.reflection, answer=event.answer)
            entry.update(score=event.score, accepted=event.accepted, reason=event.reason)
        case Ruled(round=n, accepted=accepted):
            for entry in rounds:
                if entry["round"] == n:
                    entry.update(accepted=accepted, reason=f"{'taken' if accepted else 'refused'} by hand")
        case Resumed(models=models, config=config):
            result.update(models=models, model=models.get("thinker", ""), seed=config.get("seed", 0))
        case Cited():
            result["citations"] = [asdict(c) for c in event.citations]
            result["unsupported"] = list(event.unsupported)
        case RunFinished():
            result.update(answer=event.answer, stop_reason=event.stop_reason, best_round=event.best_round)
            result.update(integrated=event.integrated, error=event.error)
            result["usage"]["seconds"] = event.seconds
        case _:
            pass


def _new_round(number: int, steering: list[str]) -> dict[str, Any]:
    return {
        "round": number,
        "role": "thinker",
        "thinking": "",
        "reflection": "",
        "critique": "",
        "answer": "",
        "score": None,
        "accepted": False,
        "reason": "not finished",
        "steering": steering,
        "tokens_prompt": 0,
        "tokens_cached": 0,
        "tokens_generated": 0,
        "seconds": 0.0,
    }


def _count(result: dict[str, Any], rounds: list[dict[str, Any]], event: StepFinished) -> None:
    usage, totals = event.usage, result["usage"]
    totals["calls"] += 1
    for name in ("prompt", "cached", "generated"):
        totals[name] += getattr(usage, name)
    for note in event.notes:
        if note not in result["notes"]:
            result["notes"].append(note)
    if not rounds:
        return
    entry = rounds[-1]
    entry["tokens_prompt"] += usage.prompt
    entry["tokens_cached"] += usage.cached
    entry["tokens_generated"] += usage.generated
    entry["seconds"] = round(entry["seconds"] + event.seconds, 4)
    if event.stage == "critique":
        entry["critique"] = event.answer


def as_markdown(result: dict[str, Any]) -> str:
    """The report as a Markdown document."""
    lines = [f"# {result['question']}", "", result["answer"] or "(no answer)", ""]
    if result["citations"]:
        lines += ["## Citations", ""]
        for c in result["citations"]:
            page = f", page {c['page']}" if c["page"] is not None else ""
            lines.append(f"- [{c['number']}] {c['title']} ({c['source']}{page}): “{' '.join(c['quote'].split())}”")
        lines.append("")
    for r in result["rounds"]:
        verdict = "taken" if r["accepted"] else "the answer before was kept"
        lines += [f"## Round {r['round']}: {verdict}", "", r["reason"], ""]
        for name in ("critique", "thinking", "reflection", "answer"):
            if r[name].strip():
                lines += [f"**{name.capitalize()}**", "", *(f"> {x}" for x in r[name].strip().splitlines()), ""]
    usage = result["usage"]
    lines.append(
        f"Model {result['model']}, seed {result['seed']}, preset {result['preset']}; {usage['calls']} calls, "
        f"{usage['generated']} tokens written, {usage['seconds']:.1f} s; ended: {result['stop_reason']}."
    )
    return "\n".join(lines) + "\n"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT, _COUNT, _NUMBER, _FLAG = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "number"},
    {"type": "boolean"},
)
_SPAN = {"chunk_id": _COUNT, "source": _TEXT, "title": _TEXT, "page": {"type": ["integer", "null"]}}
_SPAN |= {"start": _COUNT, "end": _COUNT}
_RANK, _SCORE = {"type": ["integer", "null"]}, {"type": ["number", "null"]}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Answer of preflexor ask",
    **_object(
        {
            "question": _TEXT,
            "answer": _TEXT,
            "rounds": {
                "type": "array",
                "items": _object(
                    {
                        "round": {"type": "integer", "minimum": 1},
                        "role": {"enum": ["thinker"]},
                        "thinking": _TEXT,
                        "reflection": _TEXT,
                        "critique": _TEXT,
                        "answer": _TEXT,
                        "score": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                        "accepted": _FLAG,
                        "reason": _TEXT,
                        "steering": {"type": "array", "items": _TEXT},
                        "tokens_prompt": _COUNT,
                        "tokens_cached": _COUNT,
                        "tokens_generated": _COUNT,
                        "seconds": _NUMBER,
                    }
                ),
            },
            "citations": {
                "type": "array",
                "items": _object(
                    {"number": {"type": "integer", "minimum": 1}, **_SPAN, "quote": _TEXT, "claim": _TEXT}
                ),
            },
            "unsupported": {"type": "array", "items": _TEXT},
            "passages": {
                "type": "array",
                "items": _object(
                    {
                        **_SPAN,
                        "text": _TEXT,
                        "score": _NUMBER,
                        "vector_rank": _RANK,
                        "vector_score": _SCORE,
                        "text_rank": _RANK,
                        "text_score": _SCORE,
                    }
                ),
            },
            "model": _TEXT,
            "models": {"type": "object", "additionalProperties": _TEXT},
            "seed": _COUNT,
            "preset": _TEXT,
            "stop_reason": {
                "enum": ["rounds", "converged", "budget_tokens", "budget_seconds", "cancelled", "failed"],
            },
            "best_round": _COUNT,
            "integrated": _FLAG,
            "error": _TEXT,
            "usage": _object(
                {
                    "prompt": _COUNT,
                    "cached": _COUNT,
                    "generated": _COUNT,
                    "calls": _COUNT,
                    "failed_calls": _COUNT,
                    "seconds": _NUMBER,
                }
            ),
            "notes": {"type": "array", "items": _TEXT},
        }
    ),
}
