"""Training runs: curves from the run's folder while it is written, in words too, and what the model wrote."""

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from preflexor_agents.errors import PreflexorError
from preflexor_agents.run_folder import METRICS, RunFolder, Sample, described, find_runs
from preflexor_tui.extras import missing_extra
from preflexor_tui.screens.page import Page, tilde
from preflexor_tui.screens.training_plot import Plot
from preflexor_tui.widgets.text import duration, plain, plural

FOLLOW_S = 1.0
MOST_PLOTS = 12
LIVE_S = 120.0
"""A run that wrote nothing for so long counts as ended."""


class TrainingScreen(Page):
    """Runs on the left, the chosen one on the right; it is read on every second."""

    TITLE = "Training"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "open", "Open a folder", id="training.open"),
        Binding("w", "words", "In words", id="training.words"),
        Binding("r", "look", "Look again", id="training.look"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._runs: list[Path] = []
        self._run: RunFolder | None = None
        self._words = False
        self._timer: Timer | None = None
        self._drawn_samples = 0

    def parts(self) -> ComposeResult:
        """Runs, curves, samples, recipe."""
        yield Input(placeholder="a run's folder, or a folder of runs", id="training-folder")
        with Horizontal(id="training-sides"):
            with Vertical(id="training-left"):
                yield OptionList(id="training-runs", markup=False)
            with TabbedContent(id="training-tabs"):
                with TabPane("Curves", id="training-curves"):
                    yield Grid(id="training-plots")
                    yield VerticalScroll(Static("", id="training-described", markup=False), id="training-in-words")
                with TabPane("Samples", id="training-samples"):
                    yield OptionList(id="training-texts", markup=False)
                with TabPane("Recipe", id="training-recipe"), VerticalScroll():
                    yield Static("", id="training-config", markup=False)

    def on_mount(self) -> None:
        """Look for runs, and follow the newest."""
        self.query_one("#training-folder").display = False
        self.query_one("#training-in-words").display = False
        self._timer = self.set_interval(FOLLOW_S, self.follow)
        self.action_look()

    def show_path(self, path: Path) -> None:
        """Show another folder."""
        self._folder = path
        if self.is_mounted:
            self.look(path)

    def action_look(self) -> None:
        """Look for runs again."""
        self.look(self._folder)

    @work(exclusive=True, group="look")
    async def look(self, folder: Path) -> None:
        """List the runs in a folder."""
        self._runs = await asyncio.to_thread(find_runs, folder)
        self.describe(f"{tilde(folder)}: {plural(len(self._runs), 'run')}")
        listed = self.query_one("#training-runs", OptionList)
        listed.clear_options()
        listed.add_options([Option(plain(run.name)) for run in self._runs])
        if self._runs:
            listed.highlighted = 0
            listed.focus()
            return
        self._run = None
        remedy = missing_extra("train")
        self.tell(
            f"No runs in {tilde(folder)}. f opens another folder." + (f" To train here: {remedy}" if remedy else "")
        )

    @on(OptionList.OptionHighlighted, "#training-runs")
    async def _choose(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_index < len(self._runs):
            self._run = RunFolder(self._runs[event.option_index])
            self._drawn_samples = -1
            await self.query_one("#training-plots").remove_children()
            self.follow()

    @work(exclusive=True, group="follow")
    async def follow(self) -> None:
        """Read on, and draw what is new."""
        run = self._run
        if run is None or not self.is_current:
            return
        try:
            changed = await asyncio.to_thread(run.refresh)
            while run.more:
                changed |= await asyncio.to_thread(run.refresh)
        except PreflexorError as e:
            self.tell(str(e), "bad")
            return
        if run is not self._run:
            return
        self._tell_state(run)
        if changed or not self.query(Plot):
            await self._draw(run)

    def _tell_state(self, run: RunFolder) -> None:
        if not run.points:
            self.tell(f"{run.path.name}: nothing written yet")
            return
        last = run.points[-1]
        parts = [f"{run.path.name}: step {last.step}"]
        parts += [f"round {last.round}"] if last.round is not None else []
        parts += [duration(last.t_s)] if last.t_s is not None else []
        quiet_s = _quiet_s(run.path)
        live = quiet_s < LIVE_S
        parts.append("running" if live else f"nothing new for {duration(quiet_s)}")
        parts += run.problems
        self.tell(" · ".join(parts), "bad" if run.problems else "busy" if live else "")

    async def _draw(self, run: RunFolder) -> None:
        names = run.names()[:MOST_PLOTS]
        grid = self.query_one("#training-plots", Grid)
        plots = {plot.series: plot for plot in self.query(Plot)}
        if list(plots) != names:
            await grid.remove_children()
            plots = {name: Plot(name) for name in names}
            await grid.mount(*plots.values())
        series = {name: run.series(name) for name in names}
        for name, plot in plots.items():
            plot.show(series[name])
        words = [Content.assemble((f"{name}: ", "bold"), described(points)) for name, points in series.items()]
        self.query_one("#training-described", Static).update(Content("\n\n").join(words))
        self.query_one("#training-config", Static).update(plain(run.config or "no config.toml in the folder"))
        self._draw_samples(run)

    def _draw_samples(self, run: RunFolder) -> None:
        if len(run.samples) == self._drawn_samples:
            return
        self._drawn_samples = len(run.samples)
        listed = self.query_one("#training-texts", OptionList)
        listed.clear_options()
        listed.add_options([Option(_sample_text(sample)) for sample in reversed(run.samples)])
        if not run.samples:
            listed.add_option(Option(plain("no samples yet", "dim"), disabled=True))

    def action_words(self) -> None:
        """Show the curves in words, or as curves."""
        self._words = not self._words
        self.query_one("#training-plots").display = not self._words
        self.query_one("#training-in-words").display = self._words

    def action_open(self) -> None:
        """Ask for a folder."""
        line = self.query_one("#training-folder", Input)
        line.display = True
        line.focus()

    def action_leave(self) -> None:
        """Leave the line for a folder, or the page."""
        line = self.query_one("#training-folder", Input)
        if line.display:
            line.display = False
            self.query_one("#training-runs").focus()
            return
        super().action_leave()

    @on(Input.Submitted, "#training-folder")
    def _named(self, event: Input.Submitted) -> None:
        if event.value.strip():
            event.input.display = False
            self._folder = Path(event.value.strip()).expanduser()
            self.look(self._folder)


def _quiet_s(folder: Path) -> float:
    try:
        return max(0.0, time.time() - (folder / METRICS).stat().st_mtime)
    except OSError:
        return float("inf")


def _sample_text(sample: Sample) -> Content:
    return Content("\n").join(
        [
            plain(f"round {sample.round}, step {sample.step}", "bold"),
            plain(sample.prompt.strip(), "dim"),
            plain(sample.text.strip()),
            Content(""),
        ]
    )
