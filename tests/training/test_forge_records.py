"""A row of a forge run as a line of its log, both ways, and what is no row."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.errors import InputError
from preflexor_agents.prompts import Message
from preflexor_training.forge.records import (
    SCHEMA,
    CallRecord,
    Row,
    Span,
    from_json,
    from_line,
    read_rows,
    to_json,
    to_line,
)
from preflexor_training.pairs import Pair, Reply

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
REPLIES = st.builds(Reply, thinking=st.none() | TEXTS, reflection=st.none() | TEXTS, answer=TEXTS.map("said ".__add__))
SPANS = st.builds(
    Span,
    chunk_id=st.integers(0, 9),
    source=TEXTS,
    title=TEXTS,
    page=st.none() | st.integers(1, 9),
    start=st.integers(0, 9),
    end=st.integers(10, 99),
    sha256=st.just("0" * 64),
)
CALLS = st.builds(
    CallRecord,
    step=TEXTS,
    who=st.sampled_from(["teacher", "student", "judge"]),
    model=TEXTS,
    adapter_sha256=TEXTS,
    prompt_sha256=TEXTS,
    seed=st.integers(0, 2**63),
    tokens_prompt=st.integers(0, 99),
    tokens_cached=st.integers(0, 99),
    tokens_generated=st.integers(0, 99),
    seconds=st.floats(0, 99),
    tries=st.integers(1, 9),
    error=TEXTS,
)
ROWS = st.builds(
    Row,
    id=TEXTS,
    number=st.integers(0, 99),
    state=st.sampled_from(["dropped", "failed"]),
    reason=TEXTS.map("kind: ".__add__),
    variant=st.sampled_from(["plain", "graph", "reflection", "typed", "direct"]),
    phase=st.sampled_from([1, 2]),
    round=st.integers(0, 9),
    seed=st.integers(),
    pack=TEXTS,
    question=TEXTS,
    gold=TEXTS,
    prompt=st.lists(st.builds(Message, st.sampled_from(["system", "user"]), TEXTS), max_size=2).map(tuple),
    categories=st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
    chosen=REPLIES,
    rejected=REPLIES,
    rejected_kind=st.none() | st.sampled_from(["student", "perturbed"]),
    context=st.lists(SPANS, max_size=2).map(tuple),
    scores=st.dictionaries(TEXTS, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    calls=st.lists(CALLS, max_size=2).map(tuple),
)


@pytest.fixture
def kept() -> Row:
    return Row(
        id="a",
        number=3,
        state="kept",
        variant="plain",
        phase=1,
        round=2,
        seed=0,
        pack="general",
        question="What holds?",
        prompt=(Message("user", "What holds? Use <|thinking|>."),),
        chosen=Reply(thinking="Hooks do.", answer="Hooks."),
        rejected=Reply(answer="Glue."),
    )


@given(ROWS)
def test_a_row_comes_back_from_its_line_as_it_was(row: Row) -> None:
    assert from_json(to_json(row)) == row
    assert from_line(to_line(row).encode()) == row
    assert to_line(row).count("\n") == 1


def test_a_kept_row_is_a_pair(kept: Row) -> None:
    assert from_json(to_json(kept)).pair() == Pair(
        id="a", prompt=kept.prompt, chosen=kept.chosen, rejected=kept.rejected, round=2
    )


def test_a_dropped_row_is_no_pair(kept: Row) -> None:
    with pytest.raises(InputError, match=r"row 3 was dropped \(tie: all\); only kept rows are pairs"):
        replace(kept, state="dropped", reason="tie: all").pair()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": SCHEMA + 1}, "update preflexor-agents"),
        ({"schema": True}, "no row of a forge run"),
        ({"number": "3"}, "number is '3'"),
        ({"number": -1}, "count from 0"),
        ({"state": "gone"}, "state is 'gone'"),
        ({"state": "failed"}, "for no reason"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"chosen": {"answer": "x", "tag": "y"}}, "unknown field 'chosen.tag'"),
        ({"chosen": {"answer": " "}}, "has a chosen and a rejected answer"),
        ({"rejected": {"thinking": "Hooks do.", "answer": "Hooks."}}, "answers are the same"),
        ({"prompt": []}, "ends with a turn of the user"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "ends with a turn of the user"),
        ({"scores": {"margin": float("nan")}}, "damaged"),
        ({"context": [{"chunk_id": 1}]}, "damaged"),
        ({"calls": {}}, "calls is"),
        ({"id": None}, "id is None"),
    ],
)
def test_what_a_run_does_not_write_is_refused(kept: Row, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refused:
        from_json({**to_json(kept), **change}, where="line 7")
    assert str(refused.value).startswith("line 7 ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"\xff\xfe", b"1" * 5000, b"[" * 100_000])
def test_what_is_no_json_object_is_refused(line: bytes) -> None:
    with pytest.raises(InputError, match="the line"):
        from_line(line)


def test_half_characters_are_replaced_so_that_the_log_stays_utf_8(kept: Row) -> None:
    line = to_line(replace(kept, question="half \ud800 done"))
    assert from_line(line.encode("utf-8")).question == "half \ufffd done"


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path, kept: Row) -> None:
    (tmp_path / "pairs.jsonl").write_text(to_line(kept) + to_line(kept)[:-9], encoding="utf-8")
    assert list(read_rows(tmp_path)) == [kept]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, kept: Row) -> None:
    log = tmp_path / "pairs.jsonl"
    log.write_text(to_line(kept) + json.dumps({"schema": 1}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2 of .*pairs\.jsonl is damaged: id is"):
        list(read_rows(log))


def test_a_missing_log_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a forge run's folder"):
        list(read_rows(tmp_path))
