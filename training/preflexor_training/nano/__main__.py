"""`python -m preflexor_training.nano train|evaluate`."""

import logging
import sys
from pathlib import Path

import click

from preflexor_agents.errors import PreflexorError
from preflexor_training.nano.recipe import load_recipe


@click.group()
def main() -> None:
    """Train and measure nano, the bundled model."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), default=Path("training/recipes/nano.toml"))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint.")
def train(recipe: Path, out: Path, device: str, resume: bool) -> None:
    """Train from scratch by RECIPE."""
    from preflexor_training.nano.train import train as run

    click.echo(run(load_recipe(recipe), out=out, device=device, resume=resume))


@main.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True, help="The model file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--limit", default=0, help="At most so many questions of each kind; 0 is all.")
def evaluate(gguf: Path, out: Path, limit: int) -> None:
    """Measure a GGUF on held-out questions about the shipped library."""
    from preflexor_training.nano.evaluate import evaluate as run

    click.echo(run(gguf, out=out, limit=limit))


if __name__ == "__main__":
    try:
        main()
    except PreflexorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
