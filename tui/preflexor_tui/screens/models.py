"""The models on this machine: use one, load it or let it go, and pull more from Ollama."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Input, ProgressBar, Static

from preflexor_agents.backends.installed import Installed, Place, installed
from preflexor_agents.cli.show import inert
from preflexor_agents.errors import PreflexorError
from preflexor_tui import ollama_jobs
from preflexor_tui.ollama_jobs import InMemory, Pulled
from preflexor_tui.screens.library_text import size
from preflexor_tui.screens.page import Page
from preflexor_tui.widgets.text import count, plain

COLUMNS = ("model", "state", "size", "can", "where", "numbers", "context")
NARROW_COLUMNS = COLUMNS[:5]


class ModelsScreen(Page):
    """One table; below it what is being fetched."""

    TITLE = "Models"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull", "Pull from Ollama", id="models.pull"),
        Binding("l", "load", "Load", id="models.load"),
        Binding("u", "unload", "Unload", id="models.unload"),
        Binding("r", "look", "Look again", id="models.look"),
        Binding("x", "stop", "Stop pulling", id="models.stop"),
    ]

    def __init__(
        self,
        *,
        current: Callable[[], str],
        held: Callable[[], tuple[str, ...]],
        let_go: Callable[[], Awaitable[None]],
        choose: Callable[[str], None],
    ) -> None:
        """Show the models.

        Args:
            current: the SPEC of the next run.
            held: SPECs that are open in this process.
            let_go: closes those.
            choose: makes a SPEC that of the next run. Raises PreflexorError.
        """
        super().__init__()
        self._current = current
        self._held = held
        self._let_go = let_go
        self._choose = choose
        self._models: dict[str, Installed] = {}
        self._pulling = False

    def parts(self) -> ComposeResult:
        """Table, what could not be looked at, the pull."""
        yield DataTable(id="models-table", cursor_type="row", zebra_stripes=True)
        yield Static("", id="models-problems", markup=False)
        with Horizontal(id="models-pulling"):
            yield Static("", id="models-pulled", markup=False)
            yield ProgressBar(id="models-bar")
        yield Input(placeholder="name of a model, like qwen3:4b; enter pulls it", id="models-name")

    def on_mount(self) -> None:
        """Look what there is."""
        self.query_one("#models-name").display = False
        self.query_one("#models-pulling").display = False
        table: DataTable[object] = self.query_one(DataTable)
        table.focus()

    def on_screen_resume(self) -> None:
        """Look again: something may have changed meanwhile."""
        self.look()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stopping is offered while something is pulled."""
        return self._pulling if action == "stop" else True

    def action_look(self) -> None:
        """Look again."""
        self.look()

    @work(exclusive=True, group="look")
    async def look(self) -> None:
        """List the models, and what is in memory."""
        self.describe("looking")
        try:
            places, memory = await asyncio.gather(installed(), ollama_jobs.in_memory())
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        table: DataTable[object] = self.query_one(DataTable)
        row = table.cursor_row
        table.clear(columns=True)
        columns = NARROW_COLUMNS if self.has_class("-narrow") else COLUMNS
        table.add_columns(*columns)
        self._models = {}
        for place in places:
            for model in place.models:
                key = str(len(self._models))
                self._models[key] = model
                table.add_row(*self._cells(place, model, memory)[: len(columns)], key=key)
        table.move_cursor(row=row)
        found = sum(m.size_bytes for m in self._models.values())
        self.describe(f"{len(self._models)} here, {size(found)}; the next run uses {self._current()}")
        problems = [f"{place.name}: {place.problem}" for place in places if place.problem]
        problems += [f"{m.name}: {m.problem}" for place in places for m in place.models if m.problem]
        self.query_one("#models-problems", Static).update(plain("\n".join(problems)))

    def _cells(self, place: Place, model: Installed, memory: dict[str, InMemory]) -> list[Text]:
        context = count(model.context_tok) if model.context_tok else ""
        state = _state(model, memory.get(model.name), used=model.spec == self._current(), held=self._held())
        can = ", ".join(word for word in model.can if word != "completion")
        texts = (model.name, state, size(model.size_bytes), can, place.name, model.level, context)
        style = "dim" if model.problem or not model.spec else ""
        return [Text(inert(text), style=style, no_wrap=True) for text in texts]

    @property
    def _under_cursor(self) -> Installed | None:
        table: DataTable[object] = self.query_one(DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return self._models.get(str(key))

    @on(DataTable.RowSelected)
    def _use(self) -> None:
        model = self._under_cursor
        if model is None:
            return
        if not model.spec or model.problem:
            self.tell(f"{model.name} cannot be used: {model.problem}", "bad")
            return
        try:
            self._choose(model.spec)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        self.tell(f"the next run uses {model.spec}", "good")
        self.look()

    @work(exclusive=True, group="memory")
    async def action_load(self) -> None:
        """Put the model under the cursor into memory."""
        model = self._under_cursor
        if model is None:
            return
        if not model.spec.startswith("ollama:"):
            self.tell("a model of this process is loaded when it is used: choose it with enter")
            return
        self.tell(f"loading {model.name}", "busy")
        try:
            await ollama_jobs.load(model.name)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        self.tell(f"{model.name} is in memory", "good")
        self.look()

    @work(exclusive=True, group="memory")
    async def action_unload(self) -> None:
        """Take the model under the cursor out of memory."""
        model = self._under_cursor
        if model is None:
            return
        try:
            if model.spec.startswith("ollama:"):
                await ollama_jobs.unload(model.name)
            elif model.spec in self._held():
                await self._let_go()
            else:
                self.tell(f"{model.name} is not in memory")
                return
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        self.tell(f"{model.name} is out of memory", "good")
        self.look()

    def action_pull(self) -> None:
        """Ask for a name."""
        if self._pulling:
            self.tell("one model at a time; x stops the one at hand")
            return
        line = self.query_one("#models-name", Input)
        line.display = True
        line.focus()

    def action_leave(self) -> None:
        """Leave the line for a name, or the page."""
        line = self.query_one("#models-name", Input)
        if line.display:
            line.display = False
            self.query_one(DataTable).focus()
            return
        super().action_leave()

    @on(Input.Submitted, "#models-name")
    def _named(self, event: Input.Submitted) -> None:
        event.input.display = False
        self.query_one(DataTable).focus()
        if event.value.strip():
            self.pull(event.value.strip())

    @work(exclusive=True, group="pull")
    async def pull(self, name: str) -> None:
        """Fetch a model; stopping keeps what came, and the next pull goes on from there."""
        self._pulling = True
        self.refresh_bindings()
        self.query_one("#models-pulling").display = True
        self.tell(f"pulling {name}", "busy")
        try:
            async with aclosing(ollama_jobs.pull(name)) as steps:
                async for step in steps:
                    self._draw_pull(step)
        except PreflexorError as e:
            self.tell(str(e), "bad")
        except asyncio.CancelledError:
            if self.is_attached:
                self.tell(f"stopped; what came of {name} is kept, pull it again to go on")
            raise
        else:
            self.tell(f"{name} is here", "good")
            self.look()
        finally:
            self._pulling = False
            if self.is_attached:
                self.query_one("#models-pulling").display = False
                self.refresh_bindings()

    def _draw_pull(self, step: Pulled) -> None:
        self.query_one(ProgressBar).update(total=step.total or None, progress=step.done)
        amount = f"{size(step.done)} of {size(step.total)}" if step.total else ""
        self.query_one("#models-pulled", Static).update(plain(f"{step.status}  {amount}"))

    def action_stop(self) -> None:
        """Stop pulling."""
        self.workers.cancel_group(self, "pull")


def _state(model: Installed, memory: InMemory | None, *, used: bool, held: tuple[str, ...]) -> str:
    words = ["● next run"] if used else []
    if model.spec and model.spec in held:
        words.append("in this process")
    if memory is not None:
        gpu = f", {size(memory.vram_bytes)} on the GPU" if memory.vram_bytes else ""
        until = f" until {memory.expires_at.astimezone():%H:%M}" if memory.expires_at else ""
        words.append(f"in memory ({size(memory.size_bytes)}{gpu}){until}")
    if model.problem:
        words.append("cannot be used")
    return ", ".join(words)
