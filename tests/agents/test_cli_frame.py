"""What every command has in common: one line for a failure, exit codes, quiet ends."""

import subprocess
import sys

import pytest

import preflexor_agents

FAILING = """
import errno, os, sys, types
import click
from preflexor_agents import errors
from preflexor_agents.cli import main
@click.command
@click.option("--number", type=int)
def command(number):
    {body}
main.COMMANDS = (*main.COMMANDS, "fail")
sys.modules["preflexor_agents.cli.fail"] = types.SimpleNamespace(command=command)
main.cli({arguments!r}, prog_name="preflexor")
"""


def run(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process in which the command `fail` does `body`."""
    code = FAILING.format(body=body, arguments=list(arguments or ("fail",)))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("pass", 0, ""),
        ("raise errors.PreflexorError('it broke')", 1, "preflexor: it broke"),
        ("raise errors.BackendError('two\\nlines')", 1, "preflexor: two lines"),
        ("raise errors.InputError('bad value 7')", 2, "preflexor: bad value 7"),
        ("raise errors.StoreFileError('no store')", 2, "preflexor: no store"),
        ("raise SystemExit(3)", 3, ""),
        ("raise KeyboardInterrupt", 1, "Aborted!"),
    ],
)
def test_a_failure_is_one_line_and_its_exit_code(body: str, code: int, line: str) -> None:
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (code, "", line)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x.db')", "No space left on device: 'x.db'"),
        ("raise ZeroDivisionError('by\\nzero')", "ZeroDivisionError: by zero"),
    ],
)
def test_a_surprise_is_one_line_too(body: str, words: str) -> None:
    done = run(body)
    assert done.returncode == 1
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["errors.InputError", "ZeroDivisionError"])
def test_debug_shows_where_a_failure_came_from(kind: str) -> None:
    done = run(f"raise {kind}('here')", "--debug", "fail")
    assert "Traceback" in done.stderr and "here" in done.stderr
    assert done.returncode == (2 if kind.startswith("errors") else 1)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["fail", "--number", "x"], ["fail", "--what"], ["fail", "extra"], []]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    code = FAILING.format(body="pass", arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Usage: preflexor" in done.stderr + done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = FAILING.format(body="[click.echo('x' * 1000) for _ in range(1000)]", arguments=["fail"])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_the_version_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "preflexor_agents", "--version"], capture_output=True, text=True)
    assert done.stdout == f"preflexor {preflexor_agents.__version__}\n"
