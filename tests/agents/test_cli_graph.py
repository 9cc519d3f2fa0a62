"""`preflexor graph` on a real store: shown, exported, imported, merged."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.cli.main import cli
from preflexor_agents.graph.values import Fact, Node, Quote, Run
from preflexor_agents.store import Store, browsing

TEXT = (
    "Nacre consists of aragonite tablets. Chitin lies between aragonite tablets. "
    "Sliding tablets toughen nacre. Mother of pearl is nacre. Nacre is tough."
)
FACTS = [
    ("Nacre", "consists of", "aragonite tablets", "Nacre consists of aragonite tablets."),
    ("chitin", "lies between", "aragonite tablets", "Chitin lies between aragonite tablets."),
    ("nacre", "has property", "toughness", "Nacre is tough."),
    ("mother of pearl", "is", "shell layer", "Mother of pearl is nacre."),
]
Graph = Callable[..., Result]


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Runs `preflexor graph` on a store with four facts of one run."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with Store.open("g.db") as store:
        finding = store.add_finding(TEXT, owner="test", title="Nacre")
        [chunk] = browsing.chunks(store.path, finding.source)
        run = store.graph.begin(Run(kind="extract", model="nano"))

        def quote(words: str) -> Quote:
            start = chunk.text.index(words)
            return Quote(chunk_id=chunk.id, start=start, end=start + len(words))

        facts = [
            Fact(subject=Node(name=a, type="material"), kind=kind, object=Node(name=b), quotes=(quote(words),))
            for a, kind, b, words in FACTS
        ]
        assert store.graph.add(facts, run=run).refused == ()

    def call(*words: str | Path, store: str = "g.db") -> Result:
        return CliRunner().invoke(cli, ["graph", *map(str, words), "--store", store])

    return call


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.strip() for line in result.stdout.splitlines()]


def test_every_command_of_the_page_on_the_explorer_runs(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLEXOR_STORE", "g.db")
    page = (Path(__file__).parents[2] / "docs" / "explorer.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) > 9
    for words in (words for words in commands if words[0] == "preflexor"):
        done = CliRunner().invoke(cli, words[1:])
        assert done.exit_code == 0, (words, done.output)


def test_an_entity_is_shown_with_relations_by_kind_and_quotes_with_their_place(graph: Graph) -> None:
    shown = graph("show", "NACRE").stdout
    assert shown.startswith("Nacre (material)\n")
    assert (
        "\n  consists of → (1)\n    aragonite tablets · 1 quote\n      “Nacre consists of aragonite tablets.” " in shown
    )
    assert "characters 0-36" in shown and "chitin" not in shown


def test_more_hops_show_the_neighbours_of_neighbours_below_them(graph: Graph) -> None:
    shown = graph("show", "nacre", "--hops", "2").stdout
    assert "\n      ← lies between (1)\n        chitin (material) · 1 quote\n" in shown


def test_without_an_entity_the_whole_is_told_in_numbers(graph: Graph) -> None:
    shown = lines(graph("show"))
    assert shown[0] == "6 entities, 4 relations, 4 quotes, from 1 runs"
    assert {"2  Nacre (material)", "2  aragonite tablets", "1  lies between"} <= set(shown)
    found = json.loads(graph("show", "--json").stdout)
    assert found["counts"] == {"entities": 6, "relations": 4, "evidence": 4, "runs": 1}
    assert found["best_connected"][0]["name"] == "Nacre" and found["kinds"]["is"] == 1


def test_json_of_an_entity_holds_the_exact_words(graph: Graph) -> None:
    found = json.loads(graph("show", "chitin", "--json").stdout)
    [relation] = found["relations"]
    quote = relation["evidence"][0]
    assert quote["quote"] == TEXT[quote["start"] : quote["end"]] and quote["run"]["model"] == "nano"


def test_a_path_is_told_step_by_step_with_quotes(graph: Graph) -> None:
    told = lines(graph("path", "toughness", "chitin"))
    assert told[0] == "toughness to chitin: 3 steps"
    assert told[1] == "toughness ← has property Nacre" and told[2].startswith("“Nacre is tough.”")
    assert told[5] == "aragonite tablets ← lies between chitin"
    found = json.loads(graph("path", "nacre", "chitin", "--json").stdout)
    assert [len(path["relations"]) for path in found["paths"]] == [2]


def test_no_path_is_told_and_is_no_failure(graph: Graph) -> None:
    done = graph("path", "nacre", "mother of pearl")
    assert (done.exit_code, done.stdout) == (0, "") and "no path" in done.stderr


@pytest.mark.parametrize("words", [["show", "nacer"], ["path", "nacre", "nothing"], ["merge", "nacre", "x"]])
def test_a_name_that_is_not_there_ends_with_2(graph: Graph, words: list[str]) -> None:
    done = graph(*words)
    assert done.exit_code == 2 and done.stderr.startswith("preflexor: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "holds"),
    [
        ("g.graphml", "<graphml"),
        ("g.json", '"format": "preflexor-graph"'),
        ("g.mmd", "flowchart LR"),
        ("g.dot", "digraph"),
        ("g.HTML", "<!DOCTYPE html>"),
    ],
)
def test_the_suffix_chooses_the_format(graph: Graph, tmp_path: Path, file: str, holds: str) -> None:
    assert lines(graph("export", file))[0].startswith(f"wrote 6 entities and 4 relations to {file} (")
    assert holds in (tmp_path / file).read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.partial"))


def test_csv_is_two_files(graph: Graph, tmp_path: Path) -> None:
    assert "g-entities.csv and g-relations.csv" in lines(graph("export", "g.csv"))[0]
    assert (tmp_path / "g-relations.csv").read_bytes().startswith(b"Id,Source,Target,Type,Label,")


def test_a_part_can_be_exported(graph: Graph, tmp_path: Path) -> None:
    graph("export", "near.json", "--around", "nacre", "--hops", "1")
    names = {e["name"] for e in json.loads((tmp_path / "near.json").read_text(encoding="utf-8"))["entities"]}
    assert names == {"Nacre", "aragonite tablets", "toughness"}
    graph("export", "two.json", "--limit", "2")
    assert len(json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))["entities"]) == 2


@pytest.mark.parametrize("file", ["g.txt", "g", "there.json", "nowhere/g.json"])
def test_a_file_that_cannot_be_written_ends_with_2_and_leaves_all_as_it_was(
    graph: Graph, tmp_path: Path, file: str
) -> None:
    (tmp_path / "there.json").write_text("mine", encoding="utf-8")
    done = graph("export", file)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "there.json").read_text(encoding="utf-8") == "mine"


def test_an_empty_graph_is_said_to_be_empty(graph: Graph, tmp_path: Path) -> None:
    Store.open("empty.db").close()
    assert "the graph is empty" in graph("show", store="empty.db").stderr
    done = graph("export", "e.html", store="empty.db")
    assert done.exit_code == 2 and "nothing to export" in done.stderr and not (tmp_path / "e.html").exists()


@pytest.mark.parametrize("file", ["g.json", "g.graphml"])
def test_what_was_exported_can_be_imported_elsewhere(graph: Graph, file: str) -> None:
    graph("export", file)
    told = lines(graph("import", file, store="new.db"))
    assert told[0].startswith("4 new relations, 6 new entities, 4 quotes")
    shown = graph("show", "nacre", store="new.db").stdout
    assert "“Nacre | consists of | aragonite tablets”" in shown
    assert lines(graph("import", file))[0].startswith("0 new relations, 0 new entities, 0 quotes; 4 relations known")


def test_what_an_import_leaves_out_is_told_line_by_line(graph: Graph, tmp_path: Path) -> None:
    edges = [{"source": "a", "target": "b"}, {"source": "a", "target": "gone\x1b[31m\n"}]
    text = json.dumps({"nodes": [{"id": "a"}, {"id": "b"}], "links": edges})
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    done = graph("import", "other.json")
    assert done.exit_code == 0 and "1 new relations" in done.stdout
    assert len(done.stderr.splitlines()) == 1 and "no node" in done.stderr and "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("bomb.graphml", b'<!DOCTYPE g [<!ENTITY a "b">]><graphml>&a;</graphml>'),
        ("empty.json", b""),
        ("binary.graphml", bytes(range(256))),
        ("lonely.json", b'{"nodes": [{"id": 1}], "edges": [{"source": 1, "target": 2}]}'),
        ("graph.xlsx", b"PK"),
        ("folder.json", None),
    ],
)
def test_a_file_that_is_no_graph_ends_with_2_and_stores_nothing(
    graph: Graph, tmp_path: Path, file: str, data: bytes | None
) -> None:
    if data is None:
        (tmp_path / file).mkdir()
    else:
        (tmp_path / file).write_bytes(data)
    before = graph("show").stdout
    done = graph("import", file)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1 and file in done.stderr
    assert graph("show").stdout == before
    assert graph("import", file, store="new.db").exit_code == 2 and not (tmp_path / "new.db").exists()


def test_merged_entities_are_one_until_that_is_taken_back(graph: Graph) -> None:
    assert lines(graph("merge", "nacre", "mother of pearl")) == ["mother of pearl is Nacre now"]
    assert graph("show", "mother of pearl").stdout.startswith("Nacre (material), also mother of pearl\n")
    assert graph("merge", "nacre", "mother of pearl").exit_code == 2
    assert "of its own again" in lines(graph("unmerge", "Mother of Pearl"))[0]
    assert "also" not in graph("show", "nacre").stdout
    done = graph("unmerge", "mother of pearl")
    assert done.exit_code == 2 and "was not merged" in done.stderr


def test_communities_are_listed_by_their_best_connected(graph: Graph) -> None:
    groups = json.loads(graph("communities", "--json").stdout)["communities"]
    assert {"size": 2, "entities": ["mother of pearl", "shell layer"]} in groups
    assert sum(group["size"] for group in groups) == 6
    assert lines(graph("communities", "-k", "1"))[0].split("  ")[0] == str(groups[0]["size"])


def test_suggestions_name_both_and_merge_nothing(graph: Graph) -> None:
    with Store.open("g.db") as store:
        [chunk] = browsing.chunks(store.path, store.findings()[0].source)
        run = store.graph.begin(Run(kind="extract"))
        nodes = Node(name="aragonite tablet"), Node(name="toughness")
        store.graph.add(
            [Fact(subject=nodes[0], kind="has", object=nodes[1], quotes=(Quote(chunk_id=chunk.id, start=0, end=5),))],
            run=run,
        )
    found = json.loads(graph("suggest", "--json").stdout)["suggestions"]
    assert {found[0]["keep"]["name"], found[0]["gone"]["name"]} == {"aragonite tablet", "aragonite tablets"}
    assert 0 < found[0]["score"] <= 1
    assert "aragonite tablets" in lines(graph("suggest", "-k", "1"))[0]
    assert graph("show", "--json").stdout.count('"name"') == 7


def test_text_of_documents_cannot_steer_the_terminal(graph: Graph) -> None:
    with Store.open("g.db") as store:
        finding = store.add_finding("evil \x1b]0;owned\x07 text [bold]", owner="test", title="E")
        [chunk] = browsing.chunks(store.path, finding.source)
        run = store.graph.begin(Run(kind="extract"))
        quote = Quote(chunk_id=chunk.id, start=0, end=len(chunk.text))
        fact = Fact(subject=Node(name="nacre"), kind="is [red]", object=Node(name="bad\u202ename"), quotes=(quote,))
        store.graph.add([fact], run=run)
    for words in (["show", "nacre"], ["show"], ["path", "nacre", "badname"]):
        output = graph(*words).output
        assert not {"\x1b", "\x07", "\u202e"} & set(output)
    assert "[bold]" in graph("show", "nacre").stdout


@pytest.mark.parametrize("words", [["show"], ["export", "g.json"], ["suggest"], ["path", "a", "b"]])
def test_a_store_that_is_not_there_ends_with_2(graph: Graph, tmp_path: Path, words: list[str]) -> None:
    done = graph(*words, store="none.db")
    assert done.exit_code == 2 and "none.db" in done.stderr and not (tmp_path / "none.db").exists()


TAGGED = """<think><graph>
[Nacre] -[CONSISTS-OF]-> [Aragonite]
[Nacre] -[HAS]-> [Toughness]
</graph></think>Nacre is tough."""


@pytest.mark.parametrize(("name", "words"), [("a.txt", []), ("a.log", ["--tagged"])])
def test_graphs_in_a_models_text_are_taken_in_once(graph: Graph, tmp_path: Path, name: str, words: list[str]) -> None:
    (tmp_path / name).write_text(TAGGED, encoding="utf-8")
    first, again = graph("import", name, *words), graph("import", name, *words)
    assert first.stdout.startswith("1 graphs in 1 texts, 0 known already: 2 new relations, "), first.output
    assert again.stdout.startswith("1 graphs in 1 texts, 1 known already: 0 new relations, ")


def test_a_text_without_a_graph_is_told(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Just a note.", encoding="utf-8")
    done = graph("import", "a.md")
    assert done.exit_code == 2 and "holds no graph that can be read" in done.stderr
