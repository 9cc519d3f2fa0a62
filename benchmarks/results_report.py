"""The page of results as Markdown: verdicts, tables, and what they were measured with."""

from collections.abc import Mapping, Sequence

from results_claims import ALL, Compared
from results_found import (
    Comparison,
    Measured,
    Point,
    by_seed,
    comparisons,
    draft_of,
    drafts_sweep,
    rounds_sweep,
    row_of,
)
from results_plan import MOST_DRAFTS, PHASES, PUZZLE_PART

from preflexor_agents.evaluation.table import grid, percent, points

_PAIRED = (
    "The second row against the first on the same questions, in percentage points; p by McNemar's exact test, for each "
    "column by itself. The last column says whether the 95 % intervals of the two accuracies lie apart."
)
_FORM = (
    "Well-formed are drafts with thinking and an answer, both whole; accepted are revisions that were taken; the gate "
    "is right if of two answers, one right and one wrong, it keeps the right one. These in %. Tokens written, seconds "
    "and calls are means for a question."
)


def report(m: Measured, figures: Mapping[str, str]) -> str:
    """The whole of it; `figures` has where each picture is, by name."""
    compared = comparisons(m)
    parts = ["## Verdicts", *_unfinished(m), "\n".join(f"- {one.verdict}" for one in compared)]
    parts += ["## How it was asked", *_asked(m)]
    parts += ["## Accuracy", "In %, with 95 % intervals; each row as it comes, whatever it costs."]
    parts += [_accuracy(m), _picture(figures, "accuracy", "Accuracy of the rows that write one draft, by column")]
    parts += ["## Form, decisions, cost", _FORM, _form(m)]
    parts += _equal(m, figures)
    parts += _sweeps(m, figures)
    parts += _ablations(m)
    parts += _seeds(m)
    parts += ["## Paired tests", _PAIRED, _paired(compared)]
    return "\n\n".join(part for part in parts if part)


def _unfinished(m: Measured) -> list[str]:
    if not m.missing:
        return []
    return [f"**Not complete:** {m.missing} answers are not there yet; the same command asks for them."]


def _asked(m: Measured) -> list[str]:
    models = [[PHASES.get(model.name, model.name), model.path.name, model.sha256] for model in m.models]
    sizes = m.how.sizes
    said = (
        f"Questions of each column: {sizes.draft} for rows that write one draft, {sizes.loop} for rows with rounds or "
        f"candidates, {sizes.sweep} for sweeps and seeds; of puzzles one for {PUZZLE_PART} others. A question is asked "
        f"with one of the seeds {', '.join(map(str, m.how.seeds))}, in turn. {m.how.slots} at a time; {m.machine}."
    )
    return [f"```sh\n{m.command}\n```", said, grid(["model", "file", "SHA-256"], models)]


def _accuracy(m: Measured) -> str:
    body = []
    for entry in m.of("draft", "loop"):
        row = row_of(m.found[entry])
        shown = [percent(row.accuracy.get(column)) for column in m.columns]
        body.append([entry.label, *shown, percent(row.first_round), percent(row.oracle), _questions(m, entry)])
    return grid(["row", *m.columns, "round 1", "oracle", "questions"], body)


def _questions(m: Measured, entry: object) -> str:
    return str(len({result.task for result in m.found[entry]}))  # type: ignore[index]


def _form(m: Measured) -> str:
    body = []
    for entry in m.of("draft", "loop"):
        row = row_of(m.found[entry])
        shares = map(percent, (row.well_formed, row.accept_rate, row.gate_accuracy))
        costs = [f"{row.tokens_generated:.0f}", f"{row.seconds:.2f}", f"{row.calls:.1f}"]
        body.append([entry.label, *shares, *costs, str(row.results), str(row.errors)])
    head = ["row", "well-formed", "accepted", "gate right", "tokens", "seconds", "calls", "answers", "errors"]
    return grid(head, body)


