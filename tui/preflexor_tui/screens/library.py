"""The library: the documents in the store, their chunks, what a search finds and why; and putting more in."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Input, OptionList, ProgressBar, Static
from textual.widgets.data_table import RowKey
from textual.widgets.option_list import Option

from preflexor_agents.cli.ingest import last_part, rates, work_done
from preflexor_agents.errors import PreflexorError
from preflexor_agents.events import Passage
from preflexor_agents.store import IngestProgress, IngestReport, Store
from preflexor_agents.store.browsing import StoredDocument, chunks, documents
from preflexor_tui.screens.library_text import chunk_text, passage_text, short, size
from preflexor_tui.screens.page import WIDE, Page, tilde
from preflexor_tui.widgets.text import plain, plural

RESULTS = 20
MOST_SHOWN = 300
DRAW_S = 0.1
OTHER_CELLS = 19
"""What the columns beside the title take."""


class IngestStopped(PreflexorError):
    """The user ended an ingest; what was done stays."""


class LibraryScreen(Page):
    """Documents on one side, chunks or hits on the other."""

    TITLE = "Library"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", id="library.search"),
        Binding("i", "ingest", "Add documents", id="library.ingest"),
        Binding("o", "open", "Open the source", id="library.open"),
        Binding("x", "stop", "Stop adding", id="library.stop"),
    ]

    def __init__(self, stores: Callable[[], tuple[Path, Path]], *, added: Callable[[], None]) -> None:
        """Show a store.

        Args:
            stores: the store that is searched, and the user's own, which documents are added to.
            added: told when documents were added.
        """
        super().__init__()
        self._stores = stores
        self._added = added
        self._path = stores()[0]
        self._store: Store | None = None
        self._documents: dict[str, StoredDocument] = {}
        self._sources: list[str] = []
        """Of what the right side shows, line by line."""
        self._progress: IngestProgress | None = None
        self._stopping = False
        self._adding = False
        self._lists_failures = False
        self._began_s = 0.0

    def parts(self) -> ComposeResult:
        """Search line, the two sides, and the line for adding."""
        yield Input(placeholder="search the documents; enter shows passages", id="library-query")
        with Horizontal(id="library-sides"):
            yield DataTable(id="library-documents", cursor_type="row", zebra_stripes=True)
            with Vertical(id="library-right"):
                yield Static("", id="library-heading", markup=False)
                yield OptionList(id="library-pieces", markup=False)
        with Horizontal(id="library-adding"):
            yield Static("", id="library-file", markup=False)
            yield ProgressBar(id="library-bar", show_eta=True)
        yield Input(placeholder="folder or file to add; enter adds it, escape leaves", id="library-path")

    def on_mount(self) -> None:
        """List what there is."""
        table = self.query_one(DataTable)
        table.add_column("title", key="title")
        table.add_column("chunks", key="chunks")
        table.add_column("pages", key="pages")
        self.query_one("#library-path").display = False
        self.query_one("#library-adding").display = False
        self.set_interval(DRAW_S, self._draw_progress)
        table.focus()

    def on_screen_resume(self) -> None:
        """List what there is at present."""
        self._turn_to(self._stores()[0])

    def _turn_to(self, path: Path) -> None:
        if path != self._path:
            self._path = path
            self._close()
        self.list_documents(self.query_one("#library-query", Input).value.strip())

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def on_unmount(self) -> None:
        """Close the store."""
        self._stopping = True
        self._close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stopping is offered while something is added."""
        return self._adding if action == "stop" else True

    @work(exclusive=True, group="list")
    async def list_documents(self, containing: str = "") -> None:
        """Show the documents with these words in their names; all of them where none has."""
        if not self._path.exists():
            self.describe(f"{tilde(self._path)}: no documents yet")
            self.tell("Nothing in the store yet. Press i and name a folder with papers or notes.")
            return
        try:
            named = await asyncio.to_thread(documents, self._path, containing=containing)
            found = named or await asyncio.to_thread(documents, self._path)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        self._documents = {str(document.id): document for document in found}
        table: DataTable[object] = self.query_one(DataTable)
        table.clear()
        for key, d in self._documents.items():
            pages = str(d.pages) if d.pages else "-"
            table.add_row(short(d.title, most=self._title_cells), str(d.chunks), pages, key=key)
        self.describe(f"{tilde(self._path)}: {plural(len(found), 'document')}, {sum(d.chunks for d in found)} chunks")

    @property
    def _title_cells(self) -> int:
        """Columns that the other figures of a document leave for its title."""
        width = self.app.size.width
        side = width - 4 if width < WIDE else (width - 6) * 2 // 5
        return max(10, side - OTHER_CELLS)

    @on(DataTable.RowHighlighted)
    def _pass(self, event: DataTable.RowHighlighted) -> None:
        """Show a document as the cursor comes to it; a list that is drawn anew under the cursor chooses nothing."""
        if self._lists_failures or not event.data_table.has_focus:
            self._lists_failures = False
        else:
            self._choose(event.row_key)

    @on(DataTable.RowSelected)
    def _select(self, event: DataTable.RowSelected) -> None:
        self._choose(event.row_key)

    def _choose(self, key: RowKey) -> None:
        document = self._documents.get(str(key.value))
        if document is not None:
            self.show_document(document)

    @work(exclusive=True, group="right")
    async def show_document(self, document: StoredDocument) -> None:
        """Show the chunks of a document."""
        try:
            found = await asyncio.to_thread(chunks, self._path, document.source, most=MOST_SHOWN)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        more = f", the first {MOST_SHOWN}" if document.chunks > len(found) else ""
        self._fill(
            f"{tilde(Path(document.source))}\n{size(document.size_bytes)}, {plural(document.chunks, 'chunk')}{more}",
            [chunk_text(c) for c in found],
        )
        self._sources = [document.source] * len(found)

    @on(Input.Changed, "#library-query")
    def _narrow(self, event: Input.Changed) -> None:
        self.list_documents(event.value.strip())

    @on(Input.Submitted, "#library-query")
    def _ask(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.search(event.value)

    @work(exclusive=True, group="right")
    async def search(self, query: str) -> None:
        """Show the passages that fit, with both ranks and scores."""
        self.tell("searching", "busy")
        try:
            found: list[Passage] = await asyncio.to_thread(self._search, query)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        self.tell("")
        self._fill(
            f"{plural(len(found), 'passage')} for “{' '.join(query.split())}”" if found else "nothing found",
            [passage_text(number, passage) for number, passage in enumerate(found, 1)],
        )
        self._sources = [passage.source for passage in found]
        if found:
            self.query_one(OptionList).focus()

    def _search(self, query: str) -> list[Passage]:
        if self._store is None:
            self._store = Store.open(self._path, create=False)
        return list(self._store.search(query, k=RESULTS))

    def _fill(self, heading: str, pieces: list[object]) -> None:
        self.query_one("#library-heading", Static).update(plain(heading, "dim"))
        shown = self.query_one(OptionList)
        shown.clear_options()
        shown.add_options([Option(piece) for piece in pieces])  # type: ignore[arg-type]
        if pieces:
            shown.highlighted = 0

    def action_search(self) -> None:
        """Go to the search line."""
        self.query_one("#library-query").focus()

    def action_open(self) -> None:
        """Open the file of the piece or document under the cursor with what the system uses for it."""
        pieces = self.query_one(OptionList)
        at = pieces.highlighted
        if at is None or at >= len(self._sources):
            self.tell("choose a document or a passage first")
            return
        if self.app.is_web:
            self.tell("files open on the machine that serves this page only")
            return
        source = Path(self._sources[at])
        if not source.is_file():
            self.tell(f"{source} is not there any more", "bad")
            return
        self.app.open_url(source.absolute().as_uri())
        self.tell(f"opening {source}")

    def action_ingest(self) -> None:
        """Ask for a folder."""
        if self._adding:
            self.tell("one folder at a time; x stops the one at hand")
            return
        line = self.query_one("#library-path", Input)
        line.display = True
        line.focus()

    def action_leave(self) -> None:
        """Leave the line for adding, or the page."""
        line = self.query_one("#library-path", Input)
        if line.display:
            self._hide(line)
            return
        super().action_leave()

    def action_stop(self) -> None:
        """End the ingest after what it is at."""
        self._stopping = True

    @on(Input.Submitted, "#library-path")
    def _add(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self._hide(event.input)
            self.ingest(Path(event.value.strip()).expanduser())

    def _hide(self, line: Input) -> None:
        line.value = ""
        line.display = False
        self.query_one(DataTable).focus()

    @work(exclusive=True, group="ingest")
    async def ingest(self, path: Path) -> None:
        """Put a file or a folder into the store; what failed is listed."""
        self._adding, self._stopping, self._progress = True, False, None
        self._began_s = time.monotonic()
        self.refresh_bindings()
        self.tell(f"adding {path}", "busy")
        try:
            report = await asyncio.to_thread(self._ingest, path)
        except IngestStopped:
            self.tell("stopped; the documents that were done are in the store")
        except PreflexorError as e:
            self.tell(str(e), "bad")
        else:
            self.tell(f"{report} in {report.seconds:.1f} s", "bad" if report.failed else "good")
            if report.failed or report.notes:
                lines = [*report.failed, *report.notes]
                self._fill(plural(len(report.failed), "failed document"), [plain(line) for line in lines])
                self._sources = []
                self._lists_failures = True
        finally:
            self._adding = False
            if self.is_attached:
                self.query_one("#library-adding").display = False
                self.refresh_bindings()
                self._added()
                self._turn_to(self._stores()[1])

    def _ingest(self, path: Path) -> IngestReport:
        """On a connection of its own, so that a search need not wait, and closed by this thread whatever happens."""
        with Store.open(self._stores()[1]) as store:
            return store.ingest([path], progress=self._heard)

    def _heard(self, progress: IngestProgress) -> None:
        """Called in the ingest's thread."""
        self._progress = progress
        if self._stopping:
            raise IngestStopped("stopped")

    def _draw_progress(self) -> None:
        now = self._progress
        if not self._adding or now is None:
            return
        self.query_one("#library-adding").display = True
        self.query_one(ProgressBar).update(total=1.0, progress=work_done(now))
        line = f"{rates(now, time.monotonic() - self._began_s)}  {last_part(now.source)}"
        self.query_one("#library-file", Static).update(plain(line))
