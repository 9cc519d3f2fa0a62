"""Groups of commands whose modules are imported when a command is named, so that starting stays fast."""

import importlib
from collections.abc import Callable, Mapping

import click


def lazy_group(
    homes: Mapping[str, str], *, short_help: str, epilog: str
) -> Callable[[Callable[[], None]], click.Group]:
    """Decorates the function whose docstring is the group's help.

    Args:
        homes: command -> the module of this package in which it is, as `NAME_command`; in the order of the help.
        short_help: the group's line in the list of commands.
        epilog: examples.
    """

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(homes)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in homes:
                return None
            module = importlib.import_module(f"preflexor_agents.cli.{homes[cmd_name]}")
            command: click.Command = getattr(module, f"{cmd_name}_command")
            return command

    return click.group("command", cls=Lazy, short_help=short_help, epilog=epilog)
