"""What the tests of the screens beside the chat share: a home of their own, files to show, an app on a screen."""

import json
import math
from pathlib import Path

import pytest
from textual.pilot import Pilot

from preflexor_agents.store import Store
from preflexor_tui import pages
from preflexor_tui.app import PreflexorApp
from preflexor_tui.screens.page import Page
from tests.tui import chatting

NOTES = {
    "nacre.md": "# Nacre\n\nNacre lines shells.\n\n## Properties\n\nThe toughness of nacre is 4.5 MPa m^0.5.\n",
    "gecko.md": "# Gecko setae\n\nGecko setae hold by van der Waals forces.\n",
    "silk.md": "# Spider silk\n\nDragline silk stretches by 27% before it breaks.\n",
}
ROWS = [
    {
        "prompt": "How does a gecko stick to a wall?",
        "chosen": "By van der Waals forces between millions of setae and the wall.",
        "rejected": "By suction between its toes and the wall, like a cup.",
        "context": "Gecko setae hold by van der Waals forces.",
        "score": {"chosen": 0.92, "rejected": 0.11},
        "model": "nano",
    },
    {"prompt": "Second?", "chosen": "yes", "rejected": "no"},
    {"broken": True},
]


def at_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A home folder that is empty, as the working directory."""
    home = folder / "home"
    home.mkdir()
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.chdir(home)
    return home


def write_notes(folder: Path) -> Path:
    """A folder with three notes."""
    folder.mkdir(exist_ok=True)
    for name, text in NOTES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def fill_store(home: Path) -> Path:
    """The user's own store, with the notes."""
    path = home / ".local" / "share" / "preflexor" / "store.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(path) as store:
        store.ingest([write_notes(home / "notes")])
    return path


def write_rows(home: Path) -> Path:
    """A file of preference rows, the last of them broken."""
    file = home / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    return file


def write_run(home: Path, name: str = "orpo-1", *, steps: int = 300) -> Path:
    """A training run of two rounds."""
    folder = home / ".local" / "share" / "preflexor" / "runs" / name
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(metrics(step)) + "\n")
    samples = [
        {"round": r, "step": 150 * r, "prompt": "Why is nacre tough?", "text": f"Tablets slide. ({r})"} for r in (1, 2)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples), encoding="utf-8")
    (folder / "config.toml").write_text('base = "nano"\nmethod = "orpo"\nlr = 1e-4\n', encoding="utf-8")
    return folder


def metrics(step: int) -> dict[str, float]:
    """A line of a run that goes well."""
    wave = math.sin(step * 1.7) * math.cos(step * 0.37)
    return {
        "step": step,
        "round": 1 + step // 151,
        "t_s": step * 1.5,
        "loss": round(0.4 + 2.4 * math.exp(-step / 90) + 0.05 * wave, 4),
        "margin": round(0.9 * (1 - math.exp(-step / 120)) + 0.03 * wave, 4),
        "accuracy": round(min(1.0, 0.5 + 0.45 * (1 - math.exp(-step / 80)) + 0.02 * wave), 4),
        "masked_fraction": round(0.3 + 0.01 * wave, 4),
        "tokens_per_s": round(900 + 40 * wave, 1),
        "lr": 1e-4 * (1 - step / 400),
    }


async def open_page(pilot: Pilot[None], name: str, path: Path | None = None) -> Page:
    """Show a screen, and wait until it has looked at what it shows."""
    app = pilot.app
    assert isinstance(app, PreflexorApp)
    await chatting.over(pilot)
    pages.show(app, name, path)
    await settled(pilot)
    page = app.screen
    assert isinstance(page, Page)
    return page


async def settled(pilot: Pilot[None]) -> None:
    """Wait until no work of the screen is going on."""
    await pilot.pause()
    await chatting.until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))
