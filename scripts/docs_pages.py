"""Pages of the documentation that are made from the code: the start page from README.md, the commands from `--help`.

A hook of MkDocs; `make docs` builds the site.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]


def on_files(files: "Files", *, config: "MkDocsConfig") -> "Files":
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, text in (("index.md", start_page()), ("reference/commands.md", commands_page())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to files outside the docs folder keep their words only: the site does not hold them."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./(?!tutorials|reference)[^)]*\)", r"\1", markdown)


def start_page() -> str:
    """README.md, with its links as seen from the docs folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    inside = re.sub(r"\]\(docs/", "](", text)
    elsewhere = "|".join(path.name for path in sorted(ROOT.iterdir()) if path.name != "docs")
    return re.sub(rf"\[([^\]]+)\]\((?:{elsewhere})[^)]*\)", r"\1", inside)


def commands_page() -> str:
    """Every command with its help, as the terminal shows it."""
    from preflexor_agents.cli.main import cli

    parts = ["# Commands", "As `preflexor COMMAND --help` prints them."]
    for name, command, context in _commands(cli, click.Context(cli, info_name="preflexor"), "preflexor"):
        level = "#" * min(4, 1 + len(name.split()))
        parts.append(f"{level} {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(
    command: click.Command, context: click.Context, name: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield name, command, context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            if found is not None:
                yield from _commands(found, click.Context(found, info_name=word, parent=context), f"{name} {word}")
