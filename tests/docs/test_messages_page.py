"""What docs/troubleshooting.md quotes is what the program says."""

import ast
import re
from collections.abc import Iterator

from tests.docs.following import DOCS, ROOT

SOURCES = ("preflexor_agents", "training/preflexor_training", "quantize/preflexor_quantize", "tui/preflexor_tui")
PAGE = DOCS / "troubleshooting.md"


def said_in_sources() -> Iterator[str]:
    """Every text of the sources, with … for what is put in when the program runs."""
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                    yield "".join(parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    yield re.sub(r"\$(?:\([^)]*\)|\$\(.*?\))|\$\(\w+\)", "…", (ROOT / "Makefile").read_text(encoding="utf-8"))


def quoted() -> list[str]:
    """The messages in the first column of tables whose head says that the program says them."""
    found, reading = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            reading = False
        elif cells[0] in ("it says", "what you see"):
            reading = True
        elif reading and not cells[0].startswith("---"):
            found += re.findall(r"`([^`]+)`", cells[0])
    return found


def test_every_message_of_the_page_is_one_of_the_programs() -> None:
    said = [re.sub(r"…+", "…", " ".join(text.split())) for text in said_in_sources() if len(text) > 3]
    messages = quoted()
    assert len(messages) > 50
    lost = [m for m in messages if not any(fits(m, text) for text in said)]
    assert lost == []


def test_a_message_that_nothing_says_is_noticed() -> None:
    said = "no Ollama server answers at …; start it with: ollama serve, or set OLLAMA_HOST"
    assert fits("… server answers at …; start it with: ollama serve", said)
    assert not fits("no Ollama server answers at …; start it with: systemctl", said)


def fits(message: str, text: str) -> bool:
    """Whether the text can come out as the message, or a part of it that tells it apart does.

    A message may be put together of two texts: the value in front, as `store …`, and what is wrong with it.
    """
    if message in text:
        return True
    core = message.strip("… ").removeprefix("store … ").removeprefix("setup: … ")
    return len(core) > 20 and core in text
