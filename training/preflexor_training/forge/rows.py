"""Runs the steps of one row, each as soon as its needs are there, and makes a line of the log of what came out."""

import asyncio
import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from preflexor_agents.errors import BackendError
from preflexor_training.forge.steps import Dropped, Job, Step


class Ran(NamedTuple):
    """What the steps came to."""

    values: Mapping[str, Any]
    """By name, in the order of the steps."""
    fall: Dropped | BackendError | None
    """Why the row is given up, if it is: the first reason by the order of the steps."""


async def run_steps(steps: Sequence[Step], job_of: Callable[[int], Job]) -> Ran:
    """Run all steps whose needs can be met; of a step that fails only those that need it are left out.

    What does not need it is done to the end, so that what a row came to does not depend on who was faster.

    Args:
        steps: in the order in which they are told about.
        job_of: the job of the step at a place.

    Raises:
        PreflexorError: a step failed with more than a failed call or a refused row.
    """
    check(steps)
    values: dict[str, Any] = {}
    falls: dict[int, Dropped | BackendError] = {}
    ended = {step.name: asyncio.Event() for step in steps}

    async def one(place: int, step: Step) -> None:
        for need in step.needs:
            await ended[need].wait()
        try:
            if all(need in values for need in step.needs):
                with one_error():
                    values[step.name] = await step.run(job_of(place), {need: values[need] for need in step.needs})
        except (Dropped, BackendError) as error:
            falls[place] = error
        finally:
            ended[step.name].set()

    with one_error():
        async with asyncio.TaskGroup() as group:
            for place, step in enumerate(steps):
                group.create_task(one(place, step))
    values = {step.name: values[step.name] for step in steps if step.name in values}
    return Ran(values, falls[min(falls)] if falls else None)


def check(steps: Sequence[Step]) -> None:
    """Raises ValueError: a need is no step, or steps need one another in a circle."""
    names = {step.name for step in steps}
    for step in steps:
        if unknown := set(step.needs) - names:
            raise ValueError(f"step {step.name} needs {sorted(unknown)}, and there is no such step")
    graphlib.TopologicalSorter({step.name: step.needs for step in steps}).prepare()


@contextmanager
def one_error() -> Iterator[None]:
    """Of the errors of tasks that ran side by side raise one alone: what ends the run before what ends a row."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        raise next((e for e in leaves if not isinstance(e, Dropped | BackendError)), leaves[0]) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
