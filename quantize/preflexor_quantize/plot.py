"""A plot of divergence over size as an SVG file, drawn by hand: four marks and two axes need no library."""

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 360, 70, 50, 20, 30
_SMALLEST = 1e-7


def plot(points: Sequence[tuple[str, int, float]]) -> str:
    """Mean KL (log scale) over the file's size, for (name, bytes, mean KL); light and dark viewers both can read it."""
    sizes = [size / 1e6 for _, size, _ in points] or [1.0]
    logs = [math.log10(max(kl, _SMALLEST)) for _, _, kl in points] or [0.0]
    most = max(sizes) * 1.1
    low, high = math.floor(min(logs)), math.ceil(max(logs) + 1e-9)
    high += high == low

    def x(size: float) -> float:
        return _LEFT + size / most * (_WIDTH - _LEFT - _RIGHT)

    def y(log: float) -> float:
        return _TOP + (high - log) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<g stroke="#888"><path d="M{_LEFT} {_TOP}V{y(low):.1f}H{_WIDTH - _RIGHT}" fill="none"/></g>',
    ]
    for power in range(low, high + 1):
        parts.append(f'<text x="{_LEFT - 8}" y="{y(power) + 4:.1f}" text-anchor="end">1e{power}</text>')
        parts.append(f'<path d="M{_LEFT} {y(power):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
    for n in range(1, 5):
        size = most * n / 4
        parts.append(f'<text x="{x(size):.1f}" y="{y(low) + 18:.1f}" text-anchor="middle">{size:.3g}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">size in MB</text>')
    parts.append(
        f'<text transform="translate(16 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">mean KL to F16, nats</text>'
    )
    for (name, _, _), size, log in zip(points, sizes, logs, strict=False):
        parts.append(f'<circle cx="{x(size):.1f}" cy="{y(log):.1f}" r="4" fill="#0a6"/>')
        parts.append(f'<text x="{x(size) + 7:.1f}" y="{y(log) - 6:.1f}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
