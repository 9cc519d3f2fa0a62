"""Runs that take seconds: a model of some ten thousand weights with nano's tokenizer, rows about numbers, and kills."""

import json
import multiprocessing
import os
import random
import signal
import time
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
    "phases.0.checkpoint_every=3",
    "phases.1.checkpoint_every=3",
    "phases.0.rows_per_round=12",
    "phases.1.rows_per_round=12",
    "phases.0.passes=2",
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


def small_base(out: Path) -> Path:
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
        max_position_embeddings=512,
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
    context: ForkServerContext, target: Callable[..., object], args: Sequence[Any], *, out: Path, lines: int
) -> bool:
    """Run `target` in a process and kill it when metrics.jsonl has so many lines; whether it was killed."""
    process = context.Process(target=target, args=tuple(args))
    process.start()
    while process.is_alive() and _lines(out / "metrics.jsonl") < lines:
        process.join(0.002)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def run_torch(recipe: Recipe, out: Path, resume: bool) -> None:  # noqa: FBT001 - a target of a process
    """A run with the real learner."""
    run(recipe, out, opener("trl"), resume=resume)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
