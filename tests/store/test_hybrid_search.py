"""Searching by words and vectors at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflexor_agents.errors import ConfigError
from preflexor_agents.store import Store, driver, vectors
from preflexor_agents.store.fulltext import phrases
from preflexor_agents.store.scan import Hit
from preflexor_agents.store.search import fuse
from tests.store.checking import assert_sound
from tests.store.conftest import NACRE

SYNTAX = [
    *[
        '"',
        "'",
        "(",
        ")",
        "*",
        "^",
        ":",
        "-",
        "+",
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "NEAR(a b)",
        "col:umn*",
        "-x",
        "C++ & C#",
    ],
    *[
        "{a b}:c",
        "\0",
        "\ud800",
        "٣",
        "½",
        "a_b",
        "the of and",
        "?",
        "",
        " ",
        "\n",
        "%s",
        "--",
        ";DROP TABLE chunk",
        "🦪",
    ],
]


def without_vec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "load_vec", lambda conn: False)


def needs_vec(store: Store) -> None:
    if store.stats().vector_index == "rows":
        pytest.skip("this SQLite cannot load sqlite-vec")


def test_a_passage_says_where_it_stands_and_how_it_was_found(library: Store, notes: Path) -> None:
    best = library.search("fracture toughness of nacre")[0]
    assert best.text == NACRE[best.start : best.end] and best.text.startswith("## Properties")
    assert (best.source, best.title, best.page) == (str(notes / "nacre.md"), "Nacre", None)
    assert (best.text_rank, best.vector_rank) == (1, 1) and best.score == pytest.approx(2 / 61)
    assert best.text_score is not None and best.text_score > 0
    assert best.vector_score is not None and 0 < best.vector_score <= 1


def test_words_with_typing_errors_are_found_by_spelling(library: Store) -> None:
    found = library.search("frakture thoughness of nacer")[0]
    assert found.title == "Nacre" and found.text_rank is None


def test_headings_count_although_the_text_does_not_repeat_them(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Zebra\n\nBlack stripes.\n\n## Food\n\nIt eats grass.\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("# Lion\n\nYellow.\n\n## Food\n\nIt eats meat.\n", encoding="utf-8")
    store.ingest([tmp_path])
    assert store.search("food of the zebra")[0].text == "## Food\n\nIt eats grass."


def test_results_are_as_many_as_asked_for_best_first(library: Store) -> None:
    found = library.search("silk of spiders", k=4)
    assert len(found) == 4 and found[0].score == max(p.score for p in found)
    assert library.search("silk of spiders", k=1) == found[:1]


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_a_count_out_of_range_is_refused(library: Store, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; it must be 1 to 1000"):
        library.search("silk", k=k)


def test_an_empty_store_finds_nothing(store: Store) -> None:
    assert store.search("anything") == []


@pytest.mark.parametrize("query", SYNTAX)
def test_syntax_in_a_query_is_only_text(library: Store, query: str) -> None:
    assert isinstance(library.search(query), list)
    assert library.search(f"{query} dragline")[0].title == "Spider silk"


@given(
    query=st.text(alphabet=st.characters(exclude_categories=[]), max_size=60)
    | st.lists(st.sampled_from(SYNTAX)).map(" ".join)
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_query_is_an_error(library: Store, query: str) -> None:
    for passage in library.search(query, k=3):
        assert passage.text


def test_a_query_of_a_hundred_thousand_characters_is_answered(library: Store) -> None:
    assert library.search("dragline silk " * 7000)[0].title == "Spider silk"


def test_function_words_are_left_out_unless_there_is_nothing_else() -> None:
    assert phrases("What is the toughness of nacre?") == ['"toughness"', '"nacre"']
    assert phrases("to be or to do") == ['"to"', '"be"', '"or"', '"do"']
    assert phrases("?!") == []


def test_fusing_adds_reciprocal_ranks_and_breaks_ties_by_id() -> None:
    fused = fuse([Hit(7, 9.0), Hit(3, 8.0)], [Hit(3, 0.9), Hit(7, 0.8), Hit(1, 0.7)], k=3)
    assert [hit.chunk_id for hit in fused] == [3, 7, 1]
    assert fused[0].score == fused[1].score == pytest.approx(1 / 61 + 1 / 62)


def test_equal_chunks_come_in_the_order_of_their_ids(store: Store, tmp_path: Path) -> None:
    for n in range(9):
        (tmp_path / f"{n}.md").write_text(f"# Silk\n\nSilk is strong.\n\n## S{n}\n\nx\n", encoding="utf-8")
    store.ingest([tmp_path])
    same = [p.chunk_id for p in store.search("silk is strong", k=9) if p.text.endswith("strong.")]
    assert same == sorted(same) and len(same) == 9


def test_without_sqlite_vec_the_rows_give_the_same_results(
    library: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_vec(library)
    expected = library.search("tensile strength of silk", k=6)
    without_vec(monkeypatch)
    with Store.open(library.path) as bare:
        assert bare.stats().vector_index == "rows"
        found = bare.search("tensile strength of silk", k=6)
    assert [(p.chunk_id, p.vector_rank) for p in found] == [(p.chunk_id, p.vector_rank) for p in expected]
    assert [p.vector_score for p in found] == pytest.approx([p.vector_score for p in expected], abs=1e-5)


def test_an_index_left_behind_is_not_used_and_is_built_again(
    library: Store, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_vec(library)
    (notes / "new.md").write_text("Limpet teeth hold goethite.", encoding="utf-8")
    (notes / "silk.md").write_text("Silk of another kind.", encoding="utf-8")
    with monkeypatch.context() as patch:
        without_vec(patch)
        with Store.open(library.path) as bare:
            bare.ingest([notes])
    assert library.search("limpet teeth")[0].vector_rank == 1
    assert library.stats().vector_index == "rows"
    (notes / "more.md").write_text("More.", encoding="utf-8")
    library.ingest([notes])
    assert library.stats().vector_index.startswith("sqlite-vec")
    assert library.search("limpet teeth")[0].vector_rank == 1
    assert_sound(library.path)


def test_pythons_own_sqlite_reads_and_writes_the_same_file(library: Store, notes: Path) -> None:
    (notes / "new.md").write_text("Limpet teeth hold goethite.", encoding="utf-8")
    code = """
