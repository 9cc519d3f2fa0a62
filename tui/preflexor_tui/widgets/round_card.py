"""One round on the screen: a line that sums it up, and, unfolded, everything that was written in it."""

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from preflexor_agents.cli.show import VERBS
from preflexor_tui.state.candidates import candidates
from preflexor_tui.state.run import Round, Run
from preflexor_tui.widgets.candidate_columns import CandidateColumns
from preflexor_tui.widgets.diff_view import DiffView
from preflexor_tui.widgets.growing import Column
from preflexor_tui.widgets.inert_markdown import InertMarkdown
from preflexor_tui.widgets.section import Section
from preflexor_tui.widgets.text import count, duration, plain

View = Literal["answer", "diff", "candidates"]
Act = Literal["branch", "edit", "copy", "retry", "take", "refuse", "compare"]


class CardHead(Static):
    """The line that sums a round up; folds the card."""

    ALLOW_SELECT = False

    async def on_click(self, event: Click) -> None:
        """Fold or unfold."""
        event.stop()
        if isinstance(self.parent, RoundCard):
            self.parent.focus()
            await self.parent.action_fold()


class RoundCard(Column, can_focus=True):
    """A round. Folded, only its line is mounted: what is not seen costs nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "fold", "Open", id="card.fold", tooltip="Unfold or fold the round"),
        Binding("t", "section('thinking')", "Thinking", id="card.thinking", show=False),
        Binding("c", "section('critique')", "Critique", id="card.critique", show=False),
        Binding("d", "view('diff')", "Diff", id="card.diff", tooltip="What the round changed, word by word"),
        Binding("n", "view('candidates')", "Candidates", id="card.candidates", show=False),
        Binding("s", "act('compare')", "Side by side", id="card.compare", show=False),
        Binding(
            "a", "act('take')", "Accept", id="card.accept", tooltip="Take this round's answer, whatever the gate said"
        ),
        Binding("x", "act('refuse')", "Reject", id="card.reject", tooltip="Keep the answer before this round"),
        Binding("b", "act('branch')", "Branch", id="card.branch", tooltip="Go on from this round in a new branch"),
        Binding("e", "act('edit')", "Edit", id="card.edit", show=False),
        Binding("r", "act('retry')", "Retry", id="card.retry", show=False),
        Binding("y", "act('copy')", "Copy", id="card.copy", show=False),
        Binding("j,down", "go(1)", "Next", id="card.next", show=False),
        Binding("k,up", "go(-1)", "Previous", id="card.previous", show=False),
    ]

    class Asked(Message):
        """The user wants something done with a round."""

        def __init__(self, card: "RoundCard", act: Act) -> None:
            super().__init__()
            self.card = card
            self.act: Act = act

        @property
        def control(self) -> "RoundCard":
            """The card."""
            return self.card

    class Looked(Message):
        """The user looks at a round: new text shall not scroll it away."""

    def __init__(self, round: Round, run: Run) -> None:
        super().__init__(classes="round-card")
        self.round = round
        self._run = run
        self._shown: object = None
        self._view: View = "answer"
        self._open = False
        self._by_hand = False

    def compose(self) -> ComposeResult:
        """The line; the rest is mounted when it is unfolded."""
        yield CardHead(classes="head", markup=False)

    async def show(self, round: Round, run: Run) -> None:
        """Show this state of the round."""
        shown = (round, _before(round, run), run.finished is None, run.taken)
        if shown == self._shown:
            return
        self._shown, self.round, self._run = shown, round, run
        is_live = run.finished is None and run.round is not None and run.round.number == round.number
        if not self._by_hand and self._open != is_live:
            await self._unfold(is_live)
        await self.draw()

    async def draw(self) -> None:
        """Draw the line, and the body if it is unfolded."""
        self.set_class(self.round.accepted is True, "-taken")
        self.set_class(self.round.accepted is False, "-kept")
        self.set_class(self.round.finished is None, "-running")
        head, content = self.query_one(CardHead), _head(self.round, self._run, is_open=self._open)
        if head.content != content:
            head.update(content, layout=False)  # it is one line, whatever it says
        if self._open:
            await self._draw_body()

    def on_focus(self) -> None:
        """Somebody looks."""
        self.post_message(self.Looked())

    async def action_fold(self) -> None:
        """Unfold or fold."""
        self._by_hand = True
        await self._unfold(not self._open)
        await self.draw()
        self.call_after_refresh(self.scroll_visible, top=True, animate=False)

    async def action_view(self, view: View) -> None:
        """Show another side of the round; asked for twice, the answer again."""
        self._by_hand = True
        if view not in self._views():
            self.notify({"diff": "the first round has nothing to compare with"}.get(view, "there is only one draft"))
            return
        self._view = "answer" if view == self._view else view
        await self._unfold(True)
        await self.draw()
        self.call_after_refresh(self.scroll_visible, top=True, animate=False)

    async def action_section(self, name: str) -> None:
        """Open or close a text of the round."""
        was_open = self._open
        self._by_hand = True
        self._view = "answer"
        await self._unfold(True)
        await self.draw()
        section = self.query_one(f".section.-{name}", Section)
        section.by_hand = True
        section.is_open = not (was_open and section.is_open)

    def action_go(self, rounds: int) -> None:
        """Put the focus on another card; after the last one, on what comes after."""
        cards = list(self.screen.query(RoundCard))
        at = cards.index(self) + rounds
        if at == len(cards):
            self.screen.query_one("#composer").focus()
        elif at >= 0:
            cards[at].focus()

    def action_act(self, act: Act) -> None:
        """Ask for something that is not the card's to do."""
        self.post_message(self.Asked(self, act))

    def _views(self) -> list[View]:
        found: list[View] = ["answer"]
        if _before(self.round, self._run) is not None and self.round.answer:
            found.append("diff")
        if candidates(self.round):
            found.append("candidates")
        return found

    async def _unfold(self, is_open: bool) -> None:
        if is_open == self._open:
            return
        self._open = is_open
        self.set_class(is_open, "-open")
        if not is_open:
            await self.query(".body").remove()
            return
        body = Column(
            Static(classes="asides", markup=False),
            Section("thinking" if self.round.number == 1 else "critique"),
            Section("critique" if self.round.number == 1 else "thinking"),
            Section("reflection"),
            Static(classes="views", markup=False),
            InertMarkdown(classes="answer"),
            DiffView(),
            CandidateColumns(),
            Static(classes="verdict", markup=False),
            classes="body",
        )
        await self.mount(body)

    async def _draw_body(self) -> None:
        round, running = self.round, {s.stage for s in self.round.steps if s.status == "running"}
        views = self._views()
        view = self._view if self._view in views else "answer"
        _static(self, ".asides", _asides(round))
        self.query_one(".section.-critique", Section).show(round.critique, growing="critique" in running)
        answer_began = bool(round.answer)
        thinks = bool(running & {"draft", "revise"}) and not answer_began
        self.query_one(".section.-thinking", Section).show(round.thinking, growing=thinks)
        reflects = bool(running & {"draft", "answer"}) and not answer_began
        self.query_one(".section.-reflection", Section).show(round.reflection, growing=reflects)
        _static(self, ".views", _tabs(views, view, self._run, round) if len(views) > 1 else Content(""))
        answer = self.query_one(InertMarkdown)
        answer.display = view == "answer" and bool(round.answer)
        if answer.display:
            answer.show(round.answer)
        diff, before = self.query_one(DiffView), _before(round, self._run)
        diff.display = view == "diff" and before is not None
        if diff.display and before is not None:
            diff.show(before.answer, round.answer, against=before.number)
        columns = self.query_one(CandidateColumns)
        columns.display = view == "candidates"
        if columns.display:
            await columns.show(candidates(round))
        _static(self, ".verdict", _verdict(round))


