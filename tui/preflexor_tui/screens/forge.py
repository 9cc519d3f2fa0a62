"""Preference rows: the chosen and the rejected answer side by side, what differs word by word, context, scores."""

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from preflexor_agents.errors import PreflexorError
from preflexor_agents.preference_rows import Row, RowFile, open_rows
from preflexor_agents.run_folder import shown
from preflexor_agents.word_diff import Piece, change, word_diff
from preflexor_tui.screens.page import Page, tilde
from preflexor_tui.widgets.diff_view import STYLES
from preflexor_tui.widgets.text import plain, plural


class ForgeScreen(Page):
    """One row at a time; left and right go through the file."""

    TITLE = "Preference rows"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "step(1)", "Next", id="forge.next"),
        Binding("left,p", "step(-1)", "Previous", id="forge.previous"),
        Binding("g", "go", "Go to a row", id="forge.go"),
        Binding("d", "toggle_marks", "Mark differences", id="forge.marks"),
        Binding("f", "open", "Another file", id="forge.open"),
    ]

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self._file = file
        self._rows: RowFile | None = None
        self._at = 0
        self._row: Row | None = None
        self._pieces: tuple[Piece, ...] = ()
        self._marks = True

    def parts(self) -> ComposeResult:
        """The line for a file, the question, the two answers."""
        yield Input(placeholder="a .jsonl or .json file with chosen and rejected answers", id="forge-file")
        yield Input(placeholder="row number", id="forge-number", type="integer")
        with VerticalScroll(id="forge-top"):
            yield Static("", id="forge-prompt", markup=False)
        with Horizontal(id="forge-sides"):
            for side in ("chosen", "rejected"):
                with VerticalScroll(id=f"forge-{side}", classes="side"):
                    yield Static("", classes="head", markup=False)
                    yield Static("", classes="text", markup=False)
        yield Static("", id="forge-numbers", markup=False)

    def on_mount(self) -> None:
        """Open the file that was named."""
        self.query_one("#forge-number").display = False
        if self._file is None:
            self._ask_for_file()
        else:
            self.open_file(self._file)

    def show_path(self, path: Path) -> None:
        """Show another file."""
        self._file = path
        if self.is_mounted:
            self.open_file(path)

    @work(exclusive=True, group="forge")
    async def open_file(self, path: Path) -> None:
        """Read where the rows are, and show the first."""
        self.tell(f"reading {path}", "busy")
        try:
            rows = await asyncio.to_thread(open_rows, path)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            self._ask_for_file()
            return
        self.query_one("#forge-file").display = False
        self._rows, self._at = rows, 0
        self.describe(f"{tilde(path)}: {plural(len(rows), 'row')}")
        self.query_one("#forge-chosen").focus()
        await self._show()

    @work(exclusive=True, group="forge")
    async def show_row(self, number: int) -> None:
        """Show the row, 0-based; beyond the ends the nearest one."""
        if self._rows is None or not len(self._rows):
            return
        self._at = max(0, min(number, len(self._rows) - 1))
        await self._show()

    async def _show(self) -> None:
        rows = self._rows
        if rows is None or not len(rows):
            self.tell("the file holds no rows")
            return
        where = f"row {self._at + 1} of {len(rows)}"
        try:
            self._row = await asyncio.to_thread(rows.row, self._at)
        except PreflexorError as e:
            self._row = Row("", "", "")
            self.tell(f"{where}: {e}", "bad")
        else:
            self.tell(where)
        self._pieces = await asyncio.to_thread(word_diff, self._row.rejected, self._row.chosen)
        self._draw()

    def _draw(self) -> None:
        row = self._row
        if row is None:
            return
        prompt = Content.assemble(("prompt", "bold dim"), "\n", plain(row.prompt or "(none)"))
        if row.context:
            prompt = Content.assemble(prompt, "\n\n", ("context", "bold dim"), "\n", plain(row.context))
        self.query_one("#forge-prompt", Static).update(prompt)
        gone, came = change(self._pieces)
        self._draw_side("chosen", row.chosen, "✓ chosen", f"+{came} words", skip="gone")
        self._draw_side("rejected", row.rejected, "✗ rejected", f"-{gone} words", skip="new")
        facts = [f"{name} {shown(number)}" for name, number in row.numbers.items()]
        facts += [f"{name}: {text}" for name, text in row.notes.items()]
        self.query_one("#forge-numbers", Static).update(plain(" · ".join(" ".join(f.split()) for f in facts)))
        for scroll in self.query(VerticalScroll):
            scroll.scroll_home(animate=False)

    def _draw_side(self, side: str, text: str, name: str, count: str, *, skip: str) -> None:
        colour = "$text-success" if side == "chosen" else "$text-error"
        head = Content.assemble((name, f"bold {colour}"), (f"  {len(text.split())} words, {count}", "dim"))
        self.query_one(f"#forge-{side} .head", Static).update(head)
        marked = self._marks and self._row is not None and self._row.chosen and self._row.rejected
        pieces = [plain(p.text, STYLES[p.kind]) for p in self._pieces if p.kind != skip]
        body = Content("").join(pieces) if marked else plain(text or "(this row has one answer only)")
        self.query_one(f"#forge-{side} .text", Static).update(body)

    def action_step(self, by: int) -> None:
        """Go to another row."""
        self.show_row(self._at + by)

    def action_go(self) -> None:
        """Ask for a row number."""
        line = self.query_one("#forge-number", Input)
        line.display = True
        line.focus()

    def action_toggle_marks(self) -> None:
        """Show or hide what differs."""
        self._marks = not self._marks
        self._draw()

    def action_open(self) -> None:
        """Ask for another file."""
        self._ask_for_file()

    def action_leave(self) -> None:
        """Leave a line that asks, or the page."""
        number, file = self.query_one("#forge-number"), self.query_one("#forge-file")
        if number.display or (file.display and self._rows is not None):
            number.display = file.display = False
            self.query_one("#forge-chosen").focus()
            return
        super().action_leave()

    def _ask_for_file(self) -> None:
        line = self.query_one("#forge-file", Input)
        line.display = True
        line.focus()

    @on(Input.Submitted, "#forge-file")
    def _named(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.open_file(Path(event.value.strip()).expanduser())

    @on(Input.Submitted, "#forge-number")
    def _numbered(self, event: Input.Submitted) -> None:
        event.input.display = False
        self.query_one("#forge-chosen").focus()
        if event.value.strip().lstrip("+-").isdecimal():
            self.show_row(int(event.value) - 1)
        event.input.value = ""
