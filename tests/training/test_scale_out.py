"""Training in several processes: the same losses and weights as in one, whatever the model is cut into.

PREFLEXOR_SCALE_CASES=all tries DDP and FSDP2, ORPO and EXO, LoRA and full training, tied and untied embeddings.
"""

import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from click.testing import CliRunner
from safetensors.torch import load_file

from preflexor_agents.cli.main import cli
from preflexor_agents.cli.train_scale import LAUNCHES
from preflexor_training.scale import launching, wire
from preflexor_training.tokenized import Masked, Section, TokenizedPair, TokenizedReply
from preflexor_training.torch_backend import learner as learners
from preflexor_training.torch_backend.trainer import PlannedSteps
from tests.training import scaled, stories
from tests.training.scaled import Case

pytestmark = pytest.mark.train
HERE = Path(__file__).parent
CLOSE = 2e-5
"""Relative, after six steps of Adam: sums are taken in another order. The first step's loss agrees to 1e-6."""
SMALL = (
    "adapter.rank=4",
    "adapter.dropout=0.1",
    *(f"phases.{n}.{key}" for n in (0, 1) for key in ("batch_pairs=2", "accumulation=3", "passes=2")),
)
FULL = ("adapter.kind=full", "phases.0.learning_rate=0.0001", "phases.1.learning_rate=0.0001")
SOME = [("tied", "lora", 0, "ddp"), ("tied", "lora", 1, "fsdp2")]
ALL = list(itertools.product(("tied", "untied"), ("lora", "full"), (0, 1), ("ddp", "fsdp2")))
TRIED = ALL if os.environ.get("PREFLEXOR_SCALE_CASES") == "all" else SOME


class Ran(NamedTuple):
    one: Case
    """Trained in this process."""
    two: Case
    """In two processes; of DDP's the second round in this one."""


