"""`preflexor deploy`: a GGUF file into Ollama, or into a folder to hand on."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from preflexor_quantize.deploy import Deployed
    from preflexor_quantize.files import Watch, Written
    from preflexor_quantize.modelfile import Modelfile, OpenModel

EXAMPLES = """
\b
Examples:
  preflexor deploy model.gguf --ollama my-model
  preflexor deploy model.gguf --dir model-to-share
"""


@click.command(short_help="Put a GGUF file into Ollama, or into a folder to share.", epilog=EXAMPLES)
@click.argument("gguf", type=click.Path(path_type=Path))
@click.option("--ollama", "name", metavar="NAME", help="Make an Ollama model of that name and ask it a question.")
@click.option("--dir", "folder", metavar="FOLDER", type=click.Path(path_type=Path), help="Write a folder to share.")
@click.option("--replace", is_flag=True, help="Take the place of an Ollama model of that name.")
@click.option("--context", type=int, metavar="N", help="Tokens of prompt and reply. Default: 8192, or as trained.")
@click.option(
    "--system", metavar="TEXT", help="System text where a chat brings none. Default: what nano is trained on."
)
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Template in Ollama's form. Default: derived from the file's own chat template.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    gguf: Path,
    name: str | None,
    folder: Path | None,
    replace: bool,
    context: int | None,
    system: str | None,
    template: Path | None,
) -> None:
    """Serve a GGUF file with Ollama, or write a folder with all that others need to run it.

    The template, the ends of turns and the context are derived from the file. After the upload the server's prompt is
    compared with the file's own, token by token, and one question shows whether thinking and answer come apart; if
    not, the command ends with exit code 1.
    """
    if name is None and folder is None:
        raise InputError("nothing to do: name an Ollama model (--ollama NAME), a folder (--dir FOLDER), or both")
    source = None if template is None else _text(template)
    from preflexor_quantize.bundle import bundle
    from preflexor_quantize.modelfile import modelfile, opened

    with opened(gguf.expanduser()) as model:
        file = modelfile(model, context_tok=context, system=system, template=source)
        for note in file.notes:
            click.echo(f"note: {note}", err=True)
        if folder is not None:
            with _watched() as watch:
                names = bundle(model.file.path, folder.expanduser(), file, watch=watch)
            click.echo(f"{folder}: {', '.join(names)}")
        if name is not None:
            ctx.exit(0 if _into_ollama(model, file, name, replace=replace) else 1)


def _into_ollama(model: "OpenModel", file: "Modelfile", name: str, *, replace: bool) -> bool:
    from preflexor_quantize.deploy import deploy

    try:
        with _watched() as watch:
            done = asyncio.run(deploy(model, file, name, replace=replace, watch=watch))
    except KeyboardInterrupt:
        click.echo(f"stopped: {name} was not proven, or not made; the same call begins again (--replace)", err=True)
        return False
    _show(done, name)
    return done.works


@contextmanager
def _watched() -> "Iterator[Watch]":
    """What shows bytes as they go, and names the steps that have none."""
    from preflexor_agents.cli.bytes_bar import bytes_bar
    from preflexor_agents.cli.show import inert

    with bytes_bar() as show:

        def watch(now: "Written") -> None:
            if now.total_bytes or sys.stderr.isatty():
                show(inert(now.what)[:60], now.done_bytes, now.total_bytes)
            else:
                click.echo(inert(now.what), err=True)

        yield watch


def _show(done: "Deployed", name: str) -> None:
    from preflexor_agents.cli.show import inert

    for finding in done.findings:
        colour, word = {True: ("green", "ok"), False: ("red", "WRONG"), None: ("yellow", "not known")}[finding.ok]
        click.echo(f"{click.style(f'{word:9}', fg=colour)} {finding.what}: {inert(finding.detail)}")
    if done.works:
        click.echo(f'{done.name} is in Ollama at {done.url}; try: preflexor ask "…" --model ollama:{done.name}')
        return
    kept = f"{name} stays as it was; " if done.name != name else ""
    wrong = ", ".join(finding.what for finding in done.findings if finding.ok is False)
    click.echo(
        f"preflexor: {kept}{done.name} is in Ollama but does not behave as its file does ({wrong}); remove it with:"
        f" preflexor models rm ollama:{done.name}",
        err=True,
    )


def _text(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is no UTF-8 text; give a file with a template in Ollama's form") from None
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror or e}; give a file with a template") from None
