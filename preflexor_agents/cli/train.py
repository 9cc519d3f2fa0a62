"""`preflexor train`: teach a model by a recipe, go on with a run, look at one."""

import json
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.doctor import need_extra
from preflexor_agents.cli.options import json_option
from preflexor_agents.cli.train_scale import LAUNCHES, launched, opening
from preflexor_agents.cli.train_show import recipes, show
from preflexor_agents.errors import InputError, PreflexorError

if TYPE_CHECKING:
    from preflexor_training.phases import BackendName, OpenLearner
    from preflexor_training.starting import Run

EXAMPLE = """
\b
Examples:
  preflexor train recipes
  preflexor train tiny --out runs/first
  preflexor train laptop --base models/SmolLM2-1.7B-Instruct --pairs pairs.jsonl --out runs/mine
  preflexor train runs/mine/config.toml --out runs/mine --resume
  preflexor train show runs/mine --follow
"""


class TrainGroup(click.Group):
    """A group whose first word may be a recipe instead of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options may stand before the recipe."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What is no command of the group is a recipe to be run."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of a run, then the commands."""
        options = [r for p in train.params if isinstance(p, click.Option) and (r := p.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(options)
        self.format_commands(ctx, formatter)


@click.group(
    cls=TrainGroup,
    short_help="Teach a model to think in the open, by a recipe.",
    epilog=EXAMPLE,
    options_metavar="",
    subcommand_metavar="RECIPE [OPTIONS]… | COMMAND [ARGS]…",
)
def command() -> None:
    """Teach a model by RECIPE: the name of one that comes with preflexor, or a TOML file.

    A run is phases of rounds: rows are made or read, checked, trained on, and the model is tried on rows that it never
    learns from. Its folder holds the recipe, every row, curves, samples and, at the end of each phase, the merged
    model. Ctrl-C finishes the step, saves, and prints the command that goes on; so does any kill, apart from the
    printing.
    """


@click.command("run", hidden=True)
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--backend", type=click.Choice(["trl", "mlx"]), help="Library that trains. Default: trl, or mlx if it is alone."
)
@click.option("--base", metavar="MODEL", help="Model to start from: a folder, nano, or an id of the Hugging Face hub.")
@click.option("--pairs", metavar="FILE", help="Preference rows to train on, instead of rows made on the fly.")
@click.option("--store", metavar="PATH", help="Knowledge store that rows are made from. Default: the bundled library.")
@click.option("--teacher", metavar="SPEC", help="Model that writes questions, thinking and good answers.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="RUN", help="Folder of the run. Default: a new one in your runs."
)
@click.option("--resume", is_flag=True, help="Go on with the run in RUN.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe, as phases.0.rounds=3.")
@click.option(
    "--track",
    "trackers",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb"]),
    help="Send the numbers there too.",
)
@click.option("--launch", type=click.Choice(LAUNCHES), help="Train in several processes, as on several GPUs.")
@click.option("--processes", "process_count", type=click.IntRange(2, 1024), help="With --launch: how many. Default: 2.")
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    *,
    recipe: str,
    backend: str | None,
    base: str | None,
    pairs: str | None,
    store: str | None,
    teacher: str | None,
    out: Path | None,
    resume: bool,
    changes: tuple[str, ...],
    trackers: tuple[Any, ...],
    launch: str | None,
    process_count: int | None,
    as_json: bool,
) -> None:
    """Train by a recipe; what `preflexor train RECIPE` does."""
    if process_count is not None and launch is None:
        raise InputError(f"--processes {process_count} says how many --launch starts; give --launch too")
    if launch is not None:
        _need("trl")
        ctx.exit(launched(ctx, launch, processes=process_count))
    from preflexor_training import phases, starting
    from preflexor_training import recipes as recipe_files

    with opening(ctx, backend) as open_by:
        name: Any = backend or (None if resume else phases.default_backend())
        if name is not None:
            _need(name)
        given = starting.Given(base=base, pairs=pairs, store=store, teacher=teacher)
        wanted = starting.resolved(recipe_files.load(recipe, changes=changes), given)
        folder = out or _new_folder(recipe)
        run = starting.resume(wanted, folder, name) if resume else starting.begin(wanted, folder, name)
        with closing(run.writer):
            _need(run.backend)
            try:
                model = _train(ctx, run, open_by, trackers=trackers)
            except InputError:
                if not resume:
                    run.writer.discard()
                raise
        if as_json:
            state = run.writer.state
            found = {"run": str(folder), "model": str(model), "steps": state.step, "seconds": round(state.seconds, 1)}
            click.echo(json.dumps(found, ensure_ascii=False, indent=2))
            return
        click.echo(f"trained: {model}\nmake a GGUF file of it with: preflexor quantize {model}")


def _train(
    ctx: click.Context, run: "Run", open_by: "Callable[[BackendName], OpenLearner]", *, trackers: tuple[Any, ...]
) -> Path:
    """Do the work; whatever stops it is followed by the command that goes on."""
    from preflexor_agents.cli.train_lines import watching
    from preflexor_training.rounds import Work, draw, train
    from preflexor_training.sources import open_source
    from preflexor_training.trackers import tracking

    _hush()
    folder = run.writer.folder
    words = ("preflexor", "train", str(folder / "config.toml"), "--out", str(folder), "--resume")
    go_on = f"go on with: {shlex.join(words)}"
    config = run.recipe.model_dump(mode="json")
    step = 0
    try:
        with watching() as watch, tracking(trackers, folder=folder, config=config) as track:
            for note in (f"run {folder}", *run.notes):
                watch.tell(note)
            with closing(open_source(run.recipe, folder, watch)) as source:
                work = Work(run, source, open_by(run.backend), watch, track)
                try:
                    return train(work)
                except KeyboardInterrupt:
                    step = work.step
                    draw(work)
                    raise
    except KeyboardInterrupt:
        click.echo(f"stopped{f' after step {step}' if step else ''}; {go_on}", err=True)
        ctx.exit(1)
    except PreflexorError as e:
        if e.exit_code == 1:
            click.echo(go_on, err=True)
        raise


def _hush() -> None:
    """No bars but ours: those of transformers would write into it."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _need(backend: str) -> None:
    need_extra("train" if backend == "trl" else "mlx", f"--backend {backend}")


def _new_folder(recipe: str) -> Path:
    from preflexor_agents.run_folder import runs_folder

    return runs_folder() / f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


for _child in (train, show, recipes):
    command.add_command(_child)
