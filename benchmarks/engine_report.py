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


def best_of(rows: Sequence[Row]) -> list[str]:
    """A line for each model, type and N: tokens a second of everybody, and ours by the high level's."""
    names = list(dict.fromkeys(row["who"] for row in rows))
    lines = [
        f"| model | weights | N | {' | '.join(f'{name} tok/s' for name in names)} | preflexor / llama_cpp.Llama |",
        "|---|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for key in dict.fromkeys((row["model"], row["ftype"], row["n"]) for row in rows):
        found = {row["who"]: row for row in rows if (row["model"], row["ftype"], row["n"]) == key}
        cells = [f"{found[name]['tok_s']:.0f}" if name in found else "" for name in names]
        ratio = found.get("preflexor", {}).get("ratio")
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else ''} |")
    return lines


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
