"""Starting is cheap: the package and every `--help` leave the heavy libraries alone."""

import json
import subprocess
import sys

import click
import pytest

from preflexor_agents.cli.main import COMMANDS, cli

HEAVY = ("autogen_core", "autogen_agentchat", "torch", "textual", "llama_cpp")
REPORT = f"import json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
HELP = f"""
from preflexor_agents.cli.main import cli
try:
    cli(%r, prog_name="preflexor")
except SystemExit as end:
    assert end.code == 0, end.code
{REPORT}
"""


def command_lines(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command below this one, itself included."""
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            found += command_lines(child, (*path, name))
    return found


def heavy_after(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_probe_sees_a_heavy_library() -> None:
    assert heavy_after(f"import llama_cpp\n{REPORT}") == ["llama_cpp"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert heavy_after(f"import preflexor_agents, preflexor_agents.cli.main\n{REPORT}") == []


@pytest.mark.parametrize("path", command_lines(cli), ids=" ".join)
def test_help_loads_nothing_heavy(path: tuple[str, ...]) -> None:
    assert heavy_after(HELP % [*path, "--help"]) == []


def test_the_group_lists_all_commands() -> None:
    assert {path[0] for path in command_lines(cli) if path} == set(COMMANDS)


@pytest.mark.parametrize("path", command_lines(cli), ids=" ".join)
def test_every_command_and_option_explains_itself(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        child = command.get_command(click.Context(command), name)
        assert child is not None
        command = child
    assert (command.help or "").strip()
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []
