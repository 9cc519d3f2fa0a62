"""A GGUF file with all that others need to run it, as one folder: Modelfile, model card, checksums, commands."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.backends.gguf_header import GgufHeader, read_header
from preflexor_quantize.files import Watch, Written, check_room, gigabytes
from preflexor_quantize.folder import file_name
from preflexor_quantize.modelfile import Modelfile
from preflexor_quantize.whole_folder import whole_folder

PIECE_BYTES = 1 << 20
SUMS = "SHA256SUMS"
_MEASURES = ("mean_kl", "p99_kl", "top1", "perplexity")


def bundle(source: Path, folder: Path, file: Modelfile, *, watch: Watch) -> tuple[str, ...]:
    """Write the folder whole or not at all; return the names of its files.

    The GGUF file is a hard link where the disk allows one, else a copy. The report of `preflexor quantize` that lies
    beside it goes with it.

    Raises:
        InputError: there is something at `folder`, or nothing can be made there.
        PreflexorError: the disk has no room.
    """
    with whole_folder(folder) as work:
        _fill(work, source, folder.name, file, watch)
        return tuple(sorted(f.name for f in work.iterdir()))


def _fill(work: Path, source: Path, name: str, file: Modelfile, watch: Watch) -> None:
    model = work / f"{file_name(source.with_suffix(''))}.gguf"
    _link_or_copy(source, model, watch)
    report = _report(source)
    for part in report.files:
        shutil.copyfile(source.parent / part, work / part)
    (work / "Modelfile").write_text(file.text(f"./{model.name}"), encoding="utf-8")
    head = read_header(source)
    sums = {n: _sha256(work / n, watch) for n in (model.name, "Modelfile", *report.files)}
    card = _card(name, model, head, file, sha256=sums[model.name], report=report)
    (work / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    (work / "README.md").write_text(_commands(name, model.name, head, file), encoding="utf-8")
    sums |= {n: _sha256(work / n, watch) for n in ("MODEL_CARD.md", "README.md")}
    lines = [f"{sums[n]}  {n}\n" for n in sorted(sums)]
    (work / SUMS).write_text("".join(lines), encoding="utf-8")


class _Report(NamedTuple):
    """What `preflexor quantize` found out about a file."""

    files: tuple[str, ...] = ()
    measured: str = ""


def _report(source: Path) -> _Report:
    """The report beside a file that names it; nothing if there is none."""
    for place in sorted(source.parent.glob("*-report.json")):
        try:
            made = [m for m in json.loads(place.read_text(encoding="utf-8"))["files"] if m["file"] == source.name]
            found = [f"{key} {made[0]['fidelity'][key]:.3g}" for key in _MEASURES] if made else []
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if made:
            there = [place.with_suffix(suffix) for suffix in (".json", ".md", ".svg")]
            return _Report(tuple(f.name for f in there if f.is_file()), ", ".join(found))
    return _Report()


def _link_or_copy(source: Path, out: Path, watch: Watch) -> None:
    try:
        os.link(source.resolve(), out)
    except OSError:
        check_room(out.parent, source.stat().st_size)
        with out.open("wb") as copy:
            for piece in _pieces(source, "copying", watch):
                copy.write(piece)


def _sha256(path: Path, watch: Watch) -> str:
    found = hashlib.sha256()
    for piece in _pieces(path, f"checksum of {path.name}", watch):
        found.update(piece)
    return found.hexdigest()


def _pieces(path: Path, what: str, watch: Watch) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            watch(Written(what, done, total))


def _card(name: str, model: Path, head: GgufHeader, file: Modelfile, *, sha256: str, report: _Report) -> str:
    rows = {
        "Name": head.name or name,
        "Architecture": head.architecture,
        "Size": head.values.get("general.size_label", ""),
        "Numbers": head.level,
        "File": f"`{model.name}`, {gigabytes(model.stat().st_size)}, sha256 `{sha256}`",
        "Trained context": f"{head.context_tok} tokens" if head.context_tok else "",
        "Vocabulary": str(head.values.get(f"{head.architecture}.vocab_size", "")),
        "Base model": head.values.get("general.base_model.0.name", ""),
        "Licence": head.values.get("general.license", ""),
        "Author": head.values.get("general.author", ""),
        "Reasoning tags": ", ".join(f"`{tag}`" for tag in head.tags) or "none",
        "End of a turn": ", ".join(f"`{stop}`" for stop in file.stops),
        "Against its F16 original": report.measured,
        "Report": ", ".join(f"[{n}]({n})" for n in report.files) or "none of preflexor quantize lies beside the file",
    }
    lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value]
    notes = [f"- {note}\n" for note in file.notes]
    table = "\n".join(["| | |", "| --- | --- |", *lines])
    return f"# {_cell(head.name or name)}\n\n{table}\n" + ("\n" + "".join(notes) if notes else "")


def _cell(value: object) -> str:
    """Text from a file, as one cell of a table."""
    return "".join(c if c.isprintable() else " " for c in str(value)).replace("|", "\\|")[:400]


def _commands(name: str, model: str, head: GgufHeader, file: Modelfile) -> str:
    served = "".join(c if c.isalnum() or c in "-_." else "-" for c in name.lower()).strip("-.") or "model"
    opening, closing = (mark.strip() for mark in file.marks) if file.marks else ("", "")
    apart = (
        f"\nThe model thinks between `{opening}` and `{closing}`. Ollama shows that apart, by the Modelfile. In LM"
        " Studio set these two as the reasoning section of the model.\n"
        if file.marks
        else ""
    )
    return f"""# {_cell(head.name or name)}

In this folder, one line each:

| with | type |
| --- | --- |
| Ollama | `ollama create {served} -f Modelfile && ollama run {served}` |
| llama-server | `llama-server -m {model} -c {file.context_tok} --jinja` |
| LM Studio | `lms import {model} && lms load {Path(model).stem}` |
| preflexor | `preflexor ask "Why is nacre tough?" --model gguf:{model}` |

`sha256sum -c {SUMS}` tells whether the files are whole. What the model is: [MODEL_CARD.md](MODEL_CARD.md).
{apart}"""
