"""A whole cast for forge runs, scripted: what each model says follows from what it is asked. Also a run to be killed.

`python -m tests.training.forging STORE FOLDER ROWS` makes rows, and writes the key of every call that is answered, a
line each, to standard output before it is.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import JUDGE
from preflexor_agents.store import Store
from preflexor_training.forge.cache import content_key
from preflexor_training.forge.calls import Model, Patience
from preflexor_training.forge.records import Row, read_rows, to_json
from preflexor_training.forge.run import Report, Work, forge
from preflexor_training.forge.settings import ForgeSettings
from tests.training.teaching import teach

AT_ONCE = Patience(backoff_s=0.0)


def speak(request: Request) -> Reply:
    """What any of the three models says."""
    asked = request.messages[-1].content
    if JUDGE in asked:
        return "Better: B" if "I guess" in asked.split("\nB:\n")[0] else "Better: A"
    if "Task: " in asked and "straight away" not in asked:
        return teach(request)
    thinking = f"<|thinking|>thought {request.seed}<|/thinking|>" if "<|thinking|>" in asked else ""
    return f"{thinking}I guess that it is answer no. {request.seed % 97}."


def flawed(request: Request) -> Reply:
    """As `speak`, but for some calls empty, declined, not JSON, or an error; decided by the call alone."""
    match request.seed % 101:
        case 0 | 1 | 2:
            return ""
        case 3 | 4:
            return "I'm sorry, but I can't help with that." if request.json_schema is None else "{"
        case 5 | 6:
            return BackendError("the connection was lost")
        case _:
            return speak(request)


def cast(backend: ScriptedBackend) -> Mapping[Any, Model]:
    """One backend in all parts."""
    return {who: Model(backend=backend) for who in ("teacher", "student", "judge")}


def work(store: Store, folder: Path, script: Callable[[Request], Reply] = speak, **settings: Any) -> Work:
    """A run with a scripted model in all parts."""
    return Work(
        settings=ForgeSettings(**settings),
        folder=folder,
        store=store,
        models=cast(ScriptedBackend(script)),
        patience=AT_ONCE,
    )


def run(store: Store, folder: Path, script: Callable[[Request], Reply] = speak, **settings: Any) -> Report:
    """Make the rows of a run."""
    return asyncio.run(forge(work(store, folder, script, **settings)))


def timeless(place: Path) -> list[dict[str, Any]]:
    """The rows of a log, without the seconds of their calls."""
    return [to_json(replace(row, calls=tuple(replace(c, seconds=0.0) for c in row.calls))) for row in read_rows(place)]


def rows_of(place: Path) -> list[Row]:
    return list(read_rows(place))


def main(store: str, folder: str, rows: str) -> None:
    def tell(request: Request) -> Reply:
        said = flawed(request)
        if not isinstance(said, BackendError):  # which nobody pays for
            os.write(1, f"{content_key('scripted', '', request, attempt=0)}\n".encode())
        return said

    with Store.open(Path(store)) as opened:
        run(opened, Path(folder), tell, rows=int(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
