"""What benchmarks/engine.py found, as a Markdown table and as a plot."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_COLOURS = {
    "preflexor": "#0a7d55",
    "llama_cpp.Llama": "#c0392b",
    "AutoGen client": "#b7791f",
    "llama-server": "#2b6cb0",
    "Ollama": "#6b46c1",
    "llama_decode": "#888888",
}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 330, 230, 52, 34, 40

Row = Mapping[str, Any]


ASKED = {("f16", 8): 2.5, ("bf16", 8): 3.5, ("q4_k_m", 8): 1.7, ("q4_k_m", 16): 3.5}
"""By weights and N at 170M: how many times as fast as one after the other; 1 for all others."""
ASKED_OVERHEAD, ASKED_CACHED, ASKED_ROUNDS, ASKED_GUESSING = 0.03, 0.7, 0.65, 1.3


def report(found: Mapping[str, Any]) -> list[str]:
    """Everything as Markdown."""
    lines = [found["machine"], ""]
    for case, table in (("best-of", best_of), ("overhead", _overhead), ("rounds", _rounds), ("lookup", _lookup)):
        if rows := found.get(case):
            lines += [*table(rows), ""]
    if crowd := found.get("crowd"):
        lines += _table(["a crowd in a small cache", ""], [[k.replace("_", " "), f"{v:.4g}"] for k, v in crowd.items()])
    return lines


def best_of(rows: Sequence[Row]) -> list[str]:
    """A line for each model, type and N: tokens a second of everybody; how much faster than the high level is ours."""
    names = list(dict.fromkeys(row["who"] for row in rows))
    cells = []
    for model, ftype, n in dict.fromkeys((row["model"], row["ftype"], row["n"]) for row in rows):
        found = {row["who"]: row for row in rows if (row["model"], row["ftype"], row["n"]) == (model, ftype, n)}
        speeds = [f"{found[name]['tok_s']:.0f}" if name in found else "" for name in names]
        asked = ASKED.get((ftype, n), 1.0) if model == "170m" else 1.0
        reached, limit = found["preflexor"]["ratio"], found["llama_decode"]["ratio"]
        cells.append(
            [model, ftype, str(n), *speeds, f"{reached:.2f}", f"{limit:.2f}", f"≥ {asked}", _met(reached >= asked)]
        )
    heads = ["model", "weights", "N", *(f"{name} tok/s" for name in names)]
    return _table([*heads, "preflexor / llama_cpp.Llama", "limit", "asked", ""], cells)


def _overhead(rows: Sequence[Row]) -> list[str]:
    cells = []
    for row in rows:
        shown = [f"{row['ms']:.2f}", f"{row['overhead']:+.1%}", f"{row['least_overhead']:+.1%}"]
        asked = row["model"] == "170m"
        met = _met(row["overhead"] <= ASKED_OVERHEAD) if asked else ""
        cells.append([row["model"], row["ftype"], *shown, f"≤ {ASKED_OVERHEAD:.0%}" if asked else "", met])
    heads = ["model", "weights", "ms a token at N=1", "over llama_decode", "best by best", "asked", ""]
    return _table(heads, cells)


def _rounds(rows: Sequence[Row]) -> list[str]:
    cells = []
    for row in rows:
        times = [f"{row['wall']:.2f}", f"{row['limit']:.2f}", f"≤ {ASKED_ROUNDS}", _met(row["wall"] <= ASKED_ROUNDS)]
        cached = f"{row['cached']:.0%} (≥ {ASKED_CACHED:.0%} asked)"
        cells.append([row["model"], row["ftype"], str(row["calls"]), cached, *times])
    heads = ["model", "weights", "calls", "prompt from cache", "time / llama_cpp.Llama", "limit", "asked", ""]
    return _table(heads, cells)


def _lookup(rows: Sequence[Row]) -> list[str]:
    cells = []
    for row in rows:
        share = f"{row['right'] / max(1, row['guessed']):.0%}"
        asked = (
            [f"≥ {ASKED_GUESSING}", _met(row["ratio"] >= ASKED_GUESSING)] if row["role"] == "integrate" else ["", ""]
        )
        cells.append([row["role"], str(row["replies"]), f"{row['ratio']:.2f}", share, str(row["same"]), *asked])
    return _table(["guessing in", "replies", "times as fast", "guesses right", "same text", "asked", ""], cells)


def _met(met: bool) -> str:
    return "reached" if met else "missed"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def plot(rows: Sequence[Row]) -> str:
    """Tokens a second against N, one panel for each model and type, a line for each who writes."""
    panels = list(dict.fromkeys((row["model"], row["ftype"]) for row in rows))
    names = list(dict.fromkeys(row["who"] for row in rows))
    columns = min(2, len(panels)) or 1
    height = -(-len(panels) // columns) * _HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * _WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{columns * _WIDTH}" height="{height}" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        x, y = place % columns * _WIDTH, place // columns * _HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel, rows), "</g>"]
    for place, name in enumerate(names):
        x = 20 + place * 105
        parts.append(f'<rect x="{x}" y="{height - 22}" width="12" height="4" fill="{_COLOURS.get(name, "#000")}"/>')
        parts.append(f'<text x="{x + 16}" y="{height - 16}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: tuple[str, str], rows: Sequence[Row]) -> list[str]:
    mine = [row for row in rows if (row["model"], row["ftype"]) == panel]
    widths = sorted({row["n"] for row in mine})
    most = max(row["tok_s"] for row in mine) * 1.1
    across = (_WIDTH - _LEFT - 20) / max(1, len(widths) - 1)

    def x(n: int) -> float:
        return _LEFT + widths.index(n) * across

    def y(rate: float) -> float:
        return _HEIGHT - _BOTTOM - rate / most * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<text x="{_LEFT}" y="18" font-size="13">{escape(panel[0])}, {escape(panel[1])}: tokens/s</text>']
    for n in range(5):
        rate = most * n / 4
        parts.append(f'<path d="M{_LEFT} {y(rate):.1f}H{_WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:.0f}</text>')
    for n in widths:
        parts.append(f'<text x="{x(n):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">N={n}</text>')
    for name in dict.fromkeys(row["who"] for row in mine):
        colour = _COLOURS.get(name, "#000")
        points = [(x(row["n"]), y(row["tok_s"])) for row in mine if row["who"] == name]
        dash = ' stroke-dasharray="4 3"' if name == "llama_decode" else ""
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{colour}"/>' for px, py in points]
    return parts
