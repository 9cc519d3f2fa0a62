"""`preflexor models`: what is installed here, in the caches, and in Ollama."""

import asyncio
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.errors import BackendError, InputError, ModelError, PreflexorError

if TYPE_CHECKING:
    from preflexor_agents.backends.installed import Installed, Place

MARKS = ("Modelfile", "SHA256SUMS")
"""Files that tell a folder written by `preflexor deploy --dir`."""


@click.group(short_help="List, show and remove the models that are here.")
def command() -> None:
    """The bundled model, this program's own models, the cache of Hugging Face and MLX, and Ollama's models.

    MODEL is what --model takes (as ollama:NAME or gguf:PATH), or a name of the list that is there once.
    """


@command.command("list", short_help="One table of all models.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(*, as_json: bool) -> None:
    """Print one table of all models, with the SPEC that --model takes. A place that fails is one line of its own."""
    places = _places()
    if as_json:
        click.echo(json.dumps({"places": [asdict(place) for place in places]}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from preflexor_agents.cli.show import inert

    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 200
    table = Table(box=None, pad_edge=False)
    for title in ("MODEL", "SIZE", "NUMBERS", "CONTEXT", "CAN", "WHERE"):
        table.add_column(title, justify="right" if title in ("SIZE", "CONTEXT") else "left", overflow="fold")
    for place in places:
        for m in place.models:
            where = f"{place.name}, loaded" if m.loaded else place.name
            can = "no" if m.problem else ", ".join(m.can)
            cells = (_label(m), _size(m.size_bytes), m.level, str(m.context_tok or ""), can, where)
            table.add_row(*(Text(inert(cell)) for cell in cells), style="dim" if m.problem else "")
    out.print(table)
    for place in places:
        problems = [f"{m.name}: {m.problem}" for m in place.models if m.problem]
        for problem in problems if not place.problem else [*problems, f"{place.name}: {place.problem}"]:
            out.print(Text(inert(problem), style="dim"), soft_wrap=True)


@command.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(*, model: str, as_json: bool) -> None:
    """Print everything that is known about a model."""
    from preflexor_agents.cli.show import inert

    _, found = _find(model)
    told = {key: value for key, value in asdict(found).items() if value not in ("", 0, (), False)}
    told |= asyncio.run(_of_ollama(found.name)) if found.spec.startswith("ollama:") else _of_file(found)
    if as_json:
        click.echo(json.dumps(told, indent=2, default=str))
        return
    for key, value in told.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if key == "size_bytes":
            key, text = "size", _size(found.size_bytes)
        lines = inert(text).rstrip("\n").split("\n")
        click.echo(f"{inert(key):32} {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':32} {line}")


@command.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(*, model: str, yes: bool) -> None:
    """Remove a model from Ollama or from this program's own folder; what others put elsewhere stays.

    Asks before, unless --yes is given.
    """
    from preflexor_agents.cli.show import inert

    place, found = _find(model)
    if not place.ours:
        advice = "it is part of the package" if found.spec == "nano" else f"remove {found.path} with what put it there"
        raise InputError(f"{found.name} cannot be removed here ({place.name}): {advice}")
    served = found.spec.startswith("ollama:")
    what = f"{found.name} of Ollama at {place.where}" if served else str(_doomed(Path(found.path)))
    if not yes:
        click.confirm(f"Remove {inert(what)} ({_size(found.size_bytes)})?", abort=True)
    if served:
        asyncio.run(_remove_from_ollama(found.name, place.where))
    else:
        _remove(_doomed(Path(found.path)))
    click.echo(f"removed {inert(what)}")


def _places() -> "tuple[Place, ...]":
    from preflexor_agents.backends.installed import installed

    return asyncio.run(installed())


def _find(model: str) -> "tuple[Place, Installed]":
    """The model that is meant. Raises ModelError, or BackendError where Ollama does not answer for its own."""
    from preflexor_agents.backends.installed import Place, gguf_file

    places = _places()
    wanted = model.strip()
    kind, _, rest = wanted.partition(":")
    every = [(place, m) for place in places for m in place.models]
    keys = {wanted, f"{wanted}:latest"}
    if kind in ("gguf", "mlx") and rest:
        keys = {f"{kind}:{Path(rest).expanduser().absolute()}"}
    for key in ("spec", "name"):
        found = [pair for pair in every if getattr(pair[1], key) in keys]
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(f"{wanted!r} is there {len(found)} times; name one: {', '.join(m.spec for _, m in found)}")
    down = next((place.problem for place in places if place.name == "Ollama" and place.problem), "")
    if kind == "ollama" and down:
        raise BackendError(down)
    if kind == "gguf" and rest and Path(rest).expanduser().is_file():
        return Place(name="file system", where=str(Path(rest).parent)), gguf_file(Path(rest).expanduser())
    raise ModelError(f"there is no model {wanted!r} here; see: preflexor models list")


def _of_file(found: "Installed") -> dict[str, Any]:
    from preflexor_agents.backends.gguf_header import read_header

    if found.format != "GGUF" or found.problem.startswith(found.path):
        return {}
    head = read_header(Path(found.path))
    return {"tags": head.tags, **head.values}


async def _of_ollama(name: str) -> dict[str, Any]:
    from preflexor_agents.backends.ollama_server import connect, quick, server_url

    url = server_url()
    async with connect(url) as client, quick(url, name):
        shown = await client.show(name)
    arrays = {k: v for k, v in (shown.modelinfo or {}).items() if not isinstance(v, list | dict)}
    return {**arrays, "parameters": shown.parameters or "", "template": shown.template or ""}


async def _remove_from_ollama(name: str, url: str) -> None:
    from preflexor_agents.backends.ollama_server import connect, quick

    async with connect(url) as client, quick(url, name):
        await client.delete(name)


def _doomed(path: Path) -> Path:
    """What goes with a model: the whole folder if it is one of `deploy --dir` or a folder of weights."""
    folder = path.parent
    return folder if path.is_file() and all((folder / mark).is_file() for mark in MARKS) else path


def _remove(path: Path) -> None:
    from preflexor_agents.backends.installed import models_folder

    if not path.resolve().is_relative_to(models_folder().resolve()) or path.resolve() == models_folder().resolve():
        raise InputError(f"{path} is not below {models_folder()}; remove it by hand")
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as e:
        raise PreflexorError(f"{e.filename or path} cannot be removed: {e.strerror}; see whose it is") from None


def _label(model: "Installed") -> str:
    """The SPEC, with the home folder as ~."""
    home = f"{Path.home()}/"
    kind, _, path = model.spec.partition(":")
    if kind in ("gguf", "mlx") and path.startswith(home):
        return f"{kind}:~/{path.removeprefix(home)}"
    return model.spec or model.name


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
