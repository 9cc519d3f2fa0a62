"""The line at the top: model, store, round, tokens and time against the budget."""

from textual.content import Content
from textual.widgets import Static

from preflexor_tui.state.run import Run
from preflexor_tui.widgets.text import count, duration, plain

BAR_CELLS = 10


class Meter(Static):
    """What a run has used of what it may use."""

    def __init__(self) -> None:
        super().__init__(id="meter", markup=False)

    def show(self, run: Run, *, model: str, store: str, elapsed_s: float) -> None:
        """Show the run's use; without a run, what the next one will be done with."""
        parts: list[Content] = [Content.styled("preflexor", "bold $text-accent"), plain(model, "bold")]
        if store:
            parts.append(plain(store, "$text-muted"))
        if run.rounds_planned:
            done = len(run.rounds)
            parts.append(plain(f"round {done}/{max(run.rounds_planned, done)}"))
            parts.append(
                _gauge(run.written_tok, run.budget_tok, count(run.written_tok), f"{count(run.budget_tok)} tok")
            )
            parts.append(_gauge(elapsed_s, run.budget_s, duration(elapsed_s), duration(run.budget_s)))
        content = Content("  ").join(parts)
        if content != self.content:
            self.update(content)


def _gauge(used: float, whole: float, used_text: str, whole_text: str) -> Content:
    """A bar with its numbers; nearly spent is said by colour and by a sign."""
    share = min(1.0, used / whole) if whole else 0.0
    cells = round(share * BAR_CELLS)
    style, sign = ("$text-error", "!") if share > 0.9 else ("$text-success", "")
    bar = Content.assemble(("━" * cells, style), ("━" * (BAR_CELLS - cells), "$surface-lighten-2"))
    return Content.assemble(bar, f" {used_text}", (f"/{whole_text}{sign}", "$text-muted"))
