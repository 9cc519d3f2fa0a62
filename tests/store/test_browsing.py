"""Looking through a store: documents and their chunks."""

from pathlib import Path

import pytest

from preflexor_agents.errors import StoreFileError
from preflexor_agents.store import Store
from preflexor_agents.store.browsing import chunks, documents


def test_documents_are_listed_by_title(library: Store) -> None:
    found = documents(library.path)
    assert [d.title for d in found] == ["gecko", "Nacre", "Spider silk"]
    nacre = found[1]
    assert nacre.source.endswith("nacre.md") and nacre.pages == 0
    assert nacre.characters > 100 and nacre.chunks == len(chunks(library.path, nacre.source))


def test_documents_are_found_by_part_of_title_or_source(library: Store) -> None:
    assert [d.title for d in documents(library.path, containing="SILK")] == ["Spider silk"]
    assert [d.title for d in documents(library.path, containing="gecko.txt")] == ["gecko"]
    assert documents(library.path, containing="%") == documents(library.path, containing="a_r") == []
    assert len(documents(library.path, most=2)) == 2


def test_chunks_stand_in_their_order_where_they_say(library: Store) -> None:
    source = documents(library.path, containing="Nacre")[0].source
    found = chunks(library.path, source)
    text = Path(source).read_text(encoding="utf-8")
    assert [c.ord for c in found] == list(range(len(found)))
    assert all(text[c.start : c.end] == c.text for c in found)


def test_a_document_that_is_not_there_has_no_chunks(library: Store) -> None:
    assert chunks(library.path, "nothing.md") == []


def test_a_store_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreFileError, match="does not exist"):
        documents(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
