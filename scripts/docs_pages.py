"""Pages of the documentation that are made from the code: the start page from README.md, the commands from `--help`.

A hook of MkDocs; `make docs` builds the site. Formulas become MathML, which browsers show without a script.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE = re.compile(r"`[^`]*`|\$([^$\n]+)\$")


def on_files(files: "Files", *, config: "MkDocsConfig") -> "Files":
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, text in (("index.md", start_page()), ("reference/commands.md", commands_page())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: "Page", **_: object) -> str:
    """The text of a page as the site shows it."""
    has_formulas = _DISPLAYED.search(_FENCED.sub("", markdown)) is not None

    def shown(text: str) -> str:
        text = without_outside_links(text, page.file.src_uri)
        return with_formulas(text) if has_formulas else text

    parts, at = [], 0
    for fence in _FENCED.finditer(markdown):
        parts += [shown(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, shown(markdown[at:])])


def without_outside_links(text: str, page: str) -> str:
    """Links to files outside the docs folder keep their words only, since the site does not hold them.

    One to README.md leads to the start page.
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        if target == "../README.md":
            return f"[{match[1]}]({posixpath.relpath('index.md', posixpath.dirname(page) or '.')})"
        return match[1] if target.startswith("../") else match[0]

    return _LINK.sub(link, text)


def with_formulas(text: str) -> str:
    """What stands between dollar signs, or pairs of them, as MathML; code is left alone."""
    from latex2mathml.converter import convert

    displayed = _DISPLAYED.sub(lambda m: f'<div class="formula">{convert(m[1].strip(), display="block")}</div>', text)
    return _INLINE.sub(lambda m: f"<span>{convert(m[1].strip())}</span>" if m[1] else m[0], displayed)


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
