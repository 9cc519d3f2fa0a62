"""The sessions in the store: resume one, search them, rename, delete."""

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from preflexor_agents.errors import PreflexorError
from preflexor_agents.store.sessions import Session
from preflexor_tui.journal import Journal
from preflexor_tui.widgets.text import plain, plural


class SessionsScreen(ModalScreen[int | None]):
    """Choose a session; gives its id, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Back", id="sessions.close"),
        Binding("ctrl+n", "rename", "Rename", id="sessions.rename", priority=True),
        Binding("delete", "delete", "Delete", id="sessions.delete", tooltip="Pressed twice, the session is deleted"),
        Binding("down", "list", "To the list", id="sessions.list", show=False),
    ]

    def __init__(self, journal: Journal) -> None:
        super().__init__(id="sessions")
        self._journal = journal
        self._found: list[Session] = []
        self._renaming: int | None = None
        self._condemned: int | None = None

    def compose(self) -> ComposeResult:
        """Search, list, message."""
        with Vertical(classes="box"):
            yield Static(plain("Sessions", "bold"), classes="title", markup=False)
            yield Input(placeholder="search names, questions and answers", id="search")
            yield OptionList(id="found", markup=False)
            yield Static(classes="message", markup=False)
            yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Show the latest ones."""
        self.query_one(Input).focus()
        self.search("")

    @work(exclusive=True, group="search", exit_on_error=False)
    async def search(self, text: str) -> None:
        """Show the sessions that a text finds."""
        try:
            self._found = await self._journal.call(lambda sessions: sessions.find(text))
        except PreflexorError as e:
            self._say(str(e), "$text-error")
            return
        options = self.query_one("#found", OptionList)
        at = options.highlighted
        options.clear_options()
        options.add_options([Option(self._label(session), id=str(session.id)) for session in self._found])
        if self._found:
            options.highlighted = min(at or 0, len(self._found) - 1)
        self._say(plural(len(self._found), "session") if self._found else "no session found")

    @on(Input.Changed, "#search")
    def _typed(self, event: Input.Changed) -> None:
        if self._renaming is None:
            self.search(event.value)

    @on(Input.Submitted, "#search")
    async def _submitted(self, event: Input.Submitted) -> None:
        if self._renaming is None:
            session = self._chosen()
            if session is not None:
                self.dismiss(session.id)
            return
        session_id, self._renaming = self._renaming, None
        try:
            await self._journal.call(lambda sessions: sessions.rename(session_id, event.value))
        except PreflexorError as e:
            self._renaming = session_id
            self._say(str(e), "$text-error")
            return
        self.query_one(Input).value = ""
        self.search("")

    @on(OptionList.OptionSelected, "#found")
    def _resume(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(int(event.option_id or 0))

    def action_close(self) -> None:
        """Back to the chat, or out of renaming."""
        if self._renaming is None:
            self.dismiss(None)
            return
        self._renaming = None
        self.query_one(Input).value = ""

    def action_list(self) -> None:
        """Go from the search to the list."""
        self.query_one("#found").focus()

    def action_rename(self) -> None:
        """Put the name where the search is typed; enter gives it."""
        session = self._chosen()
        if session is None:
            return
        self._renaming = session.id
        field = self.query_one(Input)
        field.value = session.name
        field.focus()
        self._say(f"a new name for “{session.name}”, then enter; esc leaves it")

    async def action_delete(self) -> None:
        """Delete the session, if it is asked for twice."""
        session = self._chosen()
        if session is None:
            return
        if self._condemned != session.id:
            self._condemned = session.id
            self._say(
                f"press delete again to delete “{session.name}” with {plural(session.runs, 'run')}", "$text-warning"
            )
            return
        self._condemned = None
        try:
            await self._journal.call(lambda sessions: sessions.delete(session.id))
        except PreflexorError as e:
            self._say(str(e), "$text-error")
            return
        if self._journal.session_id == session.id:
            self._journal.session_id = None
        self.search(self.query_one(Input).value)

    def _chosen(self) -> Session | None:
        at = self.query_one("#found", OptionList).highlighted
        return self._found[at] if at is not None and at < len(self._found) else None

    def _say(self, text: str, style: str = "$text-muted") -> None:
        self.query_one(".message", Static).update(plain(text, style))

    def _label(self, session: Session) -> Content:
        mark = "● " if session.id == self._journal.session_id else "  "
        when = session.changed_at[:16].replace("T", " ")
        question = " ".join(session.question.split())
        named = question != session.name and question
        lines = [
            Content.assemble(
                mark, plain(session.name, "bold"), (f"  {plural(session.runs, 'run')}  {when}", "$text-muted")
            )
        ]
        if named:
            lines.append(plain(f"  {question[:100]}", "$text-muted"))
        return Content("\n").join(lines)