def _equal(m: Measured, figures: Mapping[str, str]) -> list[str]:
    if m.budget is None or not m.of("equal"):
        return []
    said = f"No row but the bare answer may write more than {m.budget.tokens} tokens for a question."
    if not m.budget.limit:
        said = f"The dearest row, {m.budget.dearest}, writes {m.budget.tokens} tokens for a question on average."
    said += (
        f" The others write as many drafts, at most {MOST_DRAFTS}, as bring their mean near that; the judge chooses "
        "one, and the rounds, if the row has some, begin with it. A bare answer has nothing to spend more on."
    )
    body = []
    for entry in m.of("equal"):
        row = row_of(m.found[entry])
        shown = [percent(row.accuracy.get(column)) for column in m.columns]
        body.append([entry.label, *shown, f"{row.tokens_generated:.0f}", f"{row.seconds:.2f}", _questions(m, entry)])
    table = grid(["row", *m.columns, "tokens", "seconds", "questions"], body)
    return [
        "## At equal budgets",
        said,
        table,
        _picture(figures, "cost", "Accuracy against the tokens that were written"),
    ]


def _sweeps(m: Measured, figures: Mapping[str, str]) -> list[str]:
    parts = []
    if drafts := drafts_sweep(m):
        parts += [
            "Drafts that the judge chooses from. The oracle would always choose the best.",
            _sweep("drafts", drafts, m),
        ]
    for name, runs in m.by_round.items():
        if found := rounds_sweep(runs):
            parts += [f"Rounds, {name}.", _sweep("rounds", found, m)]
    if not parts:
        return []
    picture = _picture(figures, "sweeps", "Accuracy by number of drafts, and of rounds with the gate and without")
    return ["## Sweeps", "The same questions at every place of a sweep.", *parts, picture]


def _sweep(what: str, found: Sequence[Point], m: Measured) -> str:
    is_choice = what == "drafts"
    several = [ALL] if len(m.columns) > 1 else []
    body = []
    for point in found:
        row = point.row
        shown = [percent(row.accuracy.get(column)) for column in (*m.columns, *several)]
        more = percent(row.oracle if is_choice else row.gate_accuracy)
        body.append(
            [str(point.at), *shown, more, f"{row.tokens_generated:.0f}", f"{row.seconds:.2f}", str(row.results)]
        )
    kind = "oracle" if is_choice else "gate right"
    return grid([what, *m.columns, *several, kind, "tokens", "seconds", "questions"], body)


def _ablations(m: Measured) -> list[str]:
    others = [entry for entry in m.of("draft") if entry.model not in PHASES]
    if not others:
        return []
    ours = draft_of(m)
    body = []
    for label, results in ((ours, m.named(ours)), *((entry.label, m.found[entry]) for entry in others)):
        if results:
            row = row_of(results)
            shown = [percent(row.accuracy.get(column)) for column in m.columns]
            body.append([label, *shown, percent(row.well_formed), f"{row.tokens_generated:.0f}"])
    said = f"Models that were trained otherwise, one draft each, beside {ours}."
    return ["## Ablations", said, grid(["row", *m.columns, "well-formed", "tokens"], body)]


def _seeds(m: Measured) -> list[str]:
    found = by_seed(m)
    if not found or len(m.how.seeds) < 2:
        return []
    seeds = m.how.seeds
    body = [[s.label, *(percent(s.by_seed[n]) for n in seeds), percent(s.split), str(s.questions)] for s in found]
    said = "The same questions with each seed, one draft; split are those that one seed gets right and another wrong."
    return ["## Seeds", said, grid(["row", *(f"seed {n}" for n in seeds), "split", "questions"], body)]


def _paired(found: Sequence[Comparison]) -> str:
    body = [_line(one.name, pair) for one in found for pair in one.compared]
    head = [
        "second against first",
        "column",
        "first",
        "second",
        "difference",
        "better",
        "worse",
        "questions",
        "p",
        "intervals",
    ]
    return grid(head, body)


def _line(name: str, pair: Compared) -> list[str]:
    test = pair.paired
    counts = [str(test.better), str(test.worse), str(pair.questions), f"{test.p:.2g}"]
    apart = "apart" if pair.is_separate() or pair.is_reversed() else "overlap"
    return [name, pair.column, percent(pair.first), percent(pair.second), points(test.difference), *counts, apart]


def _picture(figures: Mapping[str, str], name: str, about: str) -> str:
    return f"![{about}]({figures[name]})" if name in figures else ""
