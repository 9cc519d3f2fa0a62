"""The folder of a training run: whole files, lines that were really reached, one process at a time."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.preference_rows import open_rows
from preflexor_agents.prompts import Message
from preflexor_training.pair_log import Origin, PairLog, Refresh
from preflexor_training.pairs import Pair, Reply, read_pairs
from preflexor_training.run_writer import RunOrigin, RunWriter, State

ORIGIN = RunOrigin(backend="trl", base="nano", base_sha256="1", data="rows.jsonl", data_sha256="2")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunWriter]:
    writer = RunWriter.begin(tmp_path / "run", "seed = 1\n", ORIGIN)
    yield writer
    writer.close()


def pair(name: str, answer: str = "Yes.") -> Pair:
    chosen = Reply(thinking="Is it?", answer=answer)
    return Pair(id=name, prompt=(Message("user", "Is it so?"),), chosen=chosen, rejected=Reply(answer="No."))


def refresh(round_: int, *names: str) -> Refresh:
    made = tuple(pair(name) for name in names)
    return Refresh(phase=0, round=round_, train=made[1:], held_out=made[:1], origin=Origin(generator="rows.jsonl"))


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_what_is_begun_can_be_resumed_where_it_was(run: RunWriter) -> None:
    state = State(phase=1, round=2, rounds=5, step=40, phase_step=10, margins=(0.5, None), seconds=3.5)
    run.save(state)
    run.close()
    again = RunWriter.resume(run.folder)
    again.close()
    assert again.state == state


def test_a_folder_in_use_is_refused_with_the_way_on(run: RunWriter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already; go on with it by --resume"):
        RunWriter.begin(run.folder, "", ORIGIN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists already; name another by --out"):
        RunWriter.begin(tmp_path / "mine", "", ORIGIN)


def test_what_a_kill_in_the_beginning_leaves_does_not_stand_in_the_way(tmp_path: Path) -> None:
    for name in ("config.toml", "run.json.partial", "rounds.jsonl", "pairs.jsonl"):
        (tmp_path / name).write_text("", encoding="utf-8")
    RunWriter.begin(tmp_path, "", ORIGIN).close()


def test_a_second_process_is_kept_out(run: RunWriter) -> None:
    code = f"import pathlib, preflexor_training.run_writer as w; w.RunWriter.resume(pathlib.Path({str(run.folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: another process" in done.stderr


def test_lines_after_the_last_edge_go_unless_a_checkpoint_holds_their_steps(run: RunWriter) -> None:
    for step in range(1, 9):
        run.metric({"step": step, "round": 1 + step // 4, "t_s": step / 2, "loss": 1.0})
    run.metric({"step": 3, "round": 1, "t_s": 9.0, "held_out_margin": 1.0})
    run.metric({"step": 8, "round": 2, "t_s": 9.5, "held_out_margin": 1.0})
    run.sample({"step": 8, "round": 2, "prompt": "p", "text": "t"})
    run.save(replace(run.state, rounds=1, step=3))
    assert run.cut(6) == 9.0
    assert steps(run.folder) == [1, 2, 3, 4, 5, 6, 3]
    assert (run.folder / "samples.jsonl").read_text(encoding="utf-8") == ""
    run.metric({"step": 7, "round": 2, "t_s": 10.0, "loss": 1.0})
    assert steps(run.folder)[-1] == 7


def test_half_a_line_is_cut_off(run: RunWriter) -> None:
    run.metric({"step": 1, "round": 1, "t_s": 1.0, "loss": 1.0})
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "rou')
    run.cut(5)
    assert steps(run.folder) == [1]


def test_a_damaged_state_is_one_line(run: RunWriter) -> None:
    run.close()
    (run.folder / "state.json").write_text('{"phase": ', encoding="utf-8")
    with pytest.raises(InputError, match=r"state.json is damaged .*begin another run"):
        RunWriter.resume(run.folder)


def test_rows_come_back_as_they_were_logged(run: RunWriter) -> None:
    run.log.append(refresh(0, "a", "b", "c"))
    run.log.append(refresh(1, "d", "e"))
    run.close()
    again = PairLog(run.folder)
    assert again.read(0, 0) == refresh(0, "a", "b", "c") and not again.has(1, 0)
    assert again.read(0, 1) == refresh(1, "d", "e")
    again.close()


def test_the_log_is_a_file_of_preferences_like_any_other(run: RunWriter) -> None:
    run.log.append(refresh(0, "a", "b"))
    log = run.folder / "pairs.jsonl"
    assert list(read_pairs(log)) == [pair("b"), pair("a")]
    assert open_rows(log).row(0).rejected == "No."


def test_half_a_refresh_is_no_refresh(run: RunWriter) -> None:
    run.log.append(refresh(0, "a", "b"))
    size = (run.folder / "pairs.jsonl").stat().st_size
    run.log.append(refresh(1, "c", "d"))
    run.close()
    index = run.folder / "rounds.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    again = PairLog(run.folder)
    assert (again.has(0, 0), again.has(0, 1)) == (True, False)
    assert (run.folder / "pairs.jsonl").stat().st_size == size
    again.append(refresh(1, "e", "f"))
    assert again.read(0, 1) == refresh(1, "e", "f")
    again.close()


def test_rows_that_were_changed_afterwards_are_refused(run: RunWriter) -> None:
    run.log.append(refresh(0, "a", "b"))
    log = run.folder / "pairs.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace("Yes.", "Nay."), encoding="utf-8")
    with pytest.raises(InputError, match=r"was changed after the rows of phase 1, round 1"):
        run.log.read(0, 0)


def test_a_full_disk_leaves_the_log_as_it_was(run: RunWriter) -> None:
    run.log.append(refresh(0, "a", "b"))
    before = (run.folder / "pairs.jsonl").read_bytes()
    long = replace(refresh(1, "c"), train=(pair("d", "long " * 5000),))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4000, hard))
    try:
        with pytest.raises(PreflexorError, match=r"pairs.jsonl cannot be written: .*--resume"):
            run.log.append(long)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run.folder / "pairs.jsonl").read_bytes() == before
    run.log.append(long)
    assert run.log.read(0, 1) == long


def test_half_characters_do_not_break_the_log(run: RunWriter) -> None:
    odd = replace(refresh(0, "a"), train=(pair("b", "odd \ud800 end"),))
    run.log.append(odd)
    assert run.log.read(0, 0).train[0].chosen.answer == "odd \ufffd end"
