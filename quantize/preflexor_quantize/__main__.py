"""`python -m preflexor_quantize FOLDER OUT.gguf`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import cast

import click

from preflexor_agents.errors import PreflexorError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(["f32", "f16", "bf16", "q8_0"]), default="f16", show_default=True)
def main(folder: Path, out: Path, dtype: str) -> None:
    """Convert the Hugging Face model in FOLDER to OUT and prove that both behave alike."""
    from preflexor_quantize.convert import Dtype, convert

    click.echo(json.dumps(dataclasses.asdict(convert(folder, out, dtype=cast("Dtype", dtype)))))


if __name__ == "__main__":
    try:
        main()
    except PreflexorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
