"""Hands files to the user: into a folder of this machine, or, where the page is seen in a browser, as a download."""

import io
import re
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import platformdirs
from textual.app import App

from preflexor_agents.errors import InputError
from preflexor_agents.events import RunStarted, Timed
from preflexor_tui.writing import write_run

FORMATS = {".md": "Markdown", ".html": "one HTML page", ".json": "JSON", ".jsonl": "trace"}
"""Forms of a run, by the end of the file's name."""
_MIME = {".md": "text/markdown", ".html": "text/html", ".json": "application/json", ".jsonl": "application/jsonl"}


def hand_over_run(app: App[None], path: Path, events: Sequence[Timed]) -> None:
    """Write a run in the form that the name asks for, and say where it is; in a browser only the name counts.

    Raises:
        InputError: the file exists, cannot be written, or its name ends with nothing that is known.
    """
    if not app.is_web:
        write_run(path, events)
        app.notify(f"written to {path}", markup=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        write_run(file, events)
        text = file.read_text(encoding="utf-8")
    app.deliver_text(io.StringIO(text), save_filename=path.name, mime_type=_MIME[path.suffix])


def hand_over_picture(app: App[None]) -> None:
    """Write what the screen shows as an SVG that names no other address. Raises InputError if it cannot be written."""
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", app.export_screenshot())
    name = f"preflexor-{datetime.now():%Y%m%d-%H%M%S}.svg"
    if app.is_web:
        app.deliver_text(io.StringIO(svg), save_filename=name, mime_type="image/svg+xml")
        return
    path = free_path(default_folder() / name)
    try:
        path.write_text(svg, encoding="utf-8")
    except OSError as e:
        raise InputError(f"can not write {path}: {e.strerror}; name a writable place") from None
    app.notify(f"written to {path}", markup=False)


def named_after(events: Sequence[Timed], suffix: str) -> Path:
    """A free file name in the default folder, made of the question's first words."""
    question = next((e.question for _, e in events if isinstance(e, RunStarted)), "")
    words = re.findall(r"[^\W_]+", question.lower())[:6]
    return free_path(default_folder() / f"{'-'.join(words)[:60] or 'run'}{suffix}")


def default_folder() -> Path:
    """The user's folder for downloads if there is one, else the working directory."""
    downloads = platformdirs.user_downloads_path()
    return downloads if downloads.is_dir() else Path.cwd()


def free_path(path: Path) -> Path:
    """The path, or with a number behind its name the first that is not taken."""
    number = 2
    free = path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free
