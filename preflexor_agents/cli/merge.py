"""`preflexor merge`: an adapter into its base, or several models into one between them."""

from pathlib import Path

import click

from preflexor_agents.cli.doctor import need_extra
from preflexor_agents.errors import InputError

EXAMPLE = """
\b
Examples:
  preflexor merge base/ runs/first/integrate/adapter merged/
  preflexor merge --slerp runs/first/model runs/second/model between/ --weight 0.3 --weight 0.7
  preflexor merge --ties base/ runs/first/model runs/second/model both/
"""


@click.command(short_help="Merge an adapter into its base, or several models into one.", epilog=EXAMPLE)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL… OUT")
@click.option("--linear", "method", flag_value="linear", help="Weighted mean of the weights of two or more models.")
@click.option("--slerp", "method", flag_value="slerp", help="Along the arc between the weights of two models.")
@click.option(
    "--ties", "method", flag_value="ties", help="By mergekit: half of each difference from the first model, by sign."
)
@click.option(
    "--dare", "method", flag_value="dare", help="By mergekit: a tenth of each difference from the first, scaled up."
)
@click.option(
    "--weight", "weights", type=float, multiple=True, metavar="W", help="Share of a model, once for each, in order."
)
def command(*, paths: tuple[Path, ...], method: str | None, weights: tuple[float, ...]) -> None:
    """Merge BASE and ADAPTER into OUT; or, with a method, two or more models of one architecture into OUT.

    OUT is a Hugging Face folder that needs no adapter; it appears when it is whole. Embeddings that were tied in the
    base are tied in the merged model. `preflexor quantize OUT` makes a GGUF file of it.
    """
    *sources, out = paths
    if method is None:
        if len(sources) != 2:
            raise InputError(f"{len(paths)} folders were given; give BASE ADAPTER OUT, or a method as --slerp")
        if weights:
            raise InputError("--weight goes with --linear, --slerp, --ties or --dare")
        need_extra("train", "merging")
        from preflexor_training.adapter_merge import merge_adapter

        merge_adapter(str(sources[0]), sources[1], out)
    else:
        need_extra("train", "merging")
        from preflexor_training.interpolation import interpolate

        interpolate(sources, out, method=method, weights=weights)  # type: ignore[arg-type]
    click.echo(f"{out} is whole; make a GGUF file of it with: preflexor quantize {out}")
