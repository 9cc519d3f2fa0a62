"""What both phases teach a real pretrained model of 260 thousand weights, from real pairs, on a CPU.

Tags are added, Phase I (ORPO) and Phase II (EXO, answers only) follow, and pairs that were held out are tried after
each: tied and untied embeddings, LoRA and all weights. Needs the shared data. `--small` is the test's configuration.
"""

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True, slots=True)
class Phase:
    """What a phase came to. Losses and margins are means of its first and last tenth of steps."""

    loss: tuple[float, float]
    margin: tuple[float, float]
    held_out: tuple[int, int]
    """Right, of."""
    before: int
    """Right before the phase."""
    merged: float
    """Largest difference of a logit between base and adapter, and the merged model, both in float64."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One configuration."""

    tied: bool
    kind: str
    phases: tuple[Phase, ...]
    still_tied: bool
    seconds: float


def show(
    folder: Path, *, tied: bool, kind: str, train: int, held_out: int, passes: tuple[int, int], rank: int = 16
) -> Shown:
    """Train both phases in a folder.

    Args:
        folder: to work in.
        tied: whether input and output embeddings are one.
        kind: `lora` or `full`.
        train: pairs to train on.
        held_out: pairs to try.
        passes: over the pairs, of each phase.
        rank: of LoRA.
    """
    from transformers import AutoModelForCausalLM

    from preflexor_training.batches import plan
    from preflexor_training.phases import is_tied, leave_model
    from preflexor_training.torch_backend.learner import open_learner
    from tests.training import stories

    began = time.perf_counter()
    base = stories.base(folder / "base", tied=tied)
    pairs = stories.pairs(train + held_out)
    found = []
    for number in range(2):
        rates = ("0.002", "0.0005") if kind == "lora" else ("0.001", "0.0002")
        recipe = stories.recipe(
            base,
            f"adapter.kind={kind}",
            f"adapter.rank={rank}",
            f"adapter.alpha={2 * rank}",
            f"phases.{number}.learning_rate={rates[number]}",
            f"phases.{number}.passes={passes[number]}",
            f"phases.{number}.rounds=1",
            f"phases.{number}.rows_per_round=0",
            f"phases.{number}.batch_pairs=8",
            f"phases.{number}.checkpoint_every=0",
        )
        phase = recipe.phases[number]
        rows = stories.rows(recipe, pairs, phase=number)
        learner = open_learner(recipe, phase, base, folder / phase.name)
        before = sum(margin > 0 for margin in learner.evaluate(rows[train:]).margins)
        steps = plan(
            [row.pair for row in rows[:train]],
            (),
            phase=phase,
            mask=recipe.mask(phase),
            round=0,
            seed=0,
            bucket_batches=recipe.step.bucket_batches,
        )
        told: list[dict[str, float]] = []
        learner.train(steps, first=0, on_step=lambda _, metrics, out=told: out.append(dict(metrics)))
        right = sum(margin > 0 for margin in learner.evaluate(rows[train:]).margins)
        model = folder / f"{phase.name}-model"
        leave_model(learner.merge, base=base, out=model)
        merged = AutoModelForCausalLM.from_pretrained(model)
        difference = abs(stories.logits(merged, rows[-1]) - stories.logits(learner._ready(), rows[-1])).max()
        tenth = max(1, len(told) // 10)
        found.append(
            Phase(
                loss=(_mean(told[:tenth], "loss"), _mean(told[-tenth:], "loss")),
                margin=(_mean(told[:tenth], "margin"), _mean(told[-tenth:], "margin")),
                held_out=(right, held_out),
                before=before,
                merged=float(difference),
            )
        )
        learner.close()
        base = model
    return Shown(tied, kind, tuple(found), is_tied(base) == tied, time.perf_counter() - began)


def _mean(told: list[dict[str, float]], name: str) -> float:
    return sum(metrics[name] for metrics in told) / len(told)


def table(shown: list[Shown]) -> str:
    """As Markdown."""
    from preflexor_agents.evaluation.statistics import wilson

    lines = [
        "| embeddings | trained | phase | loss | margin, nats | held out right | 95 % interval | merged differs by |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for one in shown:
        for name, phase in zip(("I, ORPO", "II, EXO"), one.phases, strict=True):
            right, of = phase.held_out
            share = wilson(right, of)
            began = f"{phase.before} → " if name == "I, ORPO" else ""  # Phase II begins at margins of 0
            tied = "tied" if one.tied else "untied"
            lines.append(
                f"| {tied} | {one.kind} | {name} | {phase.loss[0]:.3f} → {phase.loss[1]:.3f} |"
                f" {phase.margin[0]:.3f} → {phase.margin[1]:.3f} | {began}{right} of {of} |"
                f" {share.low:.2f} to {share.high:.2f} | {phase.merged:.1e} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--passes", type=int, nargs=2, default=(3, 2))
    parser.add_argument("--small", action="store_true", help="a few pairs and one configuration, to see that it runs")
    given = parser.parse_args()
    from tests.training import stories

    if not stories.PREFERENCES.exists():
        print("the shared preference data is not here; nothing to show")
        return 0
    sizes: dict[str, Any] = {"train": given.pairs, "held_out": given.held_out, "passes": tuple(given.passes)}
    if given.small:
        sizes = {"train": 24, "held_out": 8, "passes": (1, 1)}
    shown = []
    cases = [(True, "lora")] if given.small else [(tied, kind) for tied in (True, False) for kind in ("lora", "full")]
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tied, kind in cases:
            one = show(Path(work) / f"{tied}-{kind}", tied=tied, kind=kind, **sizes)
            print(f"{'tied' if tied else 'untied'}, {kind}: {one.seconds:.0f} s", file=sys.stderr)
            shown.append(one)
    print(table(shown))
    kept = all(s.still_tied and all(p.loss[1] < p.loss[0] for p in s.phases) for s in shown)
    return 0 if kept or given.small else 1


if __name__ == "__main__":
    sys.exit(main())
