"""One question on the screen: what was asked, its rounds, its answer, or what went wrong."""

from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Static

from preflexor_agents.cli.show import STOPS, VERBS
from preflexor_tui.state.run import Run
from preflexor_tui.widgets.growing import Column
from preflexor_tui.widgets.inert_markdown import InertMarkdown
from preflexor_tui.widgets.round_card import RoundCard
from preflexor_tui.widgets.text import count, duration, plain, plural

LONGEST_QUESTION = 4000
"""Of a longer question only the beginning is drawn."""


class TurnView(Column):
    """A question with everything that came of it."""

    class Retry(Message):
        """The user wants a run that failed to be tried again."""

        def __init__(self, view: "TurnView") -> None:
            super().__init__()
            self.view = view

    def __init__(self) -> None:
        super().__init__(classes="turn")
        self._shown: tuple[Run, str] | None = None

    def compose(self) -> ComposeResult:
        """Question, rounds, ending, answer, failure."""
        yield Static(classes="question", markup=False)
        yield Column(classes="rounds")
        yield Static(classes="ending", markup=False)
        yield Column(
            Static(classes="answer-title", markup=False),
            InertMarkdown(),
            Static(classes="answer-foot", markup=False),
            classes="final",
        )
        yield Column(
            Static(classes="failure-text", markup=False),
            Button("Retry", classes="retry", compact=True),
            classes="failure",
        )

    async def show(self, run: Run, *, failure: str = "") -> None:
        """Show this state of the run; `failure` is why it could not go on."""
        if self._shown is not None and self._shown[0] is run and self._shown[1] == failure:
            return
        self._shown = (run, failure)
        question = (
            run.question
            if len(run.question) <= LONGEST_QUESTION
            else (run.question[:LONGEST_QUESTION] + f" … ({len(run.question):,} characters)")
        )
        _set(self, ".question", Content.assemble(("▌ ", "$text-accent bold"), plain(question, "bold")))
        await self._show_rounds(run)
        step = run.step if not run.is_open else None
        _set(self, ".ending", plain(f"◌ {step.role} {VERBS[step.stage]} …", "$text-primary") if step else Content(""))
        self._show_final(run)
        error = failure or (run.finished.error if run.finished and run.finished.stop_reason == "failed" else "")
        self.query_one(".failure").display = bool(error)
        if error:
            self.query_one(".failure-text", Static).update(plain(f"✗ {error}", "$text-error"))

    @property
    def cards(self) -> list[RoundCard]:
        """Its rounds."""
        return list(self.query(RoundCard))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Try again."""
        event.stop()
        self.post_message(self.Retry(self))

    async def _show_rounds(self, run: Run) -> None:
        cards = self.cards
        for card, round in zip(cards, run.rounds, strict=False):
            await card.show(round, run)
        if len(cards) > len(run.rounds):
            for card in cards[len(run.rounds) :]:
                await card.remove()
        new = [RoundCard(round, run) for round in run.rounds[len(cards) :]]
        if new:
            await self.query_one(".rounds").mount(*new)
            for card in new:
                await card.show(card.round, run)

    def _show_final(self, run: Run) -> None:
        final = self.query_one(".final")
        final.display = run.finished is not None
        if run.finished is None:
            return
        _set(self, ".answer-title", _title(run))
        self.query_one(".final InertMarkdown", InertMarkdown).show(run.finished.answer or "*(no answer)*")
        _set(self, ".answer-foot", _foot(run))


def _title(run: Run) -> Content:
    finished = run.finished
    assert finished is not None
    best = f"  from round {finished.best_round}" if finished.best_round else ""
    merged = "  merged from several rounds" if finished.integrated else best
    marks = f"  {plural(len(run.citations), 'citation')}" if run.cited else ""
    return Content.assemble(("Answer", "bold $text-success"), (merged + marks, "$text-muted"))


def _foot(run: Run) -> Content:
    finished = run.finished
    assert finished is not None
    usage = run.usage
    unsupported = run.cited.unsupported if run.cited else ()
    lines = [plain(f"⚠ no passage supports: {' '.join(claim.split())}", "$text-warning") for claim in unsupported]
    calls = sum(s.role != "librarian" for s in (*(s for r in run.rounds for s in r.steps), *run.ending))
    written = f"{count(usage.generated)} tokens written, {count(usage.prompt)} read"
    tail = f"{STOPS[finished.stop_reason]} · {plural(calls, 'call')} · {written} · {duration(finished.seconds)}"
    lines.append(plain(tail, "$text-muted"))
    return Content("\n").join(lines)


def _set(view: TurnView, selector: str, content: Content) -> None:
    static = view.query_one(selector, Static)
    static.display = bool(content.plain)
    if static.display and static.content != content:
        static.update(content)
