"""The sources of a run: the quotes that the answer stands on, and the passages that were found."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from preflexor_agents.events import Citation, Passage
from preflexor_tui.state.run import Run
from preflexor_tui.widgets.text import plain

PASSAGE_CHARS = 240


class Source(Static, can_focus=True):
    """One quote or passage; enter opens its file."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,o", "open", "Open", id="source.open", tooltip="Open the source with the system's program"),
        Binding("y", "copy", "Copy", id="source.copy", tooltip="Copy the quote"),
        Binding("j,down", "app.focus_next", "Next", id="source.next", show=False),
        Binding("k,up", "app.focus_previous", "Previous", id="source.previous", show=False),
    ]

    class Opened(Message):
        """The user wants to see the source itself."""

        def __init__(self, source: str) -> None:
            super().__init__()
            self.source = source

    def __init__(self, content: Content, *, source: str, quote: str, cited: bool) -> None:
        super().__init__(content, classes=f"source {'-cited' if cited else '-found'}", markup=False)
        self._source, self._quote = source, quote

    def on_click(self, event: Click) -> None:
        """A second click on the focused source opens it."""
        if event.chain == 2:
            self.action_open()

    def action_open(self) -> None:
        """Ask for the source."""
        self.post_message(self.Opened(self._source))

    def action_copy(self) -> None:
        """Copy the quote."""
        self.app.copy_to_clipboard(self._quote)
        self.notify("quote copied")


class Citations(VerticalScroll, can_focus=False):
    """The sources of the run that is shown."""

    def __init__(self) -> None:
        super().__init__(id="citations")
        self._shown: object = ()

    def compose(self) -> ComposeResult:
        """Nothing to show at first."""
        yield Static("Sources of the answer appear here.", classes="hint", markup=False)

    async def show(self, run: Run) -> None:
        """Show the sources of a run."""
        if self._shown == (run.passages, run.cited):
            return
        self._shown = (run.passages, run.cited)
        cited = {c.number for c in run.citations}
        sources = [_quoted(c) for c in run.citations]
        sources += [_passage(n, p) for n, p in enumerate(run.passages, 1) if n not in cited]
        await self.remove_children()
        if sources:
            await self.mount_all(sources)
        else:
            await self.mount(
                Static(
                    "No passage was found." if run.cited else "Sources of the answer appear here.",
                    classes="hint",
                    markup=False,
                )
            )


def _quoted(c: Citation) -> Source:
    page = f"  page {c.page}" if c.page is not None else ""
    content = Content.assemble(
        (f"[{c.number}] ", "bold $text-success"),
        plain(c.title, "bold"),
        plain(f"{page}\n", "$text-muted"),
        plain(f"“{' '.join(c.quote.split())}”\n"),
        plain(_short(c.source), "$text-muted"),
    )
    return Source(content, source=c.source, quote=c.quote, cited=True)


def _short(source: str) -> str:
    """A long path by its end."""
    parts = source.split("/")
    return source if len(parts) <= 3 or "://" in source else "…/" + "/".join(parts[-2:])


def _passage(number: int, p: Passage) -> Source:
    page = f"  page {p.page}" if p.page is not None else ""
    text = " ".join(p.text.split())
    content = Content.assemble(
        (f"[{number}] ", "$text-muted"),
        plain(p.title),
        plain(f"{page}  found, not cited\n", "$text-muted"),
        plain(text if len(text) <= PASSAGE_CHARS else text[:PASSAGE_CHARS] + " …", "$text-muted"),
    )
    return Source(content, source=p.source, quote=p.text, cited=False)
