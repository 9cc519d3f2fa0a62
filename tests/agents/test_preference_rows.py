"""Preference rows in the shapes that are about."""

import json
from pathlib import Path

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.preference_rows import Row, open_rows, row_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "prefs-small"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": [user("Q")], "chosen": [reply("yes")], "rejected": [reply("no")]},
        {"chosen": [user("Q"), reply("yes")], "rejected": [user("Q"), reply("no")]},
        {"instruction": "Q", "input": "", "output": "yes", "chosen": "yes", "rejected": "no"},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"value": "yes"}, "rejected": {"value": "no"}},
        {
            "chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "Q"}]}, reply("yes")],
            "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "Q"}]}, reply("no")],
        },
        {"question": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": "Q", "chosen": [user("Q"), reply("yes")], "rejected": [user("Q"), reply("no")]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: yes", "rejected": "\n\nHuman: Q\n\nAssistant: no"},
        {"instruction": "Q", "output": ["yes", "no"]},
        {"input": {"messages": [user("Q")]}, "preferred_output": [reply("yes")], "non_preferred_output": [reply("no")]},
        {"prompt": [user("Q")], "chosen": {"answer": "yes", "thinking": None}, "rejected": {"answer": "no"}},
    ],
    ids=[
        *("plain", "turns", "prompt inside", "alpaca", "sharegpt", "parts", "question"),
        *("prompt twice", "transcript", "two outputs", "openai", "sections apart"),
    ],
)
def test_one_preference_in_every_shape(data: dict[str, object]) -> None:
    row = row_of(data, where="row 1")
    assert (row.prompt, row.chosen, row.rejected) == ("Q", "yes", "no")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"prompt": "Q", "completion": "yes", "label": True}, ("Q", "yes", "")),
        ({"prompt": "Q", "completion": "no", "label": False}, ("Q", "", "no")),
        ({"messages": [user("Q"), reply("no")], "label": False}, ("Q", "", "no")),
    ],
)
def test_a_labelled_answer_stands_on_its_side(data: dict[str, object], expected: tuple[str, str, str]) -> None:
    assert row_of(data, where="row 1")[:3] == expected


def test_context_scores_and_the_rest_are_kept_apart() -> None:
    row = row_of(
        {
            "prompt": "Q",
            "chosen": "a",
            "rejected": "b",
            "context": ["one", "two"],
            "score": {"chosen": 0.9, "rejected": 2},
            "nan": float("nan"),
            "model": "nano",
            "seed": 7,
        },
        where="row 1",
    )
    assert row == Row(
        "Q", "a", "b", "one\n\ntwo", {"score.chosen": 0.9, "score.rejected": 2.0, "seed": 7.0}, {"model": "nano"}
    )


def test_a_row_of_a_run_shows_its_sections_between_tags_and_where_its_context_stands() -> None:
    span = {"chunk_id": 1, "source": "a.md", "title": "Nacre", "page": 3, "start": 5, "end": 9, "sha256": "0"}
    data = {
        "schema": 1,
        "state": "kept",
        "prompt": [user("Q")],
        "chosen": {"thinking": "hm", "reflection": "well", "answer": "yes"},
        "rejected": {"thinking": None, "reflection": None, "answer": "no"},
        "context": [span],
        "scores": {"margin": 0.5},
    }
    row = row_of(data, where="row 1")
    assert row.chosen == "<|thinking|>\nhm\n<|/thinking|>\n<|reflect|>\nwell\n<|/reflect|>\nyes"
    assert (row.rejected, row.context) == ("no", "Nacre (a.md, page 3, characters 5-9)")
    assert row.numbers["scores.margin"] == 0.5 and row.notes["state"] == "kept"


def test_a_row_that_a_run_gave_up_is_shown_with_its_reason() -> None:
    row = row_of({"state": "dropped", "reason": "tie: half each", "chosen": {"answer": ""}}, where="row 1")
    assert (row.chosen, row.rejected, row.notes["reason"]) == ("", "", "tie: half each")


def test_half_a_character_is_replaced() -> None:
    row = row_of({"prompt": "Q\ud800", "chosen": [reply("a\udfff")], "rejected": "b"}, where="row 1")
    assert row[:3] == ("Q\ufffd", "a\ufffd", "b")


def test_equal_answers_are_still_answers() -> None:
    row = row_of({"chosen": [user("Q"), reply("x")], "rejected": [user("Q"), reply("x")]}, where="row 1")
    assert row[:3] == ("Q", "x", "x")


@pytest.mark.parametrize("data", [3, [], {"prompt": "Q"}, {"chosen": "", "rejected": " "}, {"chosen": None}])
def test_what_holds_no_preference_is_said(data: object) -> None:
    with pytest.raises(InputError, match=r"^row 9 ") as caught:
        row_of(data, where="row 9")
    assert "\n" not in str(caught.value)


def test_json_lines_are_read_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Q{i}", "chosen": "a", "rejected": "b"} for i in range(3)]
    file.write_text("\n\n".join(json.dumps(r) for r in rows) + '\nnonsense\n{"half', encoding="utf-8")
    opened = open_rows(file)
    assert len(opened) == 4
    assert [opened.row(i).prompt for i in range(3)] == ["Q0", "Q1", "Q2"]
    with pytest.raises(InputError, match=r"row 4 of rows\.jsonl is no JSON"):
        opened.row(3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither JSON lines nor"),
        (b"\x00\xff", "neither"),
        (b"[1, ", "is damaged"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_rows(file)


def test_the_folder_of_a_run_is_its_log(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n', encoding="utf-8")
    assert open_rows(tmp_path).row(0)[:3] == ("Q", "a", "b")


def test_one_object_over_several_lines_is_no_file_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_text('{\n "one": {\n "file_name": "a.json"}}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"is one object \(one…\), not rows"):
        open_rows(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.jsonl"):
        with pytest.raises(InputError, match="cannot be read"):
            open_rows(path)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("rasbt/ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json", 1100),
        ("llamafactory/dpo_en_demo.json", 300),
        ("llamafactory/kto_en_demo.json", 300),
        ("llamafactory/v1_dpo_demo.jsonl", 10),
    ],
)
def test_published_files_are_read_whole(name: str, rows: int) -> None:
    opened = open_rows(DATA / name)
    assert len(opened) == rows
    found = [opened.row(i) for i in range(len(opened))]
    assert all(row.prompt for row in found)
    assert all(row.chosen or row.rejected for row in found)
    if "kto" not in name:
        assert all(row.chosen and row.rejected for row in found)