def _static(card: RoundCard, selector: str, content: Content) -> None:
    static = card.query_one(selector, Static)
    static.display = bool(content.plain)
    if static.display and static.content != content:
        static.update(content)


def _before(round: Round, run: Run) -> Round | None:
    """The latest earlier round with an answer."""
    earlier = [r for r in run.rounds if r.number < round.number and r.answer]
    return earlier[-1] if earlier else None


def _head(round: Round, run: Run, *, is_open: bool) -> Content:
    kind = "draft" if round.number == 1 else "revision"
    parts: list[Content | str | tuple[str, str]] = [
        ("▾ " if is_open else "▸ ", "$text-muted"),
        (f"Round {round.number}", "bold"),
        (f"  {kind}", "$text-muted"),
        "   ",
        _decision(round),
    ]
    if round.finished and round.finished.score is not None:
        parts.append((f"   score {round.finished.score:.2f}", "$text-muted"))
    best = run.best
    if best is not None and best.number == round.number and len(run.rounds) > 1:
        parts.append(("   ★ best", "$text-accent"))
    written = round.usage.generated
    if written:
        parts.append((f"   {count(written)} tok  {duration(round.seconds)}", "$text-muted"))
    return Content.assemble(*parts)


def _decision(round: Round) -> tuple[str, str]:
    hand = " by hand" if round.ruled is not None else ""
    if round.accepted:
        return (f"● taken{hand}", "$text-success")
    if round.accepted is False:
        stopped = "stopped" if round.stopped else "not taken"
        return (f"○ refused{hand}" if hand else f"○ {stopped}", "$text-warning")
    step = next((s for s in reversed(round.steps) if s.status == "running"), None)
    return (f"◌ {step.role} {VERBS[step.stage]} …" if step else "◌ …", "$text-primary")


def _asides(round: Round) -> Content:
    """What the user added, what the librarian searched, what failed."""
    lines = [plain(f"↳ you added: {words}", "$text-accent") for words in round.steering]
    lines += [plain(f"✗ {s.role} failed: {s.error}", "$text-error") for s in round.steps if s.status == "failed"]
    return Content("\n").join(lines)


def _tabs(views: list[View], view: View, run: Run, round: Round) -> Content:
    before = _before(round, run)
    names = {
        "answer": "answer",
        "diff": f"diff r{before.number}→r{round.number}" if before else "diff",
        "candidates": f"candidates {len(candidates(round))}",
    }
    parts = [Content.styled(f" {names[v]} ", "bold reverse" if v == view else "$text-muted") for v in views]
    return Content(" ").join(parts)


def _verdict(round: Round) -> Content:
    if round.finished is None:
        return Content("")
    lines = [plain(f"→ {round.finished.reason}", "$text-muted")]
    lines += [
        plain(f"  {s.stage} was cut: the budget or the context was spent", "$text-warning")
        for s in round.steps
        if s.status == "cut"
    ]
    return Content("\n").join(lines)
