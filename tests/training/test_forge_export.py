"""Pairs written in the shapes of other trainers and read back; files of others as the log of a run."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.errors import ForgeError, InputError
from preflexor_agents.prompts import Message
from preflexor_training.forge import card
from preflexor_training.forge.exporting import FORMS, Form, export, written
from preflexor_training.forge.given import read_questions
from preflexor_training.forge.importing import import_pairs
from preflexor_training.forge.records import Row, Span, read_rows
from preflexor_training.pairs import Pair, Reply, read_pairs, reply_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "prefs-small"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), min_size=1).map(str.strip)
SECTIONS = TEXTS.filter(bool)


def pair(number: int, *turns: str) -> Pair:
    roles = ("system", "user", "assistant", "user")[-len(turns) :]
    return Pair(
        id=f"row-{number}",
        prompt=tuple(Message(role, text) for role, text in zip(roles, turns, strict=True)),  # type: ignore[arg-type]
        chosen=Reply(thinking="Hooks\n\nhold.", reflection="Say which.", answer=f"Hooks é 漢 {number}."),
        rejected=Reply(answer='Glue, "sort of".'),
        round=number,
    )


def read_pairs_only(path: Path) -> Iterator[Pair]:
    return (item for item in read_pairs(path) if isinstance(item, Pair))


@pytest.fixture
def row() -> Row:
    one = pair(3, "What holds? Use <|thinking|>.")
    span = Span(chunk_id=5, source="a.md", title="A", page=None, start=0, end=9, sha256="0" * 64)
    return Row(
        id=one.id,
        number=0,
        state="kept",
        variant="reflection",
        phase=2,
        round=one.round,
        seed=1,
        pack="general",
        question="What holds?",
        prompt=one.prompt,
        chosen=one.chosen,
        rejected=one.rejected,
        rejected_kind="student_thinking",
        context=(span,),
        scores={"margin": 0.5, "samples": 2.0, "accepted": 1.0, "tie": 1.0},
    )


@pytest.mark.parametrize("form", FORMS)
def test_pairs_come_back_as_they_were(form: Form, tmp_path: Path) -> None:
    pairs = [pair(n, "What holds? Use <|thinking|>.") for n in range(3)]
    exported = export(pairs, tmp_path / "out", form=form)
    assert exported.rows == 3 and list(read_pairs(tmp_path / "out")) == pairs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "trl"])
def test_conversations_come_back_as_they_were(form: Form, tmp_path: Path) -> None:
    pairs = [pair(0, "Be brief.", "Hm?", "Yes?", "What holds?"), pair(1, "Hm?", "Yes?", "What holds?")]
    export(pairs, tmp_path / "out", form=form)
    assert list(read_pairs(tmp_path / "out")) == pairs


def test_plain_texts_cannot_hold_a_conversation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row row-0 has 2 turns, and this shape one text; use --format trl-chat"):
        export([pair(0, "S", "", "", "Q"), pair(0, "S", "Q")][1:], tmp_path / "out", form="trl")
    assert list(tmp_path.iterdir()) == []


@given(st.none() | SECTIONS, st.none() | SECTIONS, SECTIONS)
def test_a_reply_comes_back_from_its_text(thinking: str | None, reflection: str | None, answer: str) -> None:
    reply = Reply(thinking=thinking, reflection=reflection, answer=answer)
    assert reply_of(written(reply)) == reply


def test_tags_that_a_text_only_spells_stay_text(tmp_path: Path) -> None:
    spelt = replace(pair(0, "Q"), chosen=Reply(thinking="a </think> b", answer="Close it with <|/thinking|>."))
    exported = export([spelt, pair(1, "Q")], tmp_path / "out", form="trl")
    found = list(read_pairs(tmp_path / "out"))
    assert exported.spelt == 1 and isinstance(found[0], Pair)
    assert found[0].chosen.answer.startswith("Close it with <") and "<|/thinking|>" not in found[0].chosen.answer
    assert found[0].chosen.thinking is not None and found[0].chosen.thinking.endswith("b")


def test_a_rows_origin_goes_into_parquet(row: Row, tmp_path: Path) -> None:
    import pyarrow.parquet

    export([row], tmp_path / "out", form="parquet")
    (found,) = pyarrow.parquet.read_table(tmp_path / "out").to_pylist()
    assert (found["chunk_ids"], found["sources"], found["margin"], found["phase"]) == ([5], ["a.md"], 0.5, 2)
    assert json.loads(found["record"])["rejected_kind"] == "student_thinking"


def test_trl_takes_what_was_written(tmp_path: Path) -> None:
    from trl import extract_prompt, is_conversational

    export([pair(0, "Q")], tmp_path / "out", form="trl-chat")
    data = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert is_conversational(data)
    inside = {"chosen": data["prompt"] + data["chosen"], "rejected": data["prompt"] + data["rejected"]}
    assert extract_prompt(inside)["prompt"] == data["prompt"]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_written_of_nothing(form: Form, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no pairs to write"):
        export([], tmp_path / "out", form=form)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        export([pair(0, "Q")], tmp_path / "out", form="trl")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[Pair]:
        yield pair(0, "Q")
        raise OSError(28, "No space left on device")

    with pytest.raises(ForgeError, match="No space left on device"):
        export(rows(), tmp_path / "out", form="trl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_others_becomes_a_log(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [
        {"prompt": "Q", "chosen": "<think>a</think>yes", "rejected": "no"},
        {"prompt": "Q", "chosen": "x", "rejected": "x"},
        {"instruction": "How many?", "output": "Two."},
    ]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    found = import_pairs(source, tmp_path / "run")
    assert (found.pairs, found.questions, dict(found.refused)) == (
        1,
        1,
        {"its two answers are the same; leave it out": 1},
    )
    made = list(read_rows(tmp_path / "run"))
    assert [(r.number, r.state) for r in made] == [(0, "kept"), (1, "dropped"), (2, "dropped")]
    assert made[0].pair() == next(iter(read_pairs(source)))
    assert made[1].reason.startswith("no_pair: row 2: its two answers are the same")
    questions = read_questions(tmp_path / "run" / "questions.jsonl")
    assert [(q.text, q.gold) for q in questions] == [("How many?", "Two.")]


@pytest.mark.parametrize("content", [b"\x00", b'{"prompt": "Q"}\n'])
def test_an_import_of_nothing_leaves_no_folder(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with suppress(InputError):
        assert import_pairs(source, tmp_path / "run").pairs == 0
    assert not (tmp_path / "run").exists()


def test_an_import_does_not_touch_a_run(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}) + "\n", encoding="utf-8")
    import_pairs(source, tmp_path / "run")
    before = (tmp_path / "run" / "pairs.jsonl").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        import_pairs(source, tmp_path / "run")
    assert (tmp_path / "run" / "pairs.jsonl").read_bytes() == before


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data")
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.json*")), ids=lambda p: p.name)
def test_every_published_file_is_imported_or_refused(path: Path, tmp_path: Path) -> None:
    if path.name == "dataset_info.json":
        with pytest.raises(InputError, match="is one object"):
            import_pairs(path, tmp_path / "run")
        return
    found = import_pairs(path, tmp_path / "run")
    assert found.pairs + found.questions > 0
    direct = [item for item in read_pairs(path) if isinstance(item, Pair)]
    assert found.pairs == len(direct)
    if direct:
        assert list(read_pairs(tmp_path / "run")) == direct
        export(read_pairs_only(tmp_path / "run"), tmp_path / "out", form="trl-chat")
        assert list(read_pairs(tmp_path / "out")) == direct


def test_the_card_says_what_is_in_the_rows_and_does_not_change(row: Row, tmp_path: Path) -> None:
    from preflexor_training.forge.records import to_line

    dropped = replace(row, id="b", number=1, state="dropped", reason="tie: half each")
    hostile = replace(row, id="c", number=2, context=(replace(row.context[0], source="x|[y](z)\x1b[31m"),))
    (tmp_path / "pairs.jsonl").write_text("".join(map(to_line, (row, dropped, hostile))), encoding="utf-8")
    text = card.write_card(tmp_path, date="2026-11-21").read_text(encoding="utf-8")
    assert "3 rows, 2 of them pairs" in text and "| dropped | tie | 1 |" in text and "Date: 2026-11-21" in text
    assert "| a.md | A | unknown | 1 |" in text and "6 samples, 3 accepted (50%), 3 tie" in text
    assert "1 pairs ask nearly what another asks" in text
    assert "\x1b" not in text and r"x\|\[y\](z)" in text
    assert card.write_card(tmp_path, date="2026-11-21").read_text(encoding="utf-8") == text
