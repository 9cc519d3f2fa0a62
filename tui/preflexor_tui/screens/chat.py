"""The chat: ask, watch every round, take part. What is drawn is `Run`; what is done goes through `Driver`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option
from textual.worker import Worker, WorkerState

from preflexor_agents.errors import PreflexorError
from preflexor_agents.events import Event
from preflexor_tui import slash
from preflexor_tui.conversation import Conversation, Turn
from preflexor_tui.screens import chat_acts, chat_commands
from preflexor_tui.state.run import Run
from preflexor_tui.state.status import doing
from preflexor_tui.widgets.branches import Branches
from preflexor_tui.widgets.citations import Citations, Source
from preflexor_tui.widgets.composer import Composer
from preflexor_tui.widgets.graph_tree import GraphTree
from preflexor_tui.widgets.growing import Log
from preflexor_tui.widgets.meter import Meter
from preflexor_tui.widgets.notice import Notice
from preflexor_tui.widgets.round_card import RoundCard
from preflexor_tui.widgets.section import Section
from preflexor_tui.widgets.text import plain
from preflexor_tui.widgets.turn_view import TurnView
from preflexor_tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from preflexor_tui.app import PreflexorApp

LEAVE_S = 2.0
"""How long leaving waits for a run to stop."""
TICK_S = 0.5
"""How often the clock is drawn and the log is saved."""


class ChatScreen(Screen[None]):
    """One conversation."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (170, "-very-wide")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "escape", "Stop", id="chat.stop", show=False),
        Binding("ctrl+t", "thinking", "Thinking", id="chat.thinking", show=False),
        Binding("ctrl+g", "aside", "Sources", id="chat.sources", show=False),
        Binding("ctrl+b", "sidebar", "Branches", id="chat.branches", show=False),
        Binding("ctrl+r", "sessions", "Sessions", id="chat.sessions", tooltip="Resume, search, rename, delete"),
        Binding("ctrl+o", "rounds", "Rounds", id="chat.rounds", show=False),
    ]

    app: "PreflexorApp"

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(id="chat")
        self.conversation = conversation
        self.active: Turn | None = None
        """The turn that runs."""
        self.views: dict[Turn, TurnView] = {}
        self.queue: list[str] = []
        """What is to be asked when the run is over."""
        self.editing: Turn | None = None
        """The turn whose question is in the composer to be asked in other words."""
        self.looked_up: tuple[str, ...] = ()
        """The texts that the graph was asked about last."""
        self._loading = ""
        self._began = 0.0
        self._saving = False

    def compose(self) -> ComposeResult:
        """Meter, branches, the conversation, sources, composer."""
        yield Meter()
        with Horizontal(id="main"):
            yield Branches()
            with Vertical(id="middle"):
                with Log(id="log"):
                    yield Welcome()
                yield Notice(id="notice")
                yield Static(id="pending", markup=False)
                yield Static(id="status", markup=False)
                yield OptionList(id="completions")
                yield Composer()
            with TabbedContent(id="aside"):
                with TabPane("sources", id="sources-tab"):
                    yield Citations()
                with TabPane("graph", id="graph-tab"):
                    yield GraphTree()
        yield Footer()

    def on_mount(self) -> None:
        """Draw an empty conversation and load the model behind it."""
        self.query_one("#completions").can_focus = False
        self.query_one(Composer).focus()
        self.query_one(Log).anchor()
        self.set_interval(TICK_S, self._tick)
        self.draw_frame()
        self.call_after_refresh(self.app.began)

    # ---- running

    @property
    def shown(self) -> Run:
        """The run that the panes are about: the one that is going, else the last one."""
        turn = self.active or (self.conversation.turns[-1] if self.conversation.turns else None)
        return turn.run if turn else Run()

    def start(self, turn: Turn, events: AsyncGenerator[Event, None]) -> None:
        """Follow the events of a turn until they end."""
        self.active = turn
        self._began = self.app.clock()
        self.query_one(Log).anchor()
        self.query_one(Composer).focus()
        self.run_worker(self._drive(turn, events), name="run", group="run", exit_on_error=False)

    async def _drive(self, turn: Turn, events: AsyncGenerator[Event, None]) -> None:
        await self.save(turn)
        await self.refresh_branches()
        await self.paint()
        try:
            await turn.driver.follow(events, self.paint)
        except PreflexorError as e:
            turn.failure = str(e)
        finally:
            self.active = None
            self._loading = ""
        await self.save(turn)
        await self.refresh_branches()
        await self.paint()
        chat_acts.after(self, turn)

    @on(Worker.StateChanged)
    async def _broken(self, event: Worker.StateChanged) -> None:
        """Whatever breaks a worker is shown where it happened; the screen stays."""
        if event.state != WorkerState.ERROR or event.worker.name not in ("run", "load", "act"):
            return
        error = event.worker.error
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        turns = self.conversation.turns
        if event.worker.name == "run" and turns:
            turns[-1].failure = why
            await self.paint()
        else:
            self.query_one(Notice).show(why)

    @work(name="act", exit_on_error=False)
    async def act(self, command: str, argument: str = "") -> None:
        """Do what a command says; what it cannot do is shown."""
        try:
            await chat_commands.run(self, slash.Given(command, argument))
        except PreflexorError as e:
            self.query_one(Notice).show(str(e))

    @work(name="load", group="load", exclusive=True, exit_on_error=False)
    async def load_model(self) -> None:
        """Open what the next run needs, so that it begins at once."""
        try:
            await self.app.engine.open(self.app.setup, self.tell)
        except PreflexorError as e:
            self.query_one(Notice).show(str(e), retry=self.load_model)
        else:
            self.query_one(Notice).hide()
        self.tell("")

    def tell(self, line: str) -> None:
        """Show what is being opened; may be called from any thread."""
        self._loading = line
        self.app.call_later(self.draw_frame)

    async def save(self, turn: Turn) -> None:
        """Save what is new; if that does not work, it is said, and tried again with the next save."""
        journal = self.conversation.journal
        had_trouble = bool(journal.trouble)
        if not await journal.save(turn.entry):
            self.query_one(Notice).show(f"not saved yet: {journal.trouble}", retry=lambda: self.save_all())
        elif had_trouble:
            self.query_one(Notice).hide()

    @work(name="act", exit_on_error=False)
    async def save_all(self) -> None:
        """Save everything that is not saved yet."""
        for turn in self.conversation.turns:
            await self.save(turn)

    async def refresh_branches(self) -> None:
        """Draw the tree of branches."""
        try:
            await self.conversation.refresh()
        except PreflexorError:
            return  # the save before has said why
        self.query_one(Branches).show(self.conversation)

    # ---- drawing

    async def paint(self) -> None:
        """Draw what has changed."""
        if not self.is_mounted:
            return
        log = self.query_one(Log)
        turns = self.conversation.turns
        for turn in [t for t in self.views if t not in turns]:
            await self.views.pop(turn).remove()
        for turn in turns:
            if turn not in self.views:
                self.views[turn] = TurnView()
                await log.mount(self.views[turn])
            await self.views[turn].show(turn.run, failure=turn.failure)
        self.query_one(Welcome).display = not turns
        await self.query_one(Citations).show(self.shown)
        chat_acts.look_up(self)
        self.draw_frame()

    def draw_frame(self) -> None:
        """Draw everything around the conversation."""
        if not self.is_mounted:
            return
        setup, run = self.app.setup, self.shown
        model = run.model if self.active and run.models else setup.model
        elapsed_s = run.finished.seconds if run.finished else self.app.clock() - self._began if self.active else 0.0
        self.query_one(Meter).show(run, model=model, store=self.app.store_name, elapsed_s=elapsed_s)
        _line(self, "#status", plain(doing(run, loading=self._loading, running=self.active is not None), "$text-muted"))
        waiting = self.active.driver.waiting if self.active else ()
        lines = [plain(f"↳ for the next round: {text}") for text in waiting]
        lines += [plain(f"⇥ when this is over: {text}") for text in self.queue]
        lines += (
            [plain("✎ sent, this begins a branch in place of the question · esc leaves it")] if self.editing else []
        )
        lines += (
            [plain(f"✋ at the end of the round: {text}") for text in self.active.driver.orders] if self.active else []
        )
        lines += [plain("  up takes it back", "$text-muted")] if waiting or self.queue else []
        _line(self, "#pending", Content("\n").join(lines))

    async def _tick(self) -> None:
        self.draw_frame()
        if self.active is not None and not self._saving:
            self._saving = True
            self.run_worker(self._save_active(self.active), name="act", exit_on_error=False)

    async def _save_active(self, turn: Turn) -> None:
        await self.save(turn)
        self._saving = False

    # ---- what the user does

    @on(Composer.Sent)
    def _sent(self, event: Composer.Sent) -> None:
        if event.text.startswith("/") and not event.text.startswith("//"):
            try:
                given = slash.parse(event.text)
            except PreflexorError as e:
                self.query_one(Notice).show(str(e))
                return
            self.query_one(Notice).hide()
            self.act(given.name, given.argument)
        elif self.active is not None:
            self.active.driver.say(event.text)
            self.draw_frame()
        else:
            chat_acts.ask(self, event.text)

    @on(Composer.TakeBack)
    def _take_back(self) -> None:
        text = self.queue.pop() if self.queue else self.active.driver.take_back() if self.active else None
        composer = self.query_one(Composer)
        if text is None:
            composer.earlier()
        else:
            composer.load(text)
        self.draw_frame()

    @on(Composer.Changed)
    def _complete(self) -> None:
        found = slash.matching(self.query_one(Composer).text)
        completions = self.query_one("#completions", OptionList)
        completions.display = bool(found)
        completions.clear_options()
        completions.add_options([Option(_offered(command), id=command.name) for command in found])

    @on(Composer.Complete)
    def _completed(self) -> None:
        composer = self.query_one(Composer)
        composer.load(slash.completed(composer.text))

    @on(OptionList.OptionSelected, "#completions")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        composer = self.query_one(Composer)
        composer.load(slash.completed(f"/{event.option_id}"))
        composer.focus()

    @on(RoundCard.Asked)
    def _card(self, event: RoundCard.Asked) -> None:
        turn = next((t for t, view in self.views.items() if event.card in view.cards), None)
        if turn is not None:
            self.run_worker(
                chat_acts.with_round(self, turn, event.card.round.number, event.act), name="act", exit_on_error=False
            )

    @on(RoundCard.Looked)
    def _looked(self) -> None:
        self.query_one(Log).release_anchor()

    @on(TurnView.Retry)
    def _retry(self, event: TurnView.Retry) -> None:
        turn = next((t for t, view in self.views.items() if view is event.view), None)
        if turn is not None and self.active is None:
            chat_acts.retry(self, turn)

    @on(Source.Opened)
    def _open_source(self, event: Source.Opened) -> None:
        chat_acts.open_source(self, event.source)

    @on(Branches.Chosen)
    def _branch(self, event: Branches.Chosen) -> None:
        self.run_worker(chat_acts.show_branch(self, event.run_id), name="act", exit_on_error=False)

    def action_escape(self) -> None:
        """Stop the round, then the run; with nothing to stop, go back to the composer."""
        if self.active is None:
            self.editing = None
            self.query_one(Composer).focus()
        elif self.active.driver.escape() == "run" and not self.active.run.models:
            self.workers.cancel_group(self, "run")
        self.draw_frame()

    def action_thinking(self) -> None:
        """Show all thinking, or, if it is shown, hide it."""
        sections = list(self.query(".section.-thinking").results(Section))
        is_open = not any(section.is_open for section in sections)
        for section in sections:
            section.by_hand, section.is_open = True, is_open

    def action_aside(self) -> None:
        """Show or hide the panes at the right."""
        shown = self.query_one("#aside").display
        self.set_class(not shown, "-aside")
        self.set_class(shown, "-no-aside")

    def action_sidebar(self) -> None:
        """Show or hide the tree of branches."""
        shown = self.query_one(Branches).display
        self.set_class(not shown, "-sidebar")
        self.set_class(shown, "-no-sidebar")

    def action_sessions(self) -> None:
        """Resume, search, rename, delete sessions."""
        self.act("sessions")

    def action_rounds(self) -> None:
        """Put the focus on the last round."""
        cards = list(self.query(RoundCard))
        if cards:
            cards[-1].focus()

    async def leave(self) -> None:
        """Before the program ends: stop what runs, save everything, keep what is typed."""
        if self.active is not None:
            self.active.driver.control.stop.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.workers.wait_for_complete(self._runs()), LEAVE_S)
        for turn in self.conversation.turns:
            await self.save(turn)
        with suppress(PreflexorError):  # what could not be saved was said before
            await chat_acts.keep_draft(self)

    def _runs(self) -> list[Worker[object]]:
        return [worker for worker in self.workers if worker.name == "run"]


def _line(screen: ChatScreen, selector: str, content: Content) -> None:
    static = screen.query_one(selector, Static)
    static.display = bool(content.plain)
    if static.display and static.content != content:
        static.update(content)


def _offered(command: slash.Command) -> Content:
    name = f"/{command.name} {command.argument}".strip()
    return Content.assemble((f"{name:<22}", "bold"), (command.help, "$text-muted"))