import sys
sys.modules["pysqlite3"] = None
from pathlib import Path
from preflexor_agents.store import Store
with Store.open(sys.argv[1]) as store:
    print(store.ingest([Path(sys.argv[2])]), store.search("goethite")[0].text)
"""
    command = [sys.executable, "-c", code, str(library.path), str(notes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1 added, 3 unchanged; 1 chunks written Limpet teeth hold goethite.\n"
    assert library.search("goethite")[0].vector_rank == 1


def test_exact_neighbours_are_found(store: Store, tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"{n}.txt").write_text(f"alpha{n} beta{n % 7} gamma{n % 11}", encoding="utf-8")
    store.ingest([tmp_path])
    query = store._opened_embedder().embed(["beta3 gamma5 alpha9"])
    space = vectors.space_of(store._db)
    assert space is not None
    by_index = vectors.nearest(store._db, space, query, k=20, has_vec=True)
    by_rows = vectors.nearest(store._db, space, query, k=20, has_vec=False)
    assert [h.score for h in by_index] == pytest.approx([h.score for h in by_rows], abs=1e-5)


def loaded(module: str, *names: str) -> list[str]:
    """Which of the named modules are there after importing one, in a process of its own."""
    code = f"import json, sys, {module}; print(json.dumps([m for m in {names} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_importing_the_store_loads_nothing_heavy() -> None:
    heavy = ("autogen_core", "torch", "llama_cpp", "ollama")
    assert loaded("preflexor_agents.store.store", "sqlite_utils", *heavy) == ["sqlite_utils"]


def test_naming_the_package_does_not_load_the_driver() -> None:
    assert loaded("preflexor_agents.store", "sqlite_utils", "numpy") == []
