"""The drafts of a round side by side, with how each did in the blind comparisons."""

from textual.app import ComposeResult
from textual.containers import HorizontalScroll, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from preflexor_tui.state.candidates import Candidate
from preflexor_tui.widgets.text import Flow

LEAST_CELLS = 22


class CandidateColumn(VerticalScroll, can_focus=False):
    """One draft."""

    def __init__(self, candidate: Candidate, *, with_thinking: bool) -> None:
        super().__init__(classes="candidate")
        self._candidate = candidate
        self._with_thinking = with_thinking

    def compose(self) -> ComposeResult:
        """Head, thinking if wanted, answer."""
        yield Static(classes="head", markup=False)
        if self._with_thinking:
            yield Flow(classes="thinking")
        yield Flow(classes="answer")

    def on_mount(self) -> None:
        """Draw what was given."""
        self.show(self._candidate)

    def show(self, candidate: Candidate) -> None:
        """Show this state of the draft."""
        self._candidate = candidate
        if not self.children:
            return
        self.set_class(candidate.chosen, "-chosen")
        growing = candidate.step.status == "running"
        self.query_one(".head", Static).update(_head(candidate))
        if self._with_thinking:
            self.query_one(".thinking", Flow).show(candidate.step.thinking.strip(), growing=growing)
        answer = candidate.step.answer.strip() or ("" if self._with_thinking else candidate.step.thinking.strip())
        self.query_one(".answer", Flow).show(answer or candidate.step.error, growing=growing)


class CandidateColumns(HorizontalScroll, can_focus=False):
    """All drafts of a round."""

    def __init__(self, *, with_thinking: bool = False) -> None:
        super().__init__(classes="candidates")
        self._with_thinking = with_thinking

    async def show(self, candidates: tuple[Candidate, ...]) -> None:
        """Show these drafts."""
        columns = list(self.query(CandidateColumn))
        for column, candidate in zip(columns, candidates, strict=False):
            column.show(candidate)
        new = [CandidateColumn(c, with_thinking=self._with_thinking) for c in candidates[len(columns) :]]
        if new:
            await self.mount(*new)
            self._share_width()

    def on_resize(self) -> None:
        """Share the width anew."""
        self._share_width()

    def _share_width(self) -> None:
        """Every column gets its share, and no column less than can be read; then the rest is scrolled to."""
        columns = list(self.query(CandidateColumn))
        for column in columns:
            column.styles.width = max(LEAST_CELLS, self.size.width // len(columns))


def _head(candidate: Candidate) -> Content:
    mark = ("● ", "$success") if candidate.chosen else ("○ ", "$text-muted")
    verdict = ""
    if candidate.same_as is not None:
        verdict = f"same words as draft {candidate.same_as}"
    elif candidate.score is not None:
        verdict = f"won {candidate.score:.2f} against draft {candidate.against}"
    chosen = "  chosen" if candidate.chosen else ""
    tokens = f"{candidate.step.usage.generated} tok" if candidate.step.usage.generated else candidate.step.status
    name = (f"draft {candidate.number}", "bold")
    return Content.assemble(mark, name, (f"{chosen}\n{tokens}\n{verdict}", "$text-muted"))