def launch(script: str, *words: str, timeout_s: int = 560) -> "subprocess.CompletedProcess[str]":
    """Run a script of this folder in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(HERE / script), *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bases; here too, references are computed in groups of few rows, so that two processes can share them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("scale")
    for name in {name for name, *_ in TRIED}:
        stories.base(folder / name, tied=name == "tied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "BATCH_TOK", scaled.BATCH_TOK)
        yield folder


@pytest.fixture(scope="module")
def ran(root: Path) -> dict[tuple[Any, ...], Ran]:
    """All cases, in one process and in two."""
    found: dict[tuple[Any, ...], Ran] = {}
    for key in TRIED:
        base, kind, phase, how = key
        changes = (*SMALL, *(FULL if kind == "full" else ()))
        name = "-".join(map(str, key))
        one = Case(name, str(root / base), str(root / "one" / name), changes, phase, False, (0, 1))
        rounds = (0, 1) if how == "fsdp2" else (0,)
        found[key] = Ran(one, replace(one, folder=str(root / "two" / name), sharded=how == "fsdp2", rounds=rounds))
    file = root / "cases.json"
    file.write_text(json.dumps([asdict(case.two) for case in found.values()]), encoding="utf-8")
    done = launch("scaled.py", str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two in found.values():
        scaled.take(one, learners.open_learner)
        if not two.sharded:
            scaled.take(replace(two, rounds=(1,)), learners.open_learner)
    return found


def told(case: Case) -> list[dict[str, float]]:
    return [line for number in (0, 1) for line in read(case, number)["told"]]


def read(case: Case, number: int) -> Any:
    return json.loads(Path(case.folder, f"{number}.json").read_text(encoding="utf-8"))


def weights(case: Case, number: int) -> dict[str, torch.Tensor]:
    (file,) = Path(case.folder, f"after-{number}").glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
@stories.needs_data
@pytest.mark.parametrize("key", TRIED, ids=lambda key: "-".join(map(str, key)))
def test_two_processes_take_the_steps_of_one(ran: dict[tuple[Any, ...], Ran], key: tuple[Any, ...]) -> None:
    """Three micro-batches in a step, of which two processes cannot take as many each; and dropout."""
    one, two = ran[key]
    assert len(told(one)) == len(told(two)) == 6
    np.testing.assert_allclose(told(two)[0]["loss"], told(one)[0]["loss"], rtol=1e-6)
    for name in ("loss", "nll", "grad_norm", "logp_chosen", "lr", "tokens"):
        a, b = ([line[name] for line in told(case)] for case in (two, one))
        np.testing.assert_allclose(a, b, rtol=CLOSE, atol=CLOSE, err_msg=name)
    held = [read(case, 1)["held"]["margins"] for case in (one, two)]
    np.testing.assert_allclose(held[0], held[1], atol=CLOSE)


@pytest.mark.slow
@stories.needs_data
@pytest.mark.parametrize("key", TRIED, ids=lambda key: "-".join(map(str, key)))
def test_what_was_learnt_is_the_same_after_each_round(ran: dict[tuple[Any, ...], Ran], key: tuple[Any, ...]) -> None:
    """The second round goes on from a checkpoint: of shards with shards again, of two processes in one alone."""
    one, two = ran[key]
    for number in (0, 1):
        a, b = weights(one, number), weights(two, number)
        assert a.keys() == b.keys()
        assert max(float((a[name] - b[name]).abs().max()) for name in a) < 2e-4
    moved = weights(one, 1)
    assert max(float((moved[name] - value).abs().max()) for name, value in weights(one, 0).items()) > 5e-4


@pytest.mark.slow
@stories.needs_data
def test_shards_were_shards_and_references_were_shared(root: Path, ran: dict[tuple[Any, ...], Ran]) -> None:
    notes = [(root / f"process-{n}.txt").read_text(encoding="utf-8").split("\n") for n in (0, 1)]
    for note in notes:
        assert "shards True" in note
        assert "shards False" in note
    referred = [sum(int(line.split()[1]) for line in note if line.startswith("referred")) for note in notes]
    assert min(referred) > 0
    exo = [two for _, two in ran.values() if two.phase == 1]
    most = 2 * scaled.EACH + scaled.HELD
    assert sum(referred) <= most * len(exo), "no row was asked for twice"


@pytest.mark.slow
def test_a_failure_of_one_process_ends_all_with_its_line() -> None:
    done = launch("crew_fails.py", timeout_s=120)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "process 2 of 2" in line]
    assert said == ["process 2 of 2: step 3: out of memory on rows a, b; lower batch_pairs"]


@pytest.mark.slow
def test_bad_input_is_told_once_and_leaves_nothing(tmp_path: Path) -> None:
    words = ["train", "tiny", "--pairs", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "preflexor_agents", *words, "--launch", "cpu_gloo"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert done.stderr == f"preflexor: --pairs {tmp_path / 'none.jsonl'} does not exist; name a file that does\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (3, 1), (4, 2), (3, 2), (1, 2), (5, 4), (2, 8)])
def test_every_micro_batch_counts_the_same_in_the_mean_of_a_step(accumulation: int, processes: int) -> None:
    """Each process divides by its items, DDP by the processes: weights make that the mean over micro-batches."""
    steps = [tuple((row(f"{step}.{micro}"),) for micro in range(accumulation)) for step in range(2)]
    plan = PlannedSteps(steps, first=3, collate=lambda _: {}, processes=processes)
    each = plan.slots // processes
    for step in (3, 4):
        share: dict[str, float] = {}
        for number in range(step * plan.slots, (step + 1) * plan.slots):
            (taken,) = plan.rows(number)
            share[taken.pair.id] = share.get(taken.pair.id, 0.0) + plan.weight(number) / each / processes
        assert share == pytest.approx({f"{step - 3}.{n}": 1 / accumulation for n in range(accumulation)})
    assert len(plan) == 5 * plan.slots


def test_dropout_does_not_ask_which_process_a_micro_batch_is_in() -> None:
    steps = [tuple((row(f"{micro}"),) for micro in range(3))]
    plans = [PlannedSteps(steps, first=1, collate=lambda _: {}, processes=n) for n in (1, 2)]
    seeds = [[plan.seed(plan.slots + micro, 7) for micro in range(3)] for plan in plans]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], plans[0].seed(3, 8), plans[0].seed(6, 7)}) == 5


def test_rows_arrive_as_they_were_sent() -> None:
    first, second = row("a", pause=True), row("ö\ud800")
    steps = ((((first, second)), (first,)), ((second,),))
    again = wire.unpacked(json.loads(json.dumps(wire.packed(steps))))
    assert [[len(micro) for micro in step] for step in again] == [[2, 1], [1]]
    assert again[0][0][0] is again[0][1][0]
    for sent, came in zip((first, second), again[0][0], strict=True):
        assert (came.pair.id, came.pair.round) == (sent.pair.id, sent.pair.round)
        assert came.pair.chosen.sections == sent.pair.chosen.sections
        for a, b in zip(arrays(sent), arrays(came), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", launching.names())
def test_accelerate_reads_each_configuration(name: str) -> None:
    """As `accelerate launch` does, up to the point where it would start processes."""
    file = str(launching.config_file(name))
    words = ["--config_file", file, "--num_processes", "4", "-m", "preflexor_agents", "train", "tiny"]
    assert load_config_from_file(file).num_processes == launching.DEFAULT
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.num_processes == 4
    assert args.multi_gpu == (name in ("multi_gpu", "cpu_gloo"))
    assert args.use_fsdp == (name == "fsdp2")
    assert args.use_deepspeed == name.startswith("deepspeed")
    if name == "fsdp2":
        assert int(args.fsdp_version) == 2
    if args.use_deepspeed:
        assert args.zero_stage == int(name[-1])
        assert set(defaults.deepspeed_config) <= set(vars(args))


def test_the_page_tells_what_accelerate_takes() -> None:
    page = (HERE.parents[1] / "docs" / "training_scale.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.splitlines() if line.startswith("accelerate launch ")]
    assert lines
    for words in lines:
        at = words.index("--config_file") + 1
        words[at] = str(launching.config_file(words[at].removesuffix(".yaml")))
        args, *_ = _validate_launch_command(launch_command_parser().parse_args(words[2:]))
        assert args.module and args.training_script == launching.MODULE
        assert cli.get_command(click.Context(cli), args.training_script_args[0]) is not None


def test_the_command_knows_the_configurations() -> None:
    assert launching.names() == LAUNCHES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "2"], "--processes 2 says how many --launch starts; give --launch too"),
        (
            ["--launch", "fsdp2"],
            "--launch fsdp2 with 2 processes takes as many GPUs, and here are 0; lower --processes",
        ),
        (["--launch", "deepspeed_zero3"], "--launch deepspeed_zero3 needs DeepSpeed: pip install deepspeed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_started_is_told_before(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    done = CliRunner().invoke(cli, ["train", "tiny", *words])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("rank", ["0", "1"])
def test_mlx_is_refused_where_several_processes_were_started(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    done = CliRunner().invoke(cli, ["train", "tiny", "--backend", "mlx"])
    assert done.exit_code == 2
    assert ("--backend mlx trains in one process and was started in 2" in done.output) == (rank == "0")


def row(name: str, *, pause: bool = False) -> Masked:
    """A pair of a few tokens."""
    ids = np.array([5, 6, 7], dtype=np.int32)
    labels = np.array([True, False, True]) if pause else None
    reply = TokenizedReply(ids=ids, sections=(Section("thinking", 0, 1, 2, 3),), labels=labels)
    pair = TokenizedPair(id=name, round=2, prompt=ids[:2], chosen=reply, rejected=TokenizedReply(ids=ids + 1))
    return Masked(pair=pair, chosen=np.array([False, True, True]), rejected=np.ones(3, dtype=np.bool_))


def arrays(row: Masked) -> Sequence[Any]:
    pair = row.pair
    labels = [] if pair.chosen.labels is None else [pair.chosen.labels]
    return [pair.prompt, pair.chosen.ids, pair.rejected.ids, row.chosen, row.rejected, *labels]
