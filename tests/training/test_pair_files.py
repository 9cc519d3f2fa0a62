"""Pairs from files of preferences in every shape, and what is said of rows that are none."""

import json
import sys
from pathlib import Path

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.prompts import Message
from preflexor_training import tables
from preflexor_training.pairs import Pair, Problem, Reply, read_pairs

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "prefs-small"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data")
Q = (Message("user", "Q"),)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(tmp_path: Path, *rows: object) -> list[Pair | Problem]:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_pairs(file))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": [user("Q")], "chosen": [reply("yes")], "rejected": [reply("no")]},
        {"chosen": [user("Q"), reply("yes")], "rejected": [user("Q"), reply("no")]},
        {"prompt": "Q", "chosen": [user("Q"), reply("yes")], "rejected": [user("Q"), reply("no")]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: yes", "rejected": "\n\nHuman: Q\n\nAssistant: no"},
        {"instruction": "Q", "input": "", "output": "yes", "chosen": "yes", "rejected": "no"},
        {"instruction": "Q", "output": ["yes", "no"]},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"value": "yes"}, "rejected": {"value": "no"}},
        {"input": {"messages": [user("Q")]}, "preferred_output": [reply("yes")], "non_preferred_output": [reply("no")]},
        {"prompt": [user("Q")], "chosen": {"answer": "yes"}, "rejected": {"thinking": None, "answer": "no"}},
    ],
    ids=["plain", "turns", "inside", "both", "transcript", "alpaca", "outputs", "sharegpt", "openai", "apart"],
)
def test_one_pair_in_every_shape(tmp_path: Path, row: dict[str, object]) -> None:
    assert read(tmp_path, row) == [Pair(id="1", prompt=Q, chosen=Reply(answer="yes"), rejected=Reply(answer="no"))]


def test_turns_are_kept_as_turns(tmp_path: Path) -> None:
    rows = (
        {"system": "S", "instruction": "Q", "history": [["a", "b"]], "chosen": "yes", "rejected": "no"},
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
                {"from": "human", "value": "Q"},
            ],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
    )
    expected = (Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "Q"))
    assert [pair.prompt for pair in read(tmp_path, *rows) if isinstance(pair, Pair)] == [expected, expected]


def test_tags_in_texts_are_sections_and_white_space_around_them_is_not(tmp_path: Path) -> None:
    chosen = "<|thinking|>\n a\n<|/thinking|>\n<|reflect|>b<|/reflect|>\n\nyes"
    found = read(
        tmp_path,
        {"prompt": "Q", "chosen": chosen, "rejected": "<think>\n\n</think>no"},
        {"prompt": "Q", "chosen": [{**reply("yes"), "reasoning_content": "a"}], "rejected": "a</think>no"},
    )
    assert [(p.chosen, p.rejected) for p in found if isinstance(p, Pair)] == [
        (Reply(thinking="a", reflection="b", answer="yes"), Reply(thinking="", answer="no")),
        (Reply(thinking="a", answer="yes"), Reply(thinking="a", answer="no")),
    ]


def test_tags_in_texts_whose_sections_are_apart_are_only_spelt(tmp_path: Path) -> None:
    answer = "Close it with <|/thinking|>."
    (found,) = read(tmp_path, {"prompt": "Q", "chosen": {"answer": answer}, "rejected": {"answer": "no"}})
    assert isinstance(found, Pair) and found.chosen == Reply(answer=answer)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "chosen": "<think>a", "rejected": "no"}, "of its chosen answer: thinking was not closed"),
        ({"prompt": "Q", "chosen": "yes", "rejected": "<think><|reflect|></think>"}, "of its rejected answer: "),
        ({"prompt": "Q", "chosen": "yes <think>a</think>", "rejected": "no"}, "its sections are mixed"),
        ({"prompt": "Q", "chosen": "<think>a</think>", "rejected": "no"}, "its chosen answer is empty"),
        ({"prompt": "Q", "chosen": "x", "rejected": "x"}, "its two answers are the same"),
        ({"prompt": "Q", "chosen": "x", "rejected": ""}, "it has only a chosen answer"),
        ({"chosen": "yes", "rejected": "no"}, "it has no prompt"),
        ({"prompt": " ", "chosen": "yes", "rejected": "no"}, "it has no prompt"),
        ({"prompt": [reply("Q")], "chosen": "yes", "rejected": "no"}, "its prompt ends with a turn of assistant"),
        ({"prompt": [{"role": "tool", "content": "x"}], "chosen": "a", "rejected": "b"}, "a turn of 'tool'"),
        ({"prompt": "Q", "chosen": [user("a"), reply("b")], "rejected": [user("c"), reply("d")]}, "no single turn"),
        ({"prompt": "Q"}, "it has neither a chosen nor a rejected answer; its keys: prompt"),
        ({"schema": 1}, "its keys: schema"),
        ({"schema": 1, "state": "kept"}, "it is damaged"),
    ],
)
def test_what_is_no_pair_is_said_in_a_line(tmp_path: Path, row: object, reason: str) -> None:
    (found,) = read(tmp_path, row)
    assert isinstance(found, Problem) and found.row == 1
    assert reason in found.reason and "\n" not in str(found)


