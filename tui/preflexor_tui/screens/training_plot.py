"""A curve: title with the last value, axes, and a line of braille dots."""

import math

from textual.content import Content
from textual.widget import Widget

from preflexor_agents.run_folder import described, shown
from preflexor_tui.braille import plot, spans, thinned

_AXIS = 10
"""Columns for the numbers beside the curve."""


class Plot(Widget, can_focus=False):
    """One series of a run."""

    def __init__(self, series: str) -> None:
        super().__init__(classes="plot")
        self.series = series
        self._points: list[tuple[float, float]] = []

    def show(self, points: list[tuple[float, float]]) -> None:
        """Show these points; the tooltip says them in words."""
        self._points = points
        self.tooltip = f"{self.series}: {described(points)}"
        self.refresh()

    def render(self) -> Content:
        """Title, curve, steps."""
        width, height = self.size.width - _AXIS - 1, self.size.height - 2
        finite = [value for _, value in self._points if math.isfinite(value)]
        last = shown(finite[-1]) if finite else "no values yet"
        title = Content.assemble((self.series, "bold"), "  ", (last, "$text-accent"))
        if width < 4 or height < 1 or not finite:
            return title
        across, up = spans(self._points)
        lines = plot(thinned(self._points, width), width=width, height=height)
        labels = {0: shown(up.high), height - 1: shown(up.low)} if height > 1 else {0: shown(up.high)}
        rows = [
            Content.assemble((f"{labels.get(n, ''):>{_AXIS}} ", "dim"), (line, "$text-accent"))
            for n, line in enumerate(lines)
        ]
        first, end = f"{across.low:.0f}", f"step {across.high:.0f}"
        steps = f"{'':{_AXIS + 1}}{first}{end:>{max(0, width - len(first))}}"
        return Content("\n").join([title, *rows, Content.styled(steps, "dim")])
