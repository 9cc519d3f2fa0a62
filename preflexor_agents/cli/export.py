"""`preflexor export`: a trained folder for MLX."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from preflexor_quantize.mlx_export import Dtype

EXAMPLE = """
\b
Example:
  preflexor export runs/phase2/model my-model-mlx --bits 4
"""
_NEEDED = ("torch", "safetensors")


@click.command(short_help="Write a trained model as a folder for MLX.", epilog=EXAMPLE)
@click.argument("source", type=click.Path(path_type=Path), metavar="HF_FOLDER")
@click.argument("out", type=click.Path(path_type=Path), metavar="MLX_FOLDER")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16"]), default="bfloat16", show_default=True, help="Of the weights."
)
@click.option("--bits", type=int, metavar="N", help="Quantise to 2, 3, 4, 5, 6 or 8 bits; needs mlx-lm.")
def command(*, source: Path, out: Path, dtype: str, bits: int | None) -> None:
    """Write the model in HF_FOLDER, as Transformers or TRL saved it, to MLX_FOLDER, as mlx-lm loads it.

    The folder is there whole or not at all. Reading takes as much memory as one gigabyte of weights.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs {' and '.join(missing)}: pip install 'preflexor-agents[quantize]'")
    from preflexor_agents.cli.bytes_bar import bytes_bar
    from preflexor_quantize.files import Written
    from preflexor_quantize.mlx_export import export_mlx

    with bytes_bar() as show:

        def watch(now: Written) -> None:
            show(now.what, now.done_bytes, now.total_bytes)

        names = export_mlx(source.expanduser(), out.expanduser(), dtype=cast("Dtype", dtype), bits=bits, watch=watch)
    click.echo(f"{out}: {', '.join(names)}")
