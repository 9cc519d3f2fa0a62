"""`preflexor ask`: one question, answered in rounds."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option, run_options
from preflexor_agents.errors import ConfigError

if TYPE_CHECKING:
    from preflexor_agents.config import ReflectConfig
    from preflexor_agents.packs import Pack
    from preflexor_agents.settings import Settings


@click.command(short_help="Answer a question in rounds of thinking, critique and revision.")
@click.argument("question", required=False, default="")
@run_options
@click.option(
    "--keep",
    metavar="PACK",
    help="Write the sentences that documents support, and the facts in them, back into the store; by a domain pack: "
    "general, materials or a .toml file.",
)
@json_option
@click.option("--print-schema", is_flag=True, help="Print the JSON schema of --json and end.")
@click.option("--trace", metavar="FILE", help="Where the trace goes. Default: a new file in your state folder.")
def command(
    *, question: str, print_schema: bool, as_json: bool, trace: str | None, keep: str | None, **options: Any
) -> None:
    """Answer QUESTION in rounds: think, be criticised, revise, keep the better answer, cite the sources.

    On a terminal the rounds stream as they happen. Otherwise they go to standard error as plain lines, and standard
    output holds the answer only. Ctrl-C ends the run with the best answer so far.
    """
    if print_schema:
        from preflexor_agents.report import SCHEMA

        click.echo(json.dumps(SCHEMA, indent=2))
        return
    roles, variant = options.pop("roles"), options.pop("variant")
    from preflexor_agents.cli.running import Job, run
    from preflexor_agents.settings import load

    settings = load(options)
    job = Job(
        question=question,
        settings=settings,
        config=_config(settings, variant),
        models=_models(roles),
        trace=Path(trace) if trace else None,
        as_json=as_json,
        keep=_pack(keep),
    )
    raise SystemExit(asyncio.run(run(job)))


def _pack(name: str | None) -> "Pack | None":
    if name is None:
        return None
    from preflexor_agents.packs import load

    return load(name)


def _config(settings: "Settings", variant: str | None) -> "ReflectConfig":
    from dataclasses import replace

    from preflexor_agents.config import paper
    from preflexor_agents.settings import reflect_config

    config = reflect_config(settings)
    if variant == "self" and settings.preset == "paper" and settings.rounds is None:
        return replace(config, variant="self", rounds=paper("self").rounds)
    return config if variant is None else replace(config, variant=variant)  # type: ignore[arg-type]


def _models(roles: Sequence[str]) -> dict[str, str]:
    from preflexor_agents.session import MODEL_ROLES

    found: dict[str, str] = {}
    for text in roles:
        role, _, spec = text.partition("=")
        if role not in MODEL_ROLES or not spec:
            raise ConfigError(f"--role {text!r} must be ROLE=SPEC with a role of: {', '.join(MODEL_ROLES)}")
        found[role] = spec
    return found
