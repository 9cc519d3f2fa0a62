"""Pairs in the shapes that other trainers read; each can be read back by `pairs.read_pairs`.

trl             JSON lines: prompt, chosen, rejected as texts
trl-chat        JSON lines: the same as lists of messages
alpaca          one JSON array: instruction, input, system, history, chosen, rejected
sharegpt        one JSON array: conversations, chosen, rejected
parquet         a file of the messages, with where each row comes from and its whole record
datasets        the same as a folder for `datasets.load_from_disk`

Sections stand in the texts between the published tags. Tags that a text only spells are broken visibly, as every reader
of these shapes would take them for sections.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from preflexor_agents.errors import ForgeError, InputError
from preflexor_agents.markup import TAGS, neutralise
from preflexor_agents.preference_turns import UNPAIRED
from preflexor_agents.prompts import Message
from preflexor_training import tables
from preflexor_training.forge.records import Row, to_line
from preflexor_training.pairs import Pair, Reply

Form = Literal["trl", "trl-chat", "alpaca", "sharegpt", "parquet", "datasets"]
FORMS: tuple[Form, ...] = get_args(Form)
Item = Pair | Row
"""A pair, or the kept row that it comes from."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    spelt: int
    """Rows with texts in which tags were broken up."""


def export(items: Iterable[Item], out: Path, *, form: Form) -> Exported:
    """Write pairs to a file, or to a folder for `datasets`; it has its name only once it is whole.

    Raises:
        InputError: there is something of that name, there are no pairs, a row has turns that the shape cannot hold, or
            a library is missing.
        ForgeError: it cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another place or remove it")
    if form in ("parquet", "datasets"):
        tables.arrow(f"writing {form}")
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        exported = _write(items, partial, form)
        partial.replace(out)
    except OSError as e:
        raise ForgeError(f"{out} cannot be written: {e.strerror or e}; name a writable place with room") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    return exported


def written(reply: Reply) -> str:
    """The reply as one text, its sections between tags."""
    parts = (("thinking", reply.thinking), ("reflect", reply.reflection))
    tagged = [f"<|{tag}|>\n{plain(text)}\n<|/{tag}|>" for tag, text in parts if text is not None]
    return "\n".join((*tagged, plain(reply.answer)))


def plain(text: str) -> str:
    """The text with tags broken up that it only spells, and half characters replaced, which no file can hold."""
    return UNPAIRED.sub("\ufffd", neutralise(text, TAGS))


def _write(items: Iterable[Item], partial: Path, form: Form) -> Exported:
    spelt = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal spelt
        for item in items:
            pair = item if isinstance(item, Pair) else item.pair()
            spelt += any(tag in text for text in _texts(pair) for tag in TAGS)
            yield _SHAPES[form](pair) if form in _SHAPES else _record(pair, item)

    match form:
        case "trl" | "trl-chat":
            with partial.open("w", encoding="utf-8") as file:
                count = _lines(file, rows())
        case "alpaca" | "sharegpt":
            with partial.open("w", encoding="utf-8") as file:
                count = _array(file, rows())
        case "parquet" | "datasets":
            table = _table(list(rows()))
            count = table.num_rows
            (tables.write_parquet if form == "parquet" else tables.write_folder)(table, partial)
    if not count:
        raise InputError("there are no pairs to write; no row was kept")
    return Exported(count, spelt)


def _lines(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> int:
    return sum(bool(file.write(json.dumps(row, ensure_ascii=False) + "\n")) for row in rows)


def _array(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for count, row in enumerate(rows, 1):
        file.write(("[\n" if count == 1 else ",\n") + json.dumps(row, ensure_ascii=False, indent=2))
    file.write("\n]\n")
    return count


def _texts(pair: Pair) -> Iterator[str]:
    for reply in (pair.chosen, pair.rejected):
        yield from (text for text in (reply.thinking, reply.reflection, reply.answer) if text)


def _trl(pair: Pair) -> dict[str, Any]:
    if len(pair.prompt) > 1:
        raise InputError(f"row {pair.id} has {len(pair.prompt)} turns, and this shape one text; use --format trl-chat")
    return {
        "id": plain(pair.id),
        "round": pair.round,
        "prompt": _said(pair.prompt[0]),
        "chosen": written(pair.chosen),
        "rejected": written(pair.rejected),
    }


def _chat(pair: Pair) -> dict[str, Any]:
    return {
        "id": plain(pair.id),
        "round": pair.round,
        "prompt": [{"role": m.role, "content": _said(m)} for m in pair.prompt],
        "chosen": [{"role": "assistant", "content": written(pair.chosen)}],
        "rejected": [{"role": "assistant", "content": written(pair.rejected)}],
    }


def _alpaca(pair: Pair) -> dict[str, Any]:
    system, *turns = pair.prompt if pair.prompt[0].role == "system" else (Message("system", ""), *pair.prompt)
    if [m.role for m in turns] != ["user" if n % 2 == 0 else "assistant" for n in range(len(turns))]:
        raise InputError(
            f"row {pair.id} has turns that do not alternate, which this shape needs; use --format trl-chat"
        )
    return {
        "id": plain(pair.id),
        "round": pair.round,
        "instruction": _said(turns[-1]),
        "input": "",
        "system": _said(system),
        "history": [[_said(a), _said(b)] for a, b in zip(turns[:-1:2], turns[1:-1:2], strict=True)],
        "chosen": written(pair.chosen),
        "rejected": written(pair.rejected),
    }


def _sharegpt(pair: Pair) -> dict[str, Any]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {
        "id": plain(pair.id),
        "round": pair.round,
        "conversations": [{"from": names[m.role], "value": _said(m)} for m in pair.prompt],
        "chosen": {"from": "gpt", "value": written(pair.chosen)},
        "rejected": {"from": "gpt", "value": written(pair.rejected)},
    }


_SHAPES = {"trl": _trl, "trl-chat": _chat, "alpaca": _alpaca, "sharegpt": _sharegpt}


def _said(message: Message) -> str:
    """A turn's words; tags in it stay as they are: a question may ask for thinking by naming its tag."""
    return UNPAIRED.sub("\ufffd", message.content)


def _record(pair: Pair, item: Item) -> dict[str, Any]:
    row = item if isinstance(item, Row) else None
    context = row.context if row else ()
    return {
        **_chat(pair),
        "question": plain(row.question) if row else "",
        "variant": row.variant if row else "",
        "phase": row.phase if row else None,
        "pack": plain(row.pack) if row else "",
        "rejected_kind": (row.rejected_kind or "") if row else "",
        "chunk_ids": [span.chunk_id for span in context],
        "sources": [plain(span.source) for span in context],
        "margin": row.scores.get("margin") if row else None,
        "record": to_line(row).strip() if row else "",
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    pa = tables.arrow("writing")
    text = pa.string()
    turns = pa.list_(pa.struct([("role", text), ("content", text)]))
    names = ("question", "variant", "pack", "rejected_kind", "record")
    schema = pa.schema(
        [
            *(("id", text), ("round", pa.int64()), ("prompt", turns), ("chosen", turns), ("rejected", turns)),
            *((name, text) for name in names),
            *(("phase", pa.int64()), ("chunk_ids", pa.list_(pa.int64())), ("sources", pa.list_(text))),
            ("margin", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(list(rows), schema=schema)
