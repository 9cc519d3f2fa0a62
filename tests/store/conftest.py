"""Documents and stores on disk."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.store import Store
from preflexor_agents.store.driver import sqlite3
from tests.store.checking import Failing

NACRE = """# Nacre

Nacre is the inner layer of many mollusc shells.

## Structure

Nacre is built of aragonite tablets, 500 nm thick, stacked like bricks with chitin and protein between them.

## Properties

The fracture toughness of nacre is about 4.5 MPa m^0.5. Its Young's modulus is 70 GPa, its tensile strength 170 MPa.
"""
SILK = """# Spider silk

Spiders make several kinds of silk.

## Properties

Dragline silk of spiders has a tensile strength of 1100 MPa and stretches by 27% before it breaks.
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with two Markdown notes and a text file."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "nacre.md").write_text(NACRE, encoding="utf-8")
    (folder / "silk.md").write_text(SILK, encoding="utf-8")
    (folder / "gecko.txt").write_text("Gecko feet stick by van der Waals forces.\n", encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store on disk."""
    with Store.open(tmp_path / "test.db") as opened:
        yield opened


@pytest.fixture
def library(store: Store, notes: Path) -> Store:
    """A store that holds the notes."""
    store.ingest([notes])
    return store


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Failing]]:
    """Connections fail once `left` has counted down to 0."""
    plain = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: plain(*args, factory=Failing, **options))
    yield Failing
    Failing.left = -1


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A store that version 2 of the schema made: two documents and a finding."""
    path = tmp_path / "old.db"
    packed = Path(__file__).parent / "data" / "store-v2.db.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path
