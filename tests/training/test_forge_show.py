"""`preflexor forge show`, `stats`, `export` and `import` on a real run, and what docs/forge_data.md tells to type."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import Reply
from preflexor_agents.cli.forge_view import drawn
from preflexor_agents.cli.main import cli
from preflexor_agents.prompts import JUDGE
from preflexor_agents.store import Store
from preflexor_training.forge import browsing, lengths
from preflexor_training.forge.browsing import Words
from preflexor_training.forge.records import Row, read_rows, to_line
from preflexor_training.forge.rejected import SHALLOW, WRONG
from preflexor_training.forge.spans import check_spans
from preflexor_training.pairs import Reply as Side
from preflexor_training.pairs import read_pairs
from tests.training.forging import run as forge
from tests.training.forging import speak
from tests.training.teaching import library

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "forge_data.md"
NANO = ROOT / "preflexor_agents" / "data" / "nano" / "nano.gguf"
HOSTILE = "\x1b[31mred\x1b[0m \x07 \u202edrow [bold]x[/bold]"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with library(tmp_path_factory.mktemp("show") / "store.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def data(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the reflection variant with a judge."""
    folder = tmp_path_factory.mktemp("run") / "data"
    forge(store, folder, say, rows=8, variant="reflection", verifier="judge", samples=2, phase=2)
    return folder


@pytest.fixture
def here(data: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in a folder with the run as `data` and its store as `store.db`."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "store.db").symlink_to(store.path)
    return tmp_path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["forge", *map(str, words)])


