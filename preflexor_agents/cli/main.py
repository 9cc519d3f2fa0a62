"""The `preflexor` command: finds the subcommand, and turns every failure into one line and an exit code.

Exit codes: 0 it worked, 1 the work failed or was interrupted, 2 the input was wrong.
"""

import importlib
import sys
import traceback
from types import TracebackType

import click

from preflexor_agents import __version__
from preflexor_agents.errors import PreflexorError

COMMANDS = (
    "ask",
    "chat",
    "demo",
    "ingest",
    "search",
    "graph",
    "store",
    "eval",
    "trace",
    "forge",
    "train",
    "merge",
    "quantize",
    "deploy",
    "export",
    "models",
    "doctor",
)
"""Each lives in `preflexor_agents.cli.NAME` as `command`; in the order of the help."""

EPILOG = """
\b
Try it (the bundled model and library, no network needed):
  preflexor demo
  preflexor ask "How does a gecko foot stick?"

\b
Real work, with your papers and a model that Ollama serves:
  ollama pull qwen3:4b
  preflexor ingest papers/
  preflexor ask "Which peptides bind titanium?" --model ollama:qwen3:4b

Settings come from options, then PREFLEXOR_* variables, then preflexor.toml. Exit codes: 0 it worked, 1 the work
failed or was interrupted, 2 the input was wrong.
"""


class Failed(click.ClickException):
    """An error of ours on its way to the terminal."""

    def __init__(self, error: PreflexorError) -> None:
        super().__init__(" ".join(str(error).split()))
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: object = None) -> None:
        """One line on stderr; what a file or a server said in it cannot steer the terminal."""
        from preflexor_agents.cli.show import inert

        click.echo(f"preflexor: {inert(self.format_message())}", err=True)


class Group(click.Group):
    """Imports a subcommand's module when it is named, so that starting stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"preflexor_agents.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; the one place where our errors end."""
        if not ctx.params["debug"]:
            sys.excepthook = one_line
        try:
            return super().invoke(ctx)
        except PreflexorError as e:
            if ctx.params["debug"]:
                traceback.print_exception(e)
            raise Failed(e) from e


def one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Stands in for the traceback of an error that is not ours."""
    what = str(error) if isinstance(error, OSError) else f"{kind.__name__}: {error}"
    click.echo(f"preflexor: {' '.join(what.split())} (preflexor --debug … shows where)", err=True)


@click.group(
    cls=Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="preflexor", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where in the program an error came from.")
def cli(*, debug: bool) -> None:
    """Ask a local model that thinks, criticises itself, revises, and cites your own papers.

    The model and everything else run on this machine. The bundled model, nano, is tiny: it knows only the bundled
    library of notes on biological materials and is there to show and test the machinery. For real work name a
    model that Ollama serves (--model ollama:NAME) or a GGUF file (--model gguf:PATH).
    """


def main() -> None:
    """Entry point of the `preflexor` script."""
    cli(prog_name="preflexor")
