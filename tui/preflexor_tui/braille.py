"""Draws a line through points with braille characters: 2 by 4 dots in every cell."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""By row and column within a cell."""
_BLANK = 0x2800


class Span(NamedTuple):
    """The least and the greatest of what is drawn."""

    low: float
    high: float


def spans(points: Sequence[tuple[float, float]]) -> tuple[Span, Span]:
    """Spans of x and of y over the points whose y is finite; never empty."""
    finite = [(x, y) for x, y in points if math.isfinite(y)] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    return Span(min(xs), max(xs)), Span(min(ys), max(ys))


def plot(points: Sequence[tuple[float, float]], *, width: int, height: int) -> list[str]:
    """`height` lines of `width` characters with a line through the points; a y that is not finite breaks it."""
    if width < 1 or height < 1:
        return []
    cells = [[0] * width for _ in range(height)]
    across, up = spans(points)
    last: tuple[int, int] | None = None
    for x, y in points:
        if not math.isfinite(y):
            last = None
            continue
        dot = (_scaled(x, across, 2 * width), 4 * height - 1 - _scaled(y, up, 4 * height))
        for column, row in _line(last or dot, dot):
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        last = dot
    return ["".join(chr(_BLANK + cell) for cell in row) for row in cells]


def thinned(points: Sequence[tuple[float, float]], columns: int) -> list[tuple[float, float]]:
    """At most about four points for each column, with every peak and gap: drawing them shows the same line."""
    size = len(points) // max(1, columns)
    if size <= 4:
        return list(points)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        finite = [i for i, (_, y) in enumerate(part) if math.isfinite(y)]
        if not finite:
            kept.append(part[0])
            continue
        chosen = {finite[0], min(finite, key=lambda i: part[i][1]), max(finite, key=lambda i: part[i][1]), finite[-1]}
        chosen |= {next(i for i in range(len(part)) if i not in set(finite))} if len(finite) < len(part) else set()
        kept += [part[i] for i in sorted(chosen)]
    return kept


def _scaled(value: float, span: Span, dots: int) -> int:
    if span.high == span.low:
        return (dots - 1) // 2
    share = value / 2 - span.low / 2, span.high / 2 - span.low / 2  # halves, so that no difference overflows
    return min(dots - 1, max(0, round(share[0] / share[1] * (dots - 1))))


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0))
    if steps == 0:
        return [end]
    return [(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)) for i in range(steps + 1)]
