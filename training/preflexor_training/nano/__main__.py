"""`python -m preflexor_training.nano train|evaluate|make`."""

import logging
import os
import sys
from pathlib import Path

import click

from preflexor_agents.errors import PreflexorError
from preflexor_training.nano.recipe import load_recipe

RECIPES = Path("training/recipes")


@click.group()
def main() -> None:
    """Train and measure nano, the bundled model."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), default=RECIPES / "nano.toml")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint.")
@click.option("--start", metavar="MODEL", default="", help="Go on from a folder or `nano`, not from scratch.")
def train(recipe: Path, out: Path, device: str, resume: bool, start: str) -> None:
    """Train from scratch by RECIPE."""
    from preflexor_training.bases import resolve
    from preflexor_training.nano.train import train as run

    begun = resolve(start) if start else None
    click.echo(run(load_recipe(recipe), out=out, device=device, resume=resume, start=begun))


@main.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True, help="The model file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--limit", default=0, help="At most so many questions of each kind; 0 is all.")
def evaluate(gguf: Path, out: Path, limit: int) -> None:
    """Measure a GGUF on held-out questions about the shipped library."""
    from preflexor_training.nano.evaluate import evaluate as run

    click.echo(run(gguf, out=out, limit=limit))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of everything that is made.")
@click.option("--base", default="", metavar="MODEL", help="Start from a GGUF file, a folder or nano, not from scratch.")
@click.option("--recipe", type=click.Path(path_type=Path), default=RECIPES / "nano_phases.toml", help="Of the phases.")
@click.option("--base-recipe", type=click.Path(path_type=Path), default=RECIPES / "nano.toml", help="Of the base.")
@click.option("--rows", type=click.IntRange(1), metavar="N", help="Questions of a round. Default: the recipe's.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="Rounds of each phase. Default: the recipe's.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe, as phases.0.beta=0.2.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to train.")
@click.option(
    "--limit", type=click.IntRange(0), default=60, help="Count with so many held-out questions of a column; 0 is all."
)
def make(
    *,
    out: Path,
    base: str,
    recipe: Path,
    base_recipe: Path,
    rows: int | None,
    rounds: int | None,
    changes: tuple[str, ...],
    device: str,
    limit: int,
) -> None:
    """Make the bundled model: base, both phases, GGUF files, measurements.

    The same command goes on with what is in --out.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch: training takes a GPU where it sees one
    from transformers.utils import logging as bars

    from preflexor_agents.cli.train_lines import watching
    from preflexor_training import recipes
    from preflexor_training.nano.make import Order
    from preflexor_training.nano.make import make as run

    bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    phases = range(len(recipes.load(recipe).phases))
    sizes = {"rows_per_round": rows, "rounds": rounds}
    sized = [f"phases.{n}.{key}={value}" for n in phases for key, value in sizes.items() if value is not None]
    order = Order(
        out=out,
        phases=recipe,
        base=base,
        base_recipe=base_recipe,
        changes=(*sized, *changes),
        device=device,
        limit=limit,
    )
    try:
        with watching() as watch:
            made = run(order, watch=watch)
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on", err=True)
        sys.exit(1)
    click.echo(made[-1].gguf)


if __name__ == "__main__":
    try:
        main()
    except PreflexorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
