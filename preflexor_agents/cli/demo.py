"""`preflexor demo`: the main job on the bundled model and library."""

import asyncio

import click

QUESTION = "How tough is nacre?"


@click.command(short_help="The whole thing on the bundled model and library: no network, no GPU, no Ollama.")
@click.argument("question", required=False, default=QUESTION)
def command(*, question: str) -> None:
    """Ingest the bundled library, then answer a question about it with the bundled model, nano.

    nano has a few million parameters and knows only this library: it shows the machinery at work on any machine.
    """
    from dataclasses import replace

    from rich.console import Console

    from preflexor_agents.cli.library import bundled_library
    from preflexor_agents.cli.running import Job, run
    from preflexor_agents.settings import load, reflect_config

    watch = Console(stderr=True, highlight=False)
    library = bundled_library(watch)
    path = library.path
    library.close()
    settings = load({"model": "nano", "store": str(path)})
    config = replace(reflect_config(settings), candidates=settings.candidates or 3)
    job = Job(question=question, settings=settings, config=config, models={}, trace=None, as_json=False)
    code = asyncio.run(run(job))
    if code == 0:
        watch.print(
            "\nSee this run again without a model:  preflexor trace replay FILE"
            "\nYour own papers with a real model:    preflexor ingest papers/ && "
            'preflexor ask "…" --model ollama:qwen3:4b',
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    raise SystemExit(code)