def said(*words: str | Path) -> str:
    done = run(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def kept(data: Path) -> Row:
    return next(row for row in read_rows(data) if row.state == "kept")


def say(request: Request) -> Reply:
    """The cast, with a judge that does not like a third of the guesses and does not mind the others."""
    asked = request.messages[-1].content
    if asked.endswith((WRONG, SHALLOW)):
        return f"Nothing of the kind, answer no. {request.seed % 97}."
    if JUDGE not in asked:
        return speak(request)
    if int(re.findall(r"answer no\. (\d+)", asked)[0]) % 3:
        return "Better: tie"
    return "Better: B" if asked.index("I guess") < asked.index("\n\nB:\n") else "Better: A"


def write(file: Path, *rows: Row) -> Path:
    file.write_text("".join(map(to_line, rows)), encoding="utf-8")
    return file


def test_rows_are_listed_by_number_with_state_and_reason(here: Path, data: Path) -> None:
    rows = list(read_rows(data))
    lines = said("show", "data").splitlines()
    assert [line.split()[:2] for line in lines] == [[str(row.number), row.state] for row in rows]
    assert kept(data).question[:60] in said("show", "data")
    for state in ("kept", "dropped", "failed"):
        listed = said("show", "data", "--state", state).splitlines()
        assert [int(line.split()[0]) for line in listed] == [row.number for row in rows if row.state == state]
    ties = [row for row in rows if row.reason.startswith("tie: ")]
    assert ties and all(row.scores["tie"] == row.scores["samples"] == 2 for row in ties)


def test_a_row_in_full_has_its_context_with_the_quotes_marked(here: Path, data: Path, store: Store) -> None:
    row = kept(data)
    shown = said("show", "data", "--row", str(row.number), "--store", "store.db")
    flat = " ".join(shown.split())
    for words in ("question", "reflection", "rejected (student_thinking)", "margin 1", "judge", "category:"):
        assert words in shown
    context = browsing.context_of(row, store)
    quotes = [piece.text for passage in context for piece in passage.words if piece.kind == "quote"]
    assert quotes and all(f"»{' '.join(quote.split())}«" in flat for quote in quotes)
    for passage in context:
        inside = "".join(p.text for p in passage.words if p.kind != "around")
        assert inside == store.words(passage.span.source, passage.span.start, passage.span.end) != ""
        before, after = passage.words[0].text, passage.words[-1].text
        around = store.words(passage.span.source, passage.span.start - len(before), passage.span.end + len(after))
        assert around == before + inside + after


def test_a_passage_is_bright_and_its_quotes_are_reversed_where_there_are_colours(data: Path, store: Store) -> None:
    span = replace(kept(data).context[0], start=10, end=30)
    words = (
        Words("around", "before "),
        Words("passage", "plain "),
        Words("quote", "quoted"),
        Words("around", " after"),
    )
    row = replace(kept(data), context=(span,))
    console = Console(width=200, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(drawn(row, (browsing.Shown(span, words),), console, diff=False))
    assert "\x1b[2m…before \x1b[0mplain \x1b[1;7mquoted\x1b[0m\x1b[2m after…\x1b[0m" in shown.get()


def test_a_document_that_was_changed_is_said(here: Path, data: Path) -> None:
    row = kept(data)
    span = replace(row.context[0], sha256="0" * 64)
    write(here / "log.jsonl", replace(row, context=(span, *row.context[1:])))
    shown = said("show", "log.jsonl", "--row", str(row.number), "--store", "store.db")
    assert shown.count("says something else there, or is gone") == 1


def test_every_span_of_a_run_stands_in_its_document(data: Path, store: Store) -> None:
    rows = list(read_rows(data))
    assert sum(len(row.context) for row in rows) > 8 and list(check_spans(rows, store)) == []
    row = kept(data)
    span = row.context[0]
    for wrong in (
        replace(span, start=span.start + 1),
        replace(span, end=span.end - 1),
        replace(span, source="gone.md"),
        replace(span, sha256="f" * 64),
    ):
        assert list(check_spans([replace(row, context=(wrong,))], store)) == [(row.number, wrong)]


@pytest.mark.parametrize(("width", "beside"), [(120, True), (60, False)])
def test_answers_stand_side_by_side_where_there_is_room(data: Path, width: int, beside: bool) -> None:
    row = replace(kept(data), chosen=Side(answer="ALPHA"), rejected=Side(answer="OMEGA"), calls=(), context=())
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as shown:
        console.print(drawn(row, (), console, diff=False))
    lines = shown.get().splitlines()
    assert any("ALPHA" in line and "OMEGA" in line for line in lines) is beside
    assert max(map(len, lines)) <= width


def test_what_differs_is_marked_by_signs_without_colours_and_by_style_with(data: Path) -> None:
    row = replace(kept(data), chosen=Side(answer="It is hard."), rejected=Side(answer="It is soft."), calls=())
    plain, colour = (Console(width=200, force_terminal=on, color_system="standard") for on in (False, True))
    shown = []
    for console in (plain, colour):
        with console.capture() as captured:
            console.print(drawn(row, (), console, diff=True))
        shown.append(captured.get())
    assert "{+hard+}" in shown[0] and "[-soft-]" in shown[0] and "+1 words" in shown[0]
    assert "{+" not in shown[1] and re.search(r"\x1b\[[\d;]*4[\d;]*m\s*hard", shown[1])


def test_a_listing_shows_below_each_pair_what_differs(here: Path, data: Path) -> None:
    row = replace(kept(data), chosen=Side(answer="It is hard."), rejected=Side(answer="It is soft."))
    write(here / "log.jsonl", row)
    assert "It is [-soft-]{+hard+}." in said("show", "log.jsonl", "--diff")
    assert "It is" not in said("show", "log.jsonl")


def test_nothing_in_a_row_steers_the_terminal(here: Path, data: Path) -> None:
    row = kept(data)
    call = replace(row.calls[0], step=HOSTILE, model=HOSTILE, error=HOSTILE)
    bad = replace(
        row,
        question=HOSTILE,
        gold=HOSTILE,
        pack=HOSTILE,
        prompt=(replace(row.prompt[0], content=HOSTILE + "?"),),
        categories=((HOSTILE, HOSTILE),),
        chosen=Side(thinking=HOSTILE, answer=HOSTILE + "!"),
        rejected=Side(answer=HOSTILE),
        context=(replace(row.context[0], title=HOSTILE, source=HOSTILE),),
        scores={HOSTILE: 1.0, "margin": 0.5, "samples": 1.0, "accepted": 1.0},
        calls=(call,),
    )
    fell = replace(bad, number=bad.number + 1, state="dropped", reason=f"{HOSTILE}: {HOSTILE}")
    file = write(here / "log.jsonl", bad, fell)
    number = str(bad.number)
    for words in ((), ("--row", number), ("--row", number, "--diff"), ("--row", str(fell.number))):
        shown = said("show", file, *words)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", shown) and "[bold]" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", said("stats", file))


def test_json_is_one_object_and_holds_everything(here: Path, data: Path) -> None:
    row = kept(data)
    listed = json.loads(said("show", "data", "--json", "--state", "kept"))
    assert listed["rows"][0] == json.loads(to_line(row))
    whole = json.loads(said("show", "data", "--row", str(row.number), "--diff", "--json", "--store", "store.db"))
    assert whole["row"] == listed["rows"][0] and len(whole["context"]) == len(row.context)
    assert "".join(p["text"] for p in whole["diff"] if p["kind"] != "gone") == row.chosen.answer


def test_any_preference_file_is_shown(here: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "<think>a</think>yes", "rejected": "no"}, {"prompt": "Q", "chosen": "x"}]
    (here / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    first, second = said("show", "rows.json").splitlines()
    assert first.split()[:3] == ["0", "kept", "imported"] and "no_pair" in second
    assert "thinking" in said("show", "rows.json", "--row", "0")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show", "gone"), "gone cannot be read"),
        (("show", "."), "without pairs.jsonl and without a saved dataset"),
        (("show", "data", "--row", "99"), "has no row 99; it has rows 0 to 7"),
        (("show", "data", "--row", "-1"), "not in the range"),
        (("show", "data", "--state", "lost"), "not one of"),
        (("show", "data", "--row", "0", "--store", "gone.db"), "gone.db"),
        (("stats", "data", "--tokenizer", "gone.gguf"), "gone.gguf"),
        (("stats", "data", "--tokenizer", "."), "has no tokenizer"),
        (("stats", "data", "--plot", "file"), "cannot be made"),
        (("export", "data", "file"), "exists already"),
        (("export", "data", "out", "--format", "csv"), "not one of"),
        (("import", "data", "data"), "exists already"),
        (("import", "file", "new"), "neither JSON lines nor a JSON array"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(here: Path, words: tuple[str, ...], complaint: str) -> None:
    (here / "file").write_bytes(b"\x00\x01 no rows")
    done = run(*words)
    assert done.exit_code == 2 and complaint in done.stderr
    assert "Traceback" not in done.stderr and (here / "file").read_bytes() == b"\x00\x01 no rows"


def test_stats_count_what_is_in_the_rows(here: Path, data: Path) -> None:
    rows = list(read_rows(data))
    pairs = [row for row in rows if row.state == "kept"]
    found = json.loads(said("stats", "data", "--max-length", "20", "--json"))
    assert found["rows"] == 8 and found["states"]["kept"] == len(pairs)
    assert found["samples"] == sum(row.scores.get("samples", 0) for row in rows) > 0
    assert found["acceptance"] == found["accepted"] / found["samples"]
    assert found["max_length_tok"] == 20 and found["too_long"] == len(pairs)
    assert found["calls"] == sum(len(row.calls) for row in rows)
    assert sum(found["categories"].values()) == sum(len(row.categories) for row in pairs)
    assert found["tokens"]["measured"].startswith("estimated")
    text = said("stats", "data")
    assert "over 2048 tokens" in text and f"{len(pairs)} kept" in text and "accepted" in text


def test_tokens_are_counted_by_a_gguf_file(data: Path) -> None:
    pair = kept(data).pair()
    with lengths.measure(NANO) as measure:
        counted = measure.lengths(pair)
        longer = measure.lengths(replace(pair, rejected=replace(pair.rejected, answer="tough nacre " * 500)))
    assert "nano" in measure.name and counted.row == counted.prompt + max(counted.chosen, counted.rejected)
    assert longer.rejected > 900 and longer.chosen == counted.chosen > counted.thinking > 0


def test_tokens_are_counted_by_a_folder_as_training_renders_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preflexor_agents.backends.hf_tokens import load_tokenizer
    from preflexor_training import bases
    from preflexor_training.recipe_parts import Mask, Tags
    from preflexor_training.rendering import renderer, tokenize

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, pair = bases.resolve("nano"), kept(data).pair()
    made = tokenize(pair, renderer(load_tokenizer(folder), Tags()), mask=Mask())
    with lengths.measure(folder) as measure:
        counted = measure.lengths(pair)
    assert (counted.prompt, counted.chosen, counted.rejected) == tuple(
        map(len, (made.prompt, made.chosen.ids, made.rejected.ids))
    )
    with lengths.measure(NANO) as measure:
        assert abs(measure.lengths(pair).row - counted.row) < 12


def test_plots_are_drawn_as_svg_and_png_and_do_not_change(here: Path) -> None:
    said("stats", "data", "--plot", "plots")
    names = {path.name for path in (here / "plots").iterdir()}
    assert {"lengths.svg", "lengths.png", "margins.svg", "categories.svg", "samples.png"} <= names
    first = (here / "plots" / "lengths.svg").read_bytes()
    said("stats", "data", "--plot", "again")
    assert first.startswith(b"<?xml") and (here / "again" / "lengths.svg").read_bytes() == first


@pytest.mark.parametrize("kind", ["student", "student_thinking", "teacher_wrong", "teacher_shallow", "perturbed"])
def test_every_kind_of_rejected_side_makes_pairs_whose_texts_close_their_tags(
    kind: str, store: Store, tmp_path: Path
) -> None:
    forge(store, tmp_path / "run", say, rows=4, rejected=kind, samples=2)
    rows = [row for row in read_rows(tmp_path / "run") if row.state == "kept"]
    assert rows and {row.rejected_kind for row in rows} == {kind}
    assert all((row.rejected.thinking is not None) is (kind in ("student_thinking", "perturbed")) for row in rows)
    done = run("export", tmp_path / "run", tmp_path / "out.jsonl")
    assert done.exit_code == 0 and done.stderr == ""
    assert list(read_pairs(tmp_path / "out.jsonl")) == [row.pair() for row in rows]


def test_only_kept_rows_are_exported(here: Path, data: Path) -> None:
    pairs = [row for row in read_rows(data) if row.state == "kept"]
    assert f"{len(pairs)} pairs written to out.parquet as parquet" in said("export", "data", "out.parquet")
    done = json.loads(said("export", "data", "out.jsonl", "--json"))
    assert done["format"] == "trl-chat" and done["rows"] == len(pairs) and done["left_out"] == []


def test_an_import_says_what_it_left_out(here: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "Q"}, {"question": "How?", "answer": "So."}]
    (here / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    done = run("import", "rows.json", "new")
    assert done.exit_code == 0 and "1 pairs imported into new" in done.stdout
    assert "1 rows are no pairs" in done.stderr and "1 questions with one answer each" in done.stdout
    assert (here / "new" / "card.md").is_file() and (here / "new" / "questions.jsonl").is_file()


def test_every_command_of_the_page_works(here: Path) -> None:
    rows = [{"instruction": "Q", "input": "", "chosen": "a", "rejected": "b"}]
    (here / "their.json").write_text(json.dumps(rows), encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("preflexor")]
    assert len(lines) >= 8
    for line in lines:
        done = run(*shlex.split(line, comments=True)[2:])
        assert done.exit_code == 0 and done.stdout, (line, done.stderr)


def test_the_program_of_the_page_finds_the_rows_of_a_chunk(
    here: Path, data: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    chunk = kept(data).context[0].chunk_id
    exec(compile(program.replace("rows_of(1)", f"rows_of({chunk})"), "forge_data.md", "exec"), {})
    made = [row for row in read_rows(data) if chunk in {span.chunk_id for span in row.context}]
    said = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert [[str(data / "pairs.jsonl"), str(row.number), row.state] for row in made] == [
        line for line in said if line[0] == str(data / "pairs.jsonl")
    ]
