"""Searching some documents only: by collection, source and date."""

from pathlib import Path

import pytest

from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.store import Filter, Store

SOURCES = [
    "/papers/nacre.pdf",
    "/papers/old/silk.pdf",
    "/papers/old/[1] bone.md",
    "/papersold/wood.md",
    "/notes/silk.md",
    "https://x.org/silk.html",
    "finding:0af3",
]


@pytest.fixture
def shelf(store: Store, tmp_path: Path) -> Store:
    """A store of one document for each source."""
    for n, source in enumerate(SOURCES):
        file = tmp_path / f"{n}.md"
        file.write_text(f"# Silk {n}\n\nSilk number {n} is strong.\n", encoding="utf-8")
        store.ingest([file])
        store._db.conn.execute("UPDATE document SET source = ? WHERE source = ?", (source, str(file)))
    return store


def sources(store: Store, where: Filter) -> list[str]:
    found = store.search("silk is strong", k=50, where=where)
    assert all(p.vector_rank is not None and p.text_rank is not None for p in found)
    return sorted(p.source for p in found)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/papers/nacre.pdf", [0]),
        ("/papers", [0, 1, 2]),
        ("/papers/", [0, 1, 2]),
        ("/papers/old/[1] bone.md", [2]),
        ("/papers/*.pdf", [0, 1]),
        ("/papers*", [0, 1, 2, 3]),
        ("silk.pdf", [1]),
        ("old", [1, 2]),
        ("old/*.md", [2]),
        ("*silk.*", [1, 4, 5]),
        ("[1] bone.md", [2]),
        ("https://x.org", [5]),
        ("finding:0af3", [6]),
        ("finding:*", [6]),
        ("nothing", []),
        ("'; DROP TABLE document; --", []),
        ("pap", []),
    ],
)
def test_a_source_is_a_document_a_folder_or_a_glob(shelf: Store, given: str, expected: list[int]) -> None:
    assert sources(shelf, Filter(source=given)) == sorted(SOURCES[n] for n in expected)


def test_a_collection_is_searched_alone(shelf: Store) -> None:
    shelf._db.conn.execute("UPDATE document SET collection = 'work' WHERE id IN (2, 3)")
    assert sources(shelf, Filter(collection="work")) == sorted(SOURCES[1:3])
    assert sources(shelf, Filter(collection="work", source="*.pdf")) == [SOURCES[1]]
    assert sources(shelf, Filter(collection="none")) == []


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2024", None, "2024 2024-03 2024-03-15 now"),
        ("2024-03", "2024-03", "2024 2024-03 2024-03-15"),
        ("2024-03-15", "2024-03-15", "2024 2024-03 2024-03-15"),
        ("2024-03-16", "2024-12", "2024 2024-03"),
        (None, "2023", "1999"),
        ("2024-04", "2025", "2024"),
    ],
)
def test_a_date_known_in_part_fits_what_it_touches(
    shelf: Store, since: str | None, until: str | None, expected: str
) -> None:
    dates = {1: "2024", 2: "2024-03", 3: "2024-03-15", 4: "1999"}
    shelf._db.conn.execute("UPDATE document SET published = '1900'")
    for id, date in dates.items():
        shelf._db.conn.execute("UPDATE document SET published = ? WHERE id = ?", (date, id))
    shelf._db.conn.execute("UPDATE document SET published = NULL WHERE id = 5")
    named = dates | {5: "now"}
    found = {named.get(SOURCES.index(s) + 1, "1900") for s in sources(shelf, Filter(since=since, until=until))}
    assert found - {"1900"} == set(expected.split())


@pytest.mark.parametrize("date", ["", "24", "2024-13", "2024-02-30", "yesterday", "2024-3", "٢٠٢٤", "2024-03-15T10:00"])
def test_what_is_no_date_is_refused(date: str) -> None:
    with pytest.raises(InputError, match="write a date as 2024, 2024-03 or 2024-03-15"):
        Filter(since=date)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InputError, match="swap them"):
        Filter(since="2024-03", until="2024-02-28")
    Filter(since="2024-03", until="2024")


def test_filters_find_the_best_among_what_they_leave(shelf: Store) -> None:
    everything = [p.source for p in shelf.search("silk number 3 strong", k=50)]
    some = [p.source for p in shelf.search("silk number 3 strong", k=50, where=Filter(source="*.md"))]
    assert some == [source for source in everything if source.endswith(".md")]


def test_diversity_puts_what_differs_before_copies(store: Store, tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.md").write_text(f"# Silk\n\nSilk of spiders is strong. {n}\n", encoding="utf-8")
    (tmp_path / "z.md").write_text("# Moths\n\nMoths spin silk cocoons around themselves.\n", encoding="utf-8")
    store.ingest([tmp_path])
    query = "silk of spiders is strong"
    assert [p.title for p in store.search(query, k=2)] == ["Silk", "Silk"]
    assert [p.title for p in store.search(query, k=2, diversity=0.6)] == ["Silk", "Moths"]
    assert [p.chunk_id for p in store.search(query, k=5)] == [p.chunk_id for p in store.search(query, k=5, diversity=0)]


@pytest.mark.parametrize("given", [-0.1, 1.1, float("nan")])
def test_diversity_out_of_range_is_refused(library: Store, given: float) -> None:
    with pytest.raises(ConfigError, match="it must be 0 to 1"):
        library.search("silk", diversity=given)
