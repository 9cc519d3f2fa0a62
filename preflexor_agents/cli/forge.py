"""`preflexor forge`: make preference data from documents, and look at them."""

import importlib

import click

EXAMPLE = """
\b
Example:
  preflexor forge run --teacher ollama:qwen3:4b --student ollama:llama3.2:3b --rows 200 --out data/
  preflexor forge show data/
  preflexor forge export data/ pairs.parquet
"""
HOMES = {
    "run": "forge_run",
    "show": "forge_data",
    "stats": "forge_data",
    "export": "forge_data",
    "import": "forge_data",
}
"""Command -> the module of this package in which it is, as `NAME_command`; in the order of the help."""


class Group(click.Group):
    """Imports a command's module when it is named, so that starting stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the help."""
        return list(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in HOMES:
            return None
        module = importlib.import_module(f"preflexor_agents.cli.{HOMES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(cls=Group, short_help="Make preference data from documents, and look at them.", epilog=EXAMPLE)
def command() -> None:
    """Make preference data from your documents: a question, the thinking, a good answer, and one it must beat.

    A teacher writes the good side from passages of the knowledge store, a student tries by itself. `preflexor train`
    learns from what comes out.
    """
