"""Draws the figures of docs/algorithm.md: `python scripts/docs_figures.py`. The curves come from the losses themselves.

The figures bring their own paper, so that they can be read on a dark page too.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preflexor_training.recipe_parts import Phase

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
INK, FAINT, BLUE, ORANGE, GREEN = "#1c2733", "#8795a5", "#1f5fa8", "#b4540a", "#2b7a3d"
Curve = tuple[str, str, Sequence[tuple[float, float]]]
"""Name, colour, points."""


def loop() -> str:
    """One run: the draft, the rounds with the gate, the end."""
    boxes = [
        (20, 110, 120, 54, "question", "and passages"),
        (180, 110, 130, 54, "draft", "thinking, answer"),
        (360, 110, 130, 54, "critique", "or own reflection"),
        (540, 110, 130, 54, "revised thinking", "heeds the critique"),
        (720, 110, 130, 54, "new answer", "thinking prefilled"),
        (720, 240, 130, 54, "gate", "blind, both orders"),
        (540, 240, 130, 54, "best so far", "stays, or is replaced"),
        (360, 240, 130, 54, "merge", "must win as well"),
        (180, 240, 130, 54, "answer", "each quote checked"),
    ]
    arrows = [
        "M140 137 H174",
        "M310 137 H354",
        "M490 137 H534",
        "M670 137 H714",
        "M785 164 V234",
        "M720 267 H676",
        "M540 267 H496",
        "M360 267 H316",
        "M605 240 C605 190 425 215 425 170",
    ]
    drawn = [_arrow(path) for path in arrows]
    drawn += [_box(*box) for box in boxes]
    drawn.append(_text(540, 206, "next round", size=12, colour="#4c5b6b"))
    drawn.append(_text(20, 40, "A run", size=18, weight=600))
    drawn.append(
        _text(20, 64, "It ends when the rounds or the budget are spent, or the critic finds nothing to change.", 13)
    )
    return _svg(870, 320, drawn)


def losses() -> str:
    """EXO beside DPO: the loss of a pair, and how hard it pushes."""
    from preflexor_training import recipes

    phase = recipes.load("paper").phases[1]
    dpo = phase.model_copy(update={"loss": "sigmoid", "label_smoothing": 0.0})
    exo_values = list(_along(phase))
    dpo_values = list(_along(dpo))
    values: list[Curve] = [
        ("EXO", BLUE, [(x, value) for x, value, _ in exo_values]),
        ("DPO", ORANGE, [(x, value) for x, value, _ in dpo_values]),
    ]
    slopes: list[Curve] = [
        ("EXO", BLUE, [(x, -slope) for x, _, slope in exo_values]),
        ("DPO", ORANGE, [(x, -slope) for x, _, slope in dpo_values]),
    ]
    drawn = [
        *_panel(60, "loss of a pair", values, low=0.0, high=12.0, ticks=(0, 4, 8, 12)),
        *_panel(490, "how hard it pushes the margin up", slopes, low=-0.4, high=1.6, ticks=(0, 0.5, 1, 1.5)),
    ]
    return _svg(880, 330, drawn)


def _along(phase: "Phase") -> Iterator[tuple[float, float, float]]:
    """Scaled margin, loss, slope by the scaled margin."""
    import numpy as np

    from preflexor_training.losses.oracle import PairLogProbs, Side, preference_loss

    for step in range(-48, 49):
        x = step / 4
        mask, none = np.ones(1, np.bool_), np.zeros(0)
        policy, equal = np.array([-200.0]), np.array([-200.0])
        chosen = Side(policy=policy, mask=mask, reference=policy - x / phase.beta)
        rejected = Side(policy=equal, mask=mask, reference=equal)
        found = preference_loss([PairLogProbs(chosen=chosen, rejected=rejected, prompt=none)], phase)
        yield x, found.loss, float(found.gradients[0].chosen[0]) / phase.beta


def _panel(
    left: int, title: str, curves: Sequence[Curve], *, low: float, high: float, ticks: Sequence[float]
) -> Iterator[str]:
    width, top, height = 350, 60, 210

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x + 12) / 24 * width, top + (high - min(max(y, low), high)) / (high - low) * height

    yield _text(left, 34, title, size=15, weight=600)
    for tick in ticks:
        _, y = at(0, tick)
        yield f'<path d="M{left} {y:.1f} H{left + width}" stroke="#d9dfe6"/>'
        yield _text(left - 8, y + 4, f"{tick:g}", size=12, colour=FAINT, anchor="end")
    for tick in range(-12, 13, 4):
        x, _ = at(tick, low)
        yield _text(x, top + height + 20, f"{tick}", size=12, colour=FAINT, anchor="middle")
    yield _text(left + width / 2, top + height + 42, "scaled margin x", size=13, anchor="middle")
    best, _ = at(5.293, low)
    yield f'<path d="M{best:.1f} {top} V{top + height}" stroke="{GREEN}" stroke-dasharray="4 4"/>'
    yield _text(best + 5, top + 12, "EXO's target, 5.293", size=12, colour=GREEN)
    for number, (name, colour, points) in enumerate(curves):
        path = " L".join(f"{a:.1f} {b:.1f}" for a, b in (at(x, y) for x, y in points))
        dash = "" if number == 0 else ' stroke-dasharray="7 4"'
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        yield _text(left + 10 + 60 * number, top + height - 10, name, size=13, colour=colour, weight=600)


def _box(x: int, y: int, width: int, height: int, title: str, below: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#eef3f9" stroke="{BLUE}"/>'
        + _text(x + width / 2, y + 24, title, size=14, weight=600, anchor="middle")
        + _text(x + width / 2, y + 42, below, size=12, colour="#4c5b6b", anchor="middle")
    )


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#tip)"/>'


def _text(
    x: float, y: float, text: str, size: int, *, colour: str = INK, weight: int = 400, anchor: str = "start"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>'


def _svg(width: int, height: int, drawn: Sequence[str]) -> str:
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    paper = f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>'
    return "\n".join([head, f"<defs>{tip}</defs>", paper, *drawn, "</svg>", ""])


FIGURES: dict[str, Callable[[], str]] = {"loop.svg": loop, "losses.svg": losses}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
