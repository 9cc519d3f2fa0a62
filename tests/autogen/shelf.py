"""A small knowledge store on disk, and an embedder that can be held."""

import threading
from collections.abc import Sequence
from pathlib import Path

from autogen_core import CancellationToken
from autogen_core.models import LLMMessage

from preflexor_agents.store import Store
from preflexor_agents.store.embedders import HashEmbedder, Vectors

NOTES = {
    "nacre.md": "# Nacre\n\nNacre is built of aragonite tablets. Its fracture toughness is about 4.5 MPa m^0.5.\n",
    "silk.md": "# Spider silk\n\nDragline silk of spiders has a tensile strength of 1100 MPa.\n",
    "gecko.md": "# Gecko\n\nGecko feet stick by van der Waals forces between setae and wall.\n",
}


def make_store(path: Path, notes: dict[str, str] = NOTES) -> Path:
    """A store of these notes; the files lie beside it."""
    folder = path.with_suffix(".notes")
    folder.mkdir(parents=True)
    for name, text in notes.items():
        (folder / name).write_text(text, encoding="utf-8")
    with Store.open(path) as store:
        report = store.ingest([folder])
    assert not report.failed
    return path


class HeldEmbedder(HashEmbedder):
    """Embeds nothing until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.reached.set()
        assert self.go_on.wait(20)
        return super().embed(texts)


def cancelled() -> CancellationToken:
    token = CancellationToken()
    token.cancel()
    return token


def blocks(messages: Sequence[LLMMessage]) -> list[str]:
    """The blocks of passages that the messages hold."""
    return [m.content for m in messages if isinstance(m.content, str) and m.content.startswith("<passages>")]
