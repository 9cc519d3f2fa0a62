"""Starts a training command several times through accelerate, by one of the configurations that come with preflexor."""

import argparse
import logging
import signal
import warnings
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from preflexor_agents.errors import InputError, TrainingError

MODULE = "preflexor_agents"
CPUS = "cpu_gloo"
DEFAULT = 2
"""Processes of each configuration."""
_FOLDER = "configs"


def names() -> tuple[str, ...]:
    """The configurations of the package."""
    files = resources.files("preflexor_training.scale").joinpath(_FOLDER).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def config_file(name: str) -> Path:
    """The accelerate configuration of that name, for `accelerate launch --config_file`. Raises KeyError for another."""
    if name not in names():
        raise KeyError(name)
    return Path(str(resources.files("preflexor_training.scale").joinpath(_FOLDER, f"{name}.yaml")))


def launch(name: str, command: Sequence[str], *, processes: int | None) -> int:
    """Run `preflexor COMMAND` in several processes and wait for them.

    What they have to say they say themselves, in one line; the launcher's own account of a failure is left out.

    Args:
        name: of a configuration.
        command: the words after `preflexor`.
        processes: how many; None is what the configuration says.

    Returns:
        The exit code of the process that failed first; 1 if they were stopped, 0 if nothing went wrong.

    Raises:
        InputError: this machine has no GPUs for it or too few, or DeepSpeed is not installed.
        TrainingError: a process was killed.
    """
    _check(name, processes)
    from accelerate.commands.launch import launch_command, launch_command_parser  # type: ignore[import-untyped]
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    words = ["--config_file", str(config_file(name)), "--module"]
    if processes is not None:
        words += ["--num_processes", str(processes)]
    args: argparse.Namespace = launch_command_parser().parse_args([*words, MODULE, *command])
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            launch_command(args)
    except ChildFailedError as e:
        process, first = e.get_first_failure()
        if first.exitcode < 0:
            raise TrainingError(
                f"process {process + 1} of {args.num_processes} was ended by {_signal(-first.exitcode)}"
            ) from None
        return first.exitcode
    except SignalException:
        return 1
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _check(name: str, processes: int | None) -> None:
    import torch

    if name == CPUS:
        return
    if name.startswith("deepspeed") and find_spec("deepspeed") is None:
        raise InputError(f"--launch {name} needs DeepSpeed: pip install deepspeed, or use --launch fsdp2")
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if count < (processes or DEFAULT):
        raise InputError(
            f"--launch {name} with {processes or DEFAULT} processes takes as many GPUs, and here are {count}; lower"
            f" --processes, or try it on CPUs with --launch {CPUS}"
        )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
