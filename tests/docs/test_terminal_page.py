"""docs/tutorials/terminal.md typed into the real screen, on nano."""

import re
import shlex
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="needs the tui extra")

from textual.pilot import Pilot

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.backends.model_cache import MODELS
from preflexor_agents.errors import ModelError
from preflexor_tui import cli as tui
from preflexor_tui.app import PreflexorApp
from tests.docs.following import DOCS, Reader, blocks, reader
from tests.tui.chatting import over, shown, type_in, until

try:
    nano_path()
except ModelError as e:
    pytest.skip(str(e), allow_module_level=True)

PAGE = DOCS / "tutorials" / "terminal.md"
SAID = "Young's modulus of bamboo is 15 GPa"


@pytest.fixture
def someone(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path) as found:
        yield found
    MODELS.free_idle()


def typing() -> dict[str, list[str]]:
    """Each `preflexor chat` of the page, and the lines that are typed into its composer."""
    lines: dict[str, list[str]] = {}
    for block in blocks(PAGE):
        if block.language == "sh":
            at = [line for line in block.text.splitlines() if line.startswith("preflexor chat")]
            lines |= {line: [] for line in at}
        elif block.title == "in the composer":
            lines[list(lines)[-1]] += block.text.splitlines()
    return lines


def test_the_page_can_be_typed(someone: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[str] = []

    def start(opening: tui.Opening) -> None:
        app = tui.make_app(opening)
        app.run(headless=True, size=(112, 34), auto_pilot=typist(lines, last))

    monkeypatch.setattr(tui, "start", start)
    pages = typing()
    for block in blocks(PAGE):
        if block.language == "sh":
            for line in block.text.splitlines():
                lines = pages.get(line, [])
                someone.type(shlex.split(line), place=PAGE.name)
    assert "How stiff is bamboo?" in Path("bamboo.md").read_text(encoding="utf-8")
    assert len(last) == 3 and all(SAID in screen for screen in last)


def typist(lines: list[str], last: list[str]) -> Callable[[Pilot[Any]], Coroutine[Any, Any, None]]:
    async def type_all(pilot: Pilot[Any]) -> None:
        assert isinstance(pilot.app, PreflexorApp)
        await over(pilot)
        for line in lines:
            await type_in(pilot, line)
            await over(pilot)
        await until(pilot, lambda: SAID in shown(pilot))  # a replay takes its time
        last.append(shown(pilot))
        pilot.app.exit()

    return type_all


def test_the_pictures_name_no_other_address() -> None:
    pictures = sorted((DOCS / "figures").glob("*.svg"))
    assert len(pictures) >= 5
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        assert "font-face" not in text, picture.name
        assert not re.search(r"(?:href|src)\s*=\s*[\"']?\w+:|url\(\s*[\"']?\w+:", text), picture.name
