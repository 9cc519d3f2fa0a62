"""Loss curves of one recipe in torch and in MLX, laid over one another and drawn.

Contract: they are never further apart than a thousandth in 50 steps, in either phase. Both backends take the same rows
in the same order from the same start, at dropout 0, since the two draw their dropout differently. `--small` shows that
it runs, on a random model of two layers; the default is the bundled model, on questions about its library.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST = 1e-3
"""Contract: largest difference of a loss, in nats."""
BACKENDS = ("trl", "mlx")
NAMES = {"trl": "torch", "mlx": "MLX"}
TITLES = {"orpo": "Phase I: ORPO", "exo_pair": "Phase II: EXO"}


def library_pairs(count: int) -> list[Any]:
    """Rows made of the library's own sentences: the notes say it so, and the other way round it is not preferred."""
    from preflexor_agents.prompts import Message
    from preflexor_training.pairs import Pair, Reply

    made: list[Any] = []
    for file in sorted((ROOT / "preflexor_agents/data/library").glob("*.md")):
        text = re.sub(r"^#.*$|\s+", " ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if 30 < len(s) < 120]
        for n in range(0, len(sentences) - 1, 2):
            first, second = sentences[n], sentences[n + 1]
            turned = " ".join(reversed(second.split()))
            made.append(
                Pair(
                    id=f"{file.stem}-{n}",
                    prompt=(Message("user", f"What is known of {file.stem.replace('-', ' ')}?"),),
                    chosen=Reply(thinking=first, answer=second),
                    rejected=Reply(thinking=second, answer=turned),
                )
            )
    return made[:: max(1, len(made) // count)][:count]


def curves(base: Path, number: int, steps: int, pairs: Sequence[Any], work: Path) -> dict[str, list[dict[str, float]]]:
    """The numbers of every step of a phase, in both backends."""
    from preflexor_training import recipes
    from preflexor_training.batches import plan
    from preflexor_training.phases import opener
    from preflexor_training.prepared import open_renderer
    from preflexor_training.rendering import tokenize

    changes = [f"base={base}", "adapter.dropout=0.0", f"phases.{number}.batch_pairs=1", f"phases.{number}.passes=100"]
    recipe = recipes.load("tiny", changes=changes)
    phase, renderer = recipe.phases[number], open_renderer(base, recipe)
    mask = recipe.mask(phase)
    rows = [tokenize(pair, renderer, mask=mask) for pair in pairs]
    taken = plan(rows, (), phase=phase, mask=mask, round=0, seed=recipe.seed, bucket_batches=8)[:steps]
    found: dict[str, list[dict[str, float]]] = {}
    for backend in BACKENDS:
        told: list[dict[str, float]] = []
        began = time.perf_counter()
        learner = opener(backend)(recipe, phase, base, work / f"{phase.name}-{backend}")
        learner.train(taken, first=0, on_step=lambda _, metrics, told=told: told.append(dict(metrics)))
        learner.close()
        found[backend] = told
        print(f"{TITLES[phase.loss]}, {NAMES[backend]}: {len(told)} steps in {time.perf_counter() - began:.0f} s")
    return found


def draw(found: dict[str, dict[str, list[dict[str, float]]]], out: Path) -> None:
    """Curves above, how far they are apart below."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "preflexor", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 4.4), layout="tight")
        for column, (title, told) in enumerate(found.items()):
            above, below = figure.add_subplot(2, 2, column + 1), figure.add_subplot(2, 2, column + 3)
            losses = {backend: np.array([m["loss"] for m in told[backend]]) for backend in BACKENDS}
            steps = np.arange(1, len(losses["trl"]) + 1)
            above.plot(steps, losses["trl"], label="torch", color="0.6", linewidth=3.5)
            above.plot(steps, losses["mlx"], label="MLX", color="C3", linewidth=1, linestyle="--")
            above.set(title=title, ylabel="loss, nats")
            above.legend(frameon=False)
            below.semilogy(steps, np.maximum(np.abs(losses["mlx"] - losses["trl"]), 1e-9), color="C0", linewidth=1)
            below.axhline(MOST, color="C3", linewidth=0.8)
            below.set(xlabel="optimizer step", ylabel="difference", ylim=(1e-9, 1e-2))
        figure.savefig(out, format="svg", metadata={"Date": None})


def main() -> int:
    """Exit code 1 if the curves are further apart than they may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--base", default="nano", help="folder of a model, or nano")
    parser.add_argument("--out", type=Path, help="SVG file to draw; docs/training_overlay.svg is the one of the docs")
    parser.add_argument("--small", action="store_true", help="a random model of two layers and 4 steps")
    given = parser.parse_args()
    from preflexor_training import bases

    steps = 4 if given.small else given.steps
    with tempfile.TemporaryDirectory(prefix="preflexor-overlay-") as folder:
        work = Path(folder)
        if given.small:
            from tests.training.mlx_teaching import pairs, small_base

            base, rows = small_base(work / "base"), pairs(8)
        else:
            base, rows = bases.resolve(given.base), library_pairs(40)
        found = {title: curves(base, number, steps, rows, work) for number, title in enumerate(TITLES.values())}
    print(f"\n{'':16} {'first loss':>11} {'last loss':>10} {'largest difference':>19}")
    worst = 0.0
    for title, told in found.items():
        losses = [np.array([m["loss"] for m in told[backend]]) for backend in BACKENDS]
        apart = float(np.abs(losses[0] - losses[1]).max())
        worst = max(worst, apart)
        print(f"{title:16} {losses[0][0]:11.4f} {losses[0][-1]:10.4f} {apart:19.1e}")
    if given.out:
        draw(found, given.out)
    print(f"\ncontract: at most {MOST:g}: {'kept' if worst <= MOST else 'BROKEN'}")
    return 0 if worst <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
