"""Runs that take seconds: a model of some ten thousand weights with nano's tokenizer, rows about numbers, and kills."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from preflexor_training import bases, recipes, starting
from preflexor_training.learner import Learner
from preflexor_training.phases import opener
from preflexor_training.recipes import Recipe
from preflexor_training.rounds import Work, train
from preflexor_training.sources import open_source

CHANGES = (
    "phases.0.checkpoint_every=2",
    "phases.1.checkpoint_every=2",
    "phases.0.rows_per_round=10",
    "phases.1.rows_per_round=10",
    "phases.0.passes=2",
    "phases.1.passes=2",
    "adapter.dropout=0.1",
)


class Quiet:
    """A `schedule.Watch` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[tuple[str, int, int, str]] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
        self.shown.append((what, done, total, note))


def small_base(out: Path, *, context: int = 96) -> Path:
    """An untrained Llama of two layers."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(bases.resolve("nano"))
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def write_pairs(path: Path, count: int = 40) -> Path:
    """Rows whose two sides differ in length and words."""
    rows = [
        {
            "id": f"row-{n}",
            "prompt": f"What is {n} and {n + 1}?",
            "chosen": f"<|thinking|>\nAdd {n} {'and one ' * (n % 4)}twice.\n<|/thinking|>\nIt is {2 * n + 1}.",
            "rejected": f"<|thinking|>\nHard.\n<|/thinking|>\nIt is {n}, I think.",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_recipe(base: Path, pairs: Path, *changes: str) -> Recipe:
    """The tiny recipe over them, with dropout."""
    made = recipes.load("tiny", changes=[*CHANGES, *changes])
    return starting.resolved(made, starting.Given(base=str(base), pairs=str(pairs)))


def run(
    recipe: Recipe,
    out: Path,
    open_learner: Callable[..., Learner],
    *,
    resume: bool = False,
    watch: Quiet | None = None,
    draw: Callable[[Path], object] = lambda _: None,
) -> Path:
    """Begin a run, or go on with one, in this process."""
    quiet = watch or Quiet()
    ready = (starting.resume if resume else starting.begin)(recipe, out, "trl")
    with closing(ready.writer), closing(open_source(recipe, out, quiet)) as source:
        return train(Work(ready, source, open_learner, quiet, lambda _: None, draw))


def processes(*modules: str) -> ForkServerContext:
    """What starts processes that have imported the heavy libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *modules])
    return context


def killed(
    context: ForkServerContext, target: Callable[..., object], args: Sequence[Any], *, out: Path, at: int
) -> bool:
    """Run `target` in a process and kill it when a run has come so far, as `marks` counts; whether it was killed."""
    process = context.Process(target=target, args=tuple(args))
    process.start()
    while process.is_alive() and marks(out) < at:
        process.join(0.001)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def marks(out: Path) -> int:
    """How far a run has come: its files, and the lines in those that grow. Only its end has the most."""
    try:
        files = [path for path in out.rglob("*") if path.is_file()]
        return len(files) + sum(path.read_bytes().count(b"\n") for path in files if path.suffix == ".jsonl")
    except FileNotFoundError:
        return 0


def run_torch(recipe: Recipe, out: Path, resume: bool) -> None:
    """A run with the real learner, in a process of its own."""
    run(recipe, out, opener("trl"), resume=resume)


def facts(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What a run wrote down, without what differs from one run to the next: times."""
    timed = ("t_s", "seconds", "tokens_per_s")
    return {
        name: [
            {key: value for key, value in json.loads(line).items() if key not in timed}
            for line in (out / name).read_text(encoding="utf-8").splitlines()
        ]
        for name in ("metrics.jsonl", "samples.jsonl", "audit.jsonl", "pairs.jsonl", "rounds.jsonl")
    }
