"""`preflexor graph suggest`, `merge`, `unmerge`: a person decides which names mean one thing, and may take it back."""

import json
from dataclasses import asdict

import click

from preflexor_agents.cli.options import json_option, store_option
from preflexor_agents.cli.store import file_of


@click.command(name="suggest", short_help="Suggest entities that may be one.")
@click.option(
    "-k", "most", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="Suggestions to show."
)
@store_option
@json_option
def suggest_command(*, most: int, store: str | None, as_json: bool) -> None:
    """Suggest pairs of entities that may be one, by the meaning and the spelling of their names; merges none."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        found = opened.graph.suggest_merges(k=most)
    if as_json:
        click.echo(json.dumps({"suggestions": [asdict(s) for s in found]}, ensure_ascii=False, indent=2))
        return
    if not found:
        click.echo("nothing to suggest", err=True)
    for s in found:
        click.echo(f"{s.score:5.2f}  {s.reason:9}  {inert(s.keep.name)}  ←  {inert(s.gone.name)}")


@click.command(name="merge", short_help="Say that two entities are one.")
@click.argument("keep")
@click.argument("gone")
@store_option
def merge_command(*, keep: str, gone: str, store: str | None) -> None:
    """Say that GONE is KEEP: from then on both are shown as KEEP, and GONE is one of its names.

    Nothing is lost: `preflexor graph unmerge GONE` takes it back.
    """
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        kept, went = opened.graph.entity(keep), opened.graph.entity(gone)
        opened.graph.merge(kept.id, went.id)
    click.echo(f"{inert(went.name)} is {inert(kept.name)} now")


@click.command(name="unmerge", short_help="Take a merge back.")
@click.argument("name")
@store_option
def unmerge_command(*, name: str, store: str | None) -> None:
    """Take back that the entity NAME was merged into another."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.errors import InputError
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        merges = opened.graph.merges()
        found = [m for m in merges if m.gone.name.casefold() == name.casefold() or name == str(m.gone.id)]
        if not found:
            known = ", ".join(m.gone.name for m in merges[:5]) or "nothing"
            raise InputError(f"{name!r} was not merged into anything; merged are: {known}")
        opened.graph.unmerge(found[0].gone.id)
    click.echo(f"{inert(found[0].gone.name)} is an entity of its own again, not {inert(found[0].keep.name)}")