def test_a_row_that_is_no_json_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = json.dumps({"prompt": "Q", "chosen": "yes", "rejected": "no"})
    file.write_text(f"{good}\nnonsense\n{good}\n", encoding="utf-8")
    assert [type(found) for found in read_pairs(file)] == [Pair, Problem, Pair]


def test_ids_are_kept_and_made_unique(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": "yes", "rejected": "no"}
    found = read(tmp_path, {**row, "id": "a", "round": 2}, {**row, "id": "a"}, row, {**row, "id": "3"})
    assert [(p.id, p.round) for p in found if isinstance(p, Pair)] == [("a", 2), ("a#2", 0), ("3", 0), ("3#4", 0)]


def test_labelled_answers_are_paired_where_a_prompt_has_both(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"prompt": "Q", "completion": "good", "label": True},
        {"prompt": "other", "completion": "alone", "label": "false"},
        {"messages": [user("Q"), reply("bad")], "label": False},
        {"prompt": "Q", "completion": "good too", "kto_tag": 1},
        {"prompt": "Q", "completion": "good too", "label": 0},
    )
    assert found[0] == Pair(id="1+3", prompt=Q, chosen=Reply(answer="good"), rejected=Reply(answer="bad"))
    assert [str(problem) for problem in found[1:]] == [
        "row 5: row 4 labels the same answer the other way; leave both out",
        "row 2: no other row has a good answer to its prompt; add one or leave it out",
    ]


def test_an_instruction_with_one_answer_is_known_as_a_question(tmp_path: Path) -> None:
    found = read(tmp_path, {"instruction": "Q", "input": "x", "output": "yes"}, {"messages": [user("Q"), reply("yes")]})
    assert [(p.question, p.answer) for p in found if isinstance(p, Problem)] == [("Q\n\nx", "yes"), ("Q", "yes")]
    assert all("forge run --questions" in str(problem) for problem in found)


@pytest.mark.parametrize("content", [b"", b"\x00", b"PAR1 and no more", b'{\n "a": {\n "b": 1}}\n', b"[1, "])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rows"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged|neither|is one object \(a…\), not rows"):
        list(read_pairs(file))


def test_a_folder_without_rows_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without pairs\.jsonl and without a saved dataset"):
        list(read_pairs(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_pairs(tmp_path / "gone"))
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        list(read_pairs(tmp_path))


def test_a_dataset_of_one_split_is_read_and_of_several_one_is_to_be_named(tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped]

    rows = [{"prompt": "Q", "chosen": "yes", "rejected": "no"}]
    with tables.library("writing"):
        train, test = datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows)
        datasets.DatasetDict({"train": train}).save_to_disk(str(tmp_path / "one"))
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "two"))
    assert [type(found) for found in read_pairs(tmp_path / "one")] == [Pair]
    assert [type(found) for found in read_pairs(tmp_path / "two" / "test")] == [Pair]
    with pytest.raises(InputError, match=r"has the splits train, test; name one, as .*two/train"):
        list(read_pairs(tmp_path / "two"))


@pytest.mark.parametrize(("missing", "place"), [("pyarrow", "rows.parquet"), ("datasets", "folder")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    missing: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1....PAR1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "state.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"takes .*pip install 'preflexor-agents\[train\]'"):
        list(read_pairs(tmp_path / place))


@needs_data
@pytest.mark.parametrize(
    ("name", "pairs", "problems"),
    [
        ("rasbt/ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json", 1094, 6),
        ("rasbt/ch07/01_main-chapter-code/instruction-data.json", 0, 1100),
        ("llamafactory/dpo_en_demo.json", 300, 0),
        ("llamafactory/kto_en_demo.json", 1, 298),
        ("llamafactory/v1_dpo_demo.jsonl", 10, 0),
        ("llamafactory/v1_sft_demo.jsonl", 0, 500),
    ],
)
def test_published_files_are_read_whole(name: str, pairs: int, problems: int) -> None:
    found = list(read_pairs(DATA / name))
    assert sum(isinstance(f, Pair) for f in found) == pairs
    assert [f for f in found if isinstance(f, Problem) and not f.question and "label" in f.reason] == []
    assert sum(isinstance(f, Problem) for f in found) == problems
    assert all(f.question for f in found if isinstance(f, Problem) and "one answer" in f.reason)


@needs_data
def test_an_index_of_datasets_is_no_file_of_rows() -> None:
    with pytest.raises(InputError, match="is one object"):
        list(read_pairs(DATA / "llamafactory" / "dataset_info.json"))
    with pytest.raises(InputError, match="neither"):
        list(read_pairs(DATA / "llamafactory" / "LICENSE"))
