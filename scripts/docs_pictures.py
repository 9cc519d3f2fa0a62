"""Takes the pictures of docs/tutorials/terminal.md: `python scripts/docs_pictures.py`. Runs of nano, driven by keys.

They are Textual's own screenshots, without the fonts that it would load from elsewhere.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textual.pilot import Pilot

from preflexor_agents.settings import Settings
from preflexor_tui.app import PreflexorApp
from preflexor_tui.cli import Opening, make_app

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
SIZE = (112, 34)
QUESTION = "Why is nacre tough?"


async def take() -> None:
    """All of them, one after the other."""
    settings = Settings(model="nano", rounds=2, candidates=3)
    app = make_app(Opening(settings=settings))
    async with app.run_test(size=SIZE) as pilot:
        await _idle(pilot, app)
        await _say(pilot, app, QUESTION)
        _keep(app, "terminal-answer")
        await pilot.press("ctrl+o", "up", "enter")
        await pilot.pause()
        _keep(app, "terminal-round")
        await pilot.press("escape")
        await _say(pilot, app, "/next How stiff is bamboo?")
        await pilot.press("ctrl+b")
        await pilot.pause()
        _keep(app, "terminal-branches")


async def _say(pilot: Pilot[None], app: PreflexorApp, text: str) -> None:
    from preflexor_tui.widgets.composer import Composer

    app.chat.query_one(Composer).load(text)
    app.chat.query_one(Composer).focus()
    await pilot.press("enter")
    await pilot.pause()
    await _idle(pilot, app)


async def _idle(pilot: Pilot[None], app: PreflexorApp) -> None:
    names = ("run", "load", "act")
    while app.chat.active is not None or any(w.name in names and not w.is_finished for w in app.workers):
        await pilot.pause(0.05)
    await pilot.pause()


def _keep(app: PreflexorApp, name: str) -> None:
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", app.export_screenshot(title="preflexor chat"))
    (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


@contextmanager
def _empty_home() -> Iterator[None]:
    """Nothing of the user's is seen on a picture, or changed for it."""
    names = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(dict.fromkeys(names, home))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with _empty_home():
        asyncio.run(take())
