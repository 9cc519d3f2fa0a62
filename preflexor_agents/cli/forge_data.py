"""`preflexor forge show`, `stats`, `export` and `import`: the rows of preference data, looked at and passed on."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.errors import StoreFileError

if TYPE_CHECKING:
    from preflexor_agents.store import Store
    from preflexor_training.forge.records import Row
    from preflexor_training.forge.stats import Stats
    from preflexor_training.pairs import Pair, Problem

STATES = ("kept", "dropped", "failed")
FORMS = ("trl", "trl-chat", "alpaca", "sharegpt", "parquet", "datasets")
_MOST_REASONS = 5
_PIPED_WIDTH = 200
"""Columns of a listing that no terminal shows."""
_place = click.argument("place", type=click.Path(path_type=Path), metavar="FOLDER|FILE")


@click.command(name="show", short_help="Look at the rows of a run, or of any preference file.")
@_place
@click.option("--row", "number", type=click.IntRange(0), metavar="N", help="Show one row in full, by its number.")
@click.option("--state", type=click.Choice(STATES), help="List only these rows.")
@click.option("--diff", is_flag=True, help="Mark word by word what is in one answer only.")
@click.option(
    "--store",
    metavar="PATH",
    help="Store with the documents, for the words of the context; bundled is that of the bundled notes. "
    "Default: your own, else the bundled one.",
)
@json_option
def show_command(
    *, place: Path, number: int | None, state: str | None, diff: bool, store: str | None, as_json: bool
) -> None:
    """List the rows of a run's folder or of a preference file, or show one of them in full.

    A row in full has its chosen and rejected answer side by side, its context with the quotes highlighted that the
    chosen answer stands on, its scores, and every call that went into it.
    """
    from rich.console import Console

    from preflexor_training.forge import browsing

    console = Console(highlight=False)
    if number is None:
        rows = (row for row in browsing.rows_of(place) if state in (None, row.state))
        _list(rows, console, place=place, diff=diff, as_json=as_json)
        return
    row = browsing.row_at(place, number)
    context: tuple[browsing.Shown, ...] = ()
    if row.context or store is not None:
        with _store(store) as opened:
            context = browsing.context_of(row, opened) if opened is not None else ()
    if as_json:
        from preflexor_agents.word_diff import word_diff
        from preflexor_training.forge.records import to_json

        found: dict[str, Any] = {"row": to_json(row)}
        found["context"] = [{**asdict(s.span), "words": [w._asdict() for w in s.words]} for s in context]
        if diff:
            found["diff"] = [piece._asdict() for piece in word_diff(row.rejected.answer, row.chosen.answer)]
        _print_json(found)
        return
    from preflexor_agents.cli.forge_view import drawn

    console.print(drawn(row, context, console, diff=diff))


@click.command(name="stats", short_help="Say what the rows come to in numbers, and plot them.")
@_place
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What counts tokens: a model's folder or a GGUF file. Default: an estimate from the number of bytes.",
)
@click.option(
    "--max-length", type=click.IntRange(1), metavar="N", help="The trainer's limit, in tokens. Default: the run's own."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FOLDER", help="Draw pictures into it, as SVG and PNG."
)
@json_option
def stats_command(
    *, place: Path, tokenizer: Path | None, max_length: int | None, plot: Path | None, as_json: bool
) -> None:
    """Count lengths, categories, margins, accepted samples, what fell away and why, near duplicates, rows too long."""
    from preflexor_training.forge import browsing, lengths
    from preflexor_training.forge.stats import collect

    limit = max_length or _limit_of(place)
    with lengths.measure(tokenizer) as measure:
        found = collect(browsing.rows_of(place), measure, max_length_tok=limit)
    pictures: tuple[Path, ...] = ()
    if plot is not None:
        from preflexor_training.forge.plots import draw

        pictures = draw(found, plot)
    if as_json:
        _print_json({**found.to_json(), "pictures": [str(path) for path in pictures]})
        return
    for line in _told(found):
        click.echo(line)
    for path in pictures:
        click.echo(f"picture              {path}")


@click.command(name="export", short_help="Write the pairs for another trainer.")
@_place
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="trl and trl-chat: JSON lines; alpaca and sharegpt: a JSON array; parquet: a file; datasets: a folder. "
    "Default: parquet if OUT is called so, else trl-chat.",
)
@json_option
def export_command(*, place: Path, out: Path, form: str | None, as_json: bool) -> None:
    """Write the pairs of a run, or of any preference file, to OUT in the shape that another trainer reads.

    Only rows that were kept are pairs. Sections stand between <|thinking|> and <|reflect|> tags.
    """
    from preflexor_training.forge import exporting

    form = form or ("parquet" if out.suffix == ".parquet" else "trl-chat")
    problems: list[Problem] = []
    done = exporting.export(_pairs(place, problems), out, form=form)  # type: ignore[arg-type]
    if as_json:
        _print_json({"out": str(out), "format": form, **asdict(done), "left_out": [asdict(p) for p in problems]})
        return
    _complain([p.reason for p in problems])
    if done.spelt:
        click.echo(
            f"{done.spelt} rows spell tags in their texts; these were broken up, so that they stay text", err=True
        )
    click.echo(f"{done.rows} pairs written to {_inert(out)} as {form}")


@click.command(name="import", short_help="Turn a preference file of others into rows of this program.")
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def import_command(*, source: Path, folder: Path, as_json: bool) -> None:
    """Read preferences from FILE into a new FOLDER, with a log of all rows and a data card.

    FILE may be JSON lines, a JSON array or Parquet, or a folder of the datasets library, in the shape of TRL, Alpaca,
    ShareGPT, LLaMA-Factory or OpenAI. Labelled single answers are paired where a prompt has a good and a bad one.
    Questions with one answer go into questions.jsonl, for: preflexor forge run --questions.
    """
    from datetime import date

    from preflexor_training.forge.card import write_card
    from preflexor_training.forge.importing import QUESTIONS, import_pairs

    found = import_pairs(source, folder)
    if found.pairs:
        write_card(folder, date=date.today().isoformat())
    if as_json:
        _print_json({"folder": str(folder), **asdict(found)})
        return
    _complain(list(found.refused.elements()))
    click.echo(f"{found.pairs} pairs imported into {_inert(folder)}")
    if found.questions:
        click.echo(f"{found.questions} questions with one answer each in {_inert(folder / QUESTIONS)}")


def _list(rows: "Iterator[Row]", console: Any, *, place: Path, diff: bool, as_json: bool) -> None:
    if as_json:
        from preflexor_training.forge.records import to_json

        _print_json({"source": str(place), "rows": [to_json(row) for row in rows]})
        return
    from preflexor_agents.cli.forge_view import compared, listed

    count = 0
    for row in rows:
        count += 1
        console.print(listed(row, console.width if console.is_terminal else _PIPED_WIDTH), soft_wrap=True)
        if diff and row.state == "kept":
            console.print(compared(row, console))
    if not count:
        click.echo("no such rows", err=True)


def _told(found: "Stats") -> Iterator[str]:
    """The numbers, a line each."""
    from preflexor_training.forge.stats import spread

    yield f"{'rows':<20} {found.rows}: " + _counts(found.states)
    for (state, kind), count in found.reasons.most_common():
        yield f"{state:<20} {count} {_inert(kind)}"
    if found.rejected_kinds:
        yield f"{'rejected side':<20} {_counts(found.rejected_kinds)}"
    if found.lengths:
        yield f"{'tokens':<20} {_inert(found.measured)}"
        for name in ("prompt", "thinking", "chosen", "rejected", "row"):
            least, middle, high, most = spread(getattr(one, name) for one in found.lengths)
            yield f"  {name:<18} {least:g} to {most:g}, median {middle:g}, 95 % up to {high:g}"
        share = f"{found.too_long} of {len(found.lengths)} ({found.too_long / len(found.lengths):.0%})"
        yield f"{'too long':<20} {share} over {found.max_length_tok} tokens"
    for name, count in found.categories.most_common():
        yield f"{'category':<20} {_inert(name)}: filled in {count}"
    if found.samples:
        accepted = f"{found.accepted} accepted ({found.acceptance:.0%})"
        yield f"{'samples':<20} {found.samples}: {accepted}, {_counts(found.faults)}"
    if found.margins:
        least, middle, _, most = spread(found.margins)
        yield f"{'margin':<20} {least:g} to {most:g}, median {middle:g}"
    if found.claims:
        yield f"{'sentences':<20} {found.claims} in chosen answers, {found.unsupported} that no passage bears out"
    yield f"{'near duplicates':<20} {len(found.near_duplicates)}"
    for number, reason in found.near_duplicates[:_MOST_REASONS]:
        yield f"  row {number:<14} {_inert(reason)}"
    calls = sum(cost.calls for cost in found.costs.values())
    if calls:
        written = sum(cost.tokens_generated for cost in found.costs.values())
        yield f"{'calls':<20} {calls}, {written} tokens written"
    if found.sources:
        yield f"{'documents':<20} {len(found.sources)}"


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {_inert(name)}" for name, count in counts.most_common()) or "nothing else"


def _pairs(place: Path, problems: "list[Problem]") -> "Iterator[Pair | Row]":
    """What there is to export; rows that are no pairs are put aside."""
    from preflexor_training.forge import browsing
    from preflexor_training.forge.records import read_rows
    from preflexor_training.pairs import Problem, read_pairs

    if browsing.is_log(place):
        yield from (row for row in read_rows(place) if row.state == "kept")
        return
    for item in read_pairs(place):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            yield item


def _complain(reasons: list[str]) -> None:
    """Say on standard error how many rows were left out, and why."""
    from collections import Counter

    if reasons:
        click.echo(f"{len(reasons)} rows are no pairs and were left out:", err=True)
    counts = Counter(reasons).most_common()
    for reason, count in counts[:_MOST_REASONS]:
        click.echo(f"  {count}: {_inert(reason)}", err=True)
    if len(counts) > _MOST_REASONS:
        click.echo(f"  and {len(counts) - _MOST_REASONS} other reasons (--json has all)", err=True)


@contextmanager
def _store(name: str | None) -> "Iterator[Store | None]":
    """The store that was named, which must be there; else the user's own, or the bundled one, or none."""
    from preflexor_agents.settings import default_store
    from preflexor_agents.store import open_named

    place = name if name is not None else default_store() if default_store().exists() else "bundled"
    try:
        store = open_named(place)
    except StoreFileError:
        if name is not None:
            raise
        yield None
        return
    with store:
        yield store


def _limit_of(place: Path) -> int:
    """The limit that the run was made with; of other files the default."""
    from preflexor_training.forge.folder import SETTINGS, read_settings
    from preflexor_training.forge.settings import ForgeSettings

    settings = place / SETTINGS
    default: int = ForgeSettings().max_length_tok
    return read_settings(settings).max_length_tok if settings.is_file() else default


def _inert(value: object) -> str:
    from preflexor_agents.cli.show import inert
    from preflexor_agents.prompts import one_line

    return one_line(inert(str(value)))


def _print_json(data: object) -> None:
    json.dump(data, sys.stdout, ensure_ascii=False, indent=2)
    click.echo()
