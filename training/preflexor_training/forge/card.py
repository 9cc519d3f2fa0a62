"""The data card of a run, in Markdown: what is in its rows, by which models, from which documents.

It says nothing that differs from one making of the same rows to the next, but for the date that it is given.
"""

import platform
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from preflexor_agents import __version__
from preflexor_agents.errors import ForgeError
from preflexor_agents.preference_rows import LOG
from preflexor_agents.prompts import one_line
from preflexor_training.forge import lengths, stats
from preflexor_training.forge.records import SCHEMA, read_rows
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.stats import Spread, Stats

CARD = "card.md"
HEAD = "---\nlicense: unknown\ntask_categories: [text-generation]\ntags: [preference, reasoning, synthetic]\n---"
"""What the model hubs read of a card."""
_MAX_LENGTH_TOK = int(ForgeSettings.model_fields["max_length_tok"].default)


def write_card(folder: Path, *, date: str = "") -> Path:
    """Write `card.md` into a run's folder from what is there; returns its path.

    Args:
        folder: with the log, and with `settings.toml` and `run.toml` if a run made it.
        date: is put into the card as it is; none if empty.

    Raises:
        InputError: there is no log, or it is damaged.
        ForgeError: the card cannot be written.
    """
    settings, origin = (_toml(folder / name) for name in ("settings.toml", "run.toml"))
    limit = settings.get("max_length_tok", _MAX_LENGTH_TOK)
    with lengths.measure(None) as measure:
        found = stats.collect(read_rows(folder), measure, max_length_tok=int(limit))
    path = folder / CARD
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(card(found, settings=settings, origin=origin, date=date), encoding="utf-8")
        partial.replace(path)
    except OSError as e:
        raise ForgeError(f"{path} cannot be written: {e.strerror}; make room or name a writable folder") from None
    return path


def card(found: Stats, *, settings: Mapping[str, Any], origin: Mapping[str, Any], date: str = "") -> str:
    """The text of the card.

    Args:
        found: the numbers of the rows.
        settings: of the run; empty for rows that were imported.
        origin: what else decided them, likewise.
        date: as in `write_card`.
    """
    sections = {
        "Rows": (
            _table(("State", "Kind", "Rows"), _states(found)),
            _table(("Variant", "Phase", "Pack", "Rows"), _shapes(found)),
        ),
        "Chosen and rejected": (
            "\n".join(_sides(found)),
            _table(("Tokens", "least", "median", "95 %", "most"), _lengths(found)),
            _table(("Category", "Rows with it"), sorted(found.categories.items())),
        ),
        "Models": (
            _table(("Part", "Model", "Adapter (SHA-256)", "Calls"), _models(found)),
            _table(("Step", "Calls", "Failed", "Tokens written"), _costs(found)),
        ),
        "Sources": (
            "The licences of the documents are not known to this program. Look before you pass the rows on.",
            _table(("Document", "Title", "Licence", "Rows"), _sources(found)),
        ),
        "Settings": (_table(("Setting", "Value"), _flat({**settings, **origin})),),
    }
    told = [HEAD, "# Preference data", "\n".join(_about(found, settings, date))]
    for name, parts in sections.items():
        said = [part for part in parts if part]
        told += [f"## {name}", *said] if said else []
    return "\n\n".join(told) + "\n"


def _about(found: Stats, settings: Mapping[str, Any], date: str) -> Iterator[str]:
    kept = found.states["kept"]
    yield f"- {found.rows} rows, {kept} of them pairs; refreshes {_numbers(found.rounds)}."
    if settings:
        yield f"- Seed {settings.get('seed')}; the same seed, models and documents make the same rows."
    yield f"- Made by preflexor-agents {__version__}, schema {SCHEMA}, Python {platform.python_version()}."
    if date:
        yield f"- Date: {_cell(date)}"
    if found.near_duplicates:
        yield f"- {len(found.near_duplicates)} pairs ask nearly what another asks."
    if found.too_long:
        yield f"- {found.too_long} pairs are longer than {found.max_length_tok} tokens ({found.measured})."
    yield f"- The rows are in `{LOG}`, one JSON object a line, those that were not kept with the reason."


def _states(found: Stats) -> Iterator[tuple[object, ...]]:
    if found.states["kept"]:
        yield "kept", "", found.states["kept"]
    for (state, kind), count in _sorted(found.reasons):
        yield state, kind, count


def _shapes(found: Stats) -> Iterator[tuple[object, ...]]:
    for (variant, phase, pack), count in _sorted(found.shapes):
        yield (variant, phase, pack, count) if pack else ("imported", "", "", count)


def _models(found: Stats) -> Iterator[tuple[object, ...]]:
    for maker, count in _sorted(found.makers):
        yield maker.who, maker.model, maker.adapter_sha256[:16] or "none", count


def _costs(found: Stats) -> Iterator[tuple[object, ...]]:
    for step, cost in sorted(found.costs.items()):
        yield step, cost.calls, cost.failed, cost.tokens_generated


def _sources(found: Stats) -> Iterator[tuple[object, ...]]:
    for source, (title, count) in sorted(found.sources.items()):
        yield source, title, "unknown", count


def _sides(found: Stats) -> Iterator[str]:
    for kind, count in _sorted(found.rejected_kinds):
        yield f"- Rejected side: `{kind}`, {count} rows."
    if found.samples:
        each = "".join(f", {count} {fault}" for fault, count in _sorted(found.faults))
        yield f"- {found.samples} samples, {found.accepted} accepted ({found.acceptance:.0%}){each}."
    if found.margins:
        least, middle, _, most = stats.spread(found.margins)
        yield f"- Margin of the chosen answer: {least:g} to {most:g}, median {middle:g}, on a scale from 0 to 1."
    if found.claims:
        yield f"- {found.claims} sentences in chosen answers, {found.unsupported} without a quote that bears them out."


def _lengths(found: Stats) -> Iterator[tuple[object, ...]]:
    if found.lengths:
        for name in ("prompt", "thinking", "chosen", "rejected", "row"):
            numbers: Spread = stats.spread(getattr(length, name) for length in found.lengths)
            yield (name, *(f"{number:g}" for number in numbers))
        yield (found.measured, "", "", "", "")


def _table(names: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join((f"| {' | '.join(names)} |", "|" + " --- |" * len(names), *lines)) if lines else ""


def _cell(value: object) -> str:
    """One line that can neither end a cell nor begin markup or a link, nor steer a terminal."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in one_line(str(value)))
    return "".join(f"\\{c}" if c in "\\|`*_[]<>#" else c for c in text)


def _flat(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield place + key, value


def _sorted(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Most first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _numbers(found: set[int]) -> str:
    return ", ".join(map(str, sorted(found))) or "none"


def _toml(path: Path) -> dict[str, Any]:
    """What a file of the run says; nothing if there is none, as in a folder of imported rows."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise ForgeError(f"{path} cannot be read: {' '.join(str(e).split())[:120]}; restore it") from None
