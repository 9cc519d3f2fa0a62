"""Options that several commands have."""

import click

_OPTIONS = (
    click.option(
        "--model",
        metavar="SPEC",
        help="nano (bundled), ollama:NAME, gguf:PATH, mlx:PATH or openai:NAME@BASE_URL. Default: nano.",
    ),
    click.option(
        "--role",
        "roles",
        metavar="ROLE=SPEC",
        multiple=True,
        help="Another model for one role: thinker, critic, reviser, judge, integrator. May be repeated.",
    ),
    click.option("--rounds", type=int, metavar="N", help="Answers written one after the other, the draft included."),
    click.option("--candidates", type=int, metavar="N", help="Drafts to choose from in the first round."),
    click.option("--store", metavar="PATH", help="Knowledge store to search and cite. Default: your own, if any."),
    click.option("--seed", type=int, metavar="N", help="Seeds every call; the same seed gives the same run."),
    click.option("--budget-tokens", type=int, metavar="N", help="Most tokens written over the whole run."),
    click.option("--budget-seconds", type=float, metavar="S", help="Most seconds over the whole run."),
    click.option("--preset", metavar="NAME", help="default (a blind judge gates revisions) or paper (as published)."),
    click.option(
        "--variant", type=click.Choice(["critic", "self"]), help="Feedback from a critic or its own reflection."
    ),
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output."
)
store_option = click.option("--store", metavar="PATH", help="Knowledge store. Default: your own.")


def run_options(function: click.decorators.FC) -> click.decorators.FC:
    """Model, roles, store, budgets and protocol: what may be set for a run by every command that answers questions."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
