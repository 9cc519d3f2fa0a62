"""The line at the top: model, store, round, tokens and time against the budget."""

from textual.content import Content
from textual.widgets import Static

from preflexor_tui.state.run import Run
from preflexor_tui.widgets.text import count, duration, plain

BAR_CELLS = 10
WIDE = 100
"""Columns from which there is room for everything."""


class Meter(Static):
    """What a run has used of what it may use."""

    def __init__(self) -> None:
        super().__init__(id="meter", markup=False)

    def show(self, run: Run, *, model: str, store: str, elapsed_s: float) -> None:
        """Show the run's use; without a run, what the next one will be done with."""
        is_wide = self.app.size.width >= WIDE
        parts: list[Content] = [Content.styled("preflexor", "bold $text-accent")] if is_wide else []
        parts.append(plain(model, "bold"))
        if store and is_wide:
            parts.append(plain(store, "$text-muted"))
        if run.rounds_planned:
            done = len(run.rounds)
            parts.append(plain(f"round {done}/{max(run.rounds_planned, done)}"))
            cells = BAR_CELLS if is_wide else BAR_CELLS // 2
            tok, tok_most = count(run.written_tok), f"{count(run.budget_tok)} tok"
            parts.append(_gauge(run.written_tok / max(1, run.budget_tok), tok, tok_most, cells=cells))
            time, time_most = duration(elapsed_s), duration(run.budget_s)
            parts.append(_gauge(elapsed_s / max(1.0, run.budget_s), time, time_most, cells=cells))
        content = Content("  ").join(parts)
        if content != self.content:
            self.update(content, layout=False)  # it is one line, whatever it says


def _gauge(share: float, used: str, whole: str, *, cells: int) -> Content:
    """A bar with its numbers; nearly spent is said by colour and by a sign."""
    full = round(min(1.0, share) * cells)
    style, sign = ("$text-error", "!") if share > 0.9 else ("$text-success", "")
    bar = Content.assemble(("━" * full, style), ("━" * (cells - full), "$foreground 25%"))
    return Content.assemble(bar, f" {used}", (f"/{whole}{sign}", "$text-muted"))
