"""A learner without a model: its weights are one number, and it owns real files.

A step adds to the number what its rows hash to; what a kill leaves behind is what a real one leaves: checkpoints.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_training.learner import Held, Metrics
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.tokenized import Masked, Step


class FakeLearner:
    def __init__(self, recipe: Recipe, phase: Phase, base: Path, folder: Path) -> None:
        self.phase, self.base, self.folder = phase, base, folder
        self.every = phase.checkpoint_every
        self.referred: list[str] = []
        self.closed = False
        folder.mkdir(parents=True, exist_ok=True)
        found = folder / "checkpoint.json"
        self.step, self.weight = 0, int(sha256(model_of(base).encode()).hexdigest()[:8], 16)
        if found.exists():
            self.step, self.weight = json.loads(found.read_text(encoding="utf-8"))

    def refer(self, rows: Sequence[Masked]) -> None:
        self.referred += [row.pair.id for row in rows]

    def train(self, steps: Sequence[Step], *, first: int, on_step: Callable[[int, Metrics], None]) -> None:
        for n, step in enumerate(steps, first):
            if n < self.step:
                continue
            rows = [row for batch in step for row in batch]
            drawn = sha256(repr([(r.pair.id, r.chosen.tobytes(), r.rejected.tobytes()) for r in rows]).encode())
            self.weight = (self.weight * 31 + int(drawn.hexdigest()[:8], 16)) % 2**61
            self.step = n + 1
            tokens = float(sum(len(r.pair.prompt) + len(r.chosen) + len(r.rejected) for r in rows))
            metrics = {"loss": 1 / (n + 1), "margin": n / 10, "accuracy": 0.5, "tokens": tokens, "seconds": 0.01}
            try:
                on_step(n, metrics)
            except KeyboardInterrupt:
                self.save()
                raise
            if self.every and self.step % self.every == 0:
                self.save()
        self.save()

    def evaluate(self, rows: Sequence[Masked]) -> Held:
        margins = tuple((self.step % 7) / 7 + len(row.pair.id) / 100 for row in rows)
        return Held(loss=1.0, margins=margins)

    def student(self) -> Backend:
        return ScriptedBackend(lambda _: f"Weight {self.weight}.", spec="student")

    def save_adapter(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text(json.dumps([self.step, self.weight]), encoding="utf-8")

    def load_adapter(self, folder: Path) -> None:
        self.step, self.weight = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))

    def merge(self, folder: Path) -> None:
        shutil.copytree(self.base, folder)
        (folder / "weight.txt").write_text(str(self.weight), encoding="utf-8")

    def fingerprint(self) -> str:
        return sha256(str(self.weight).encode()).hexdigest()

    def close(self) -> None:
        self.closed = True

    def save(self) -> None:
        partial = self.folder / "checkpoint.partial"
        partial.write_text(json.dumps([self.step, self.weight]), encoding="utf-8")
        partial.replace(self.folder / "checkpoint.json")


def open_learner(recipe: Recipe, phase: Phase, base: Path, folder: Path) -> FakeLearner:
    return FakeLearner(recipe, phase, base, folder)


def model_of(folder: Path) -> str:
    """What tells models apart here."""
    file = folder / "weight.txt"
    return file.read_text(encoding="utf-8") if file.exists() else "base"
