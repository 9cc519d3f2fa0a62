"""Saves runs into the sessions of a store, off the event loop. What cannot be saved now is saved with the next save."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from preflexor_agents.errors import PreflexorError
from preflexor_tui.log import Log

if TYPE_CHECKING:
    from preflexor_agents.store.sessions import Sessions

T = TypeVar("T")


@dataclass(slots=True)
class Entry:
    """A run's place in the journal."""

    question: str
    log: Log
    parent: "Entry | None" = None
    """The run before it in its branch."""
    forked: "Entry | None" = None
    """The run that it branched off from."""
    taken_over: int = 0
    """Events of the log that were taken over from there."""
    run_id: int | None = None
    kept: bool = True
    """Whether it is saved at all; a replay is not."""
    saved: int = 0
    """Events of the log that are in the store."""


class Journal:
    """The sessions of one store; opened at the first use, closed by `close`."""

    def __init__(self, path: Path | None) -> None:
        """Open nothing yet. Without a path nothing is kept."""
        self.path = path
        self.session_id: int | None = None
        """The session that is open."""
        self.trouble = ""
        """Why the last save failed, in one line; empty if it did not."""
        self._sessions: Sessions | None = None
        self._one_at_a_time = asyncio.Lock()

    async def call(self, act: "Callable[[Sessions], T]") -> T:
        """Do something with the sessions, in a thread.

        Raises:
            PreflexorError: they cannot be opened, read or written.
        """
        if self.path is None:
            raise PreflexorError("nothing is kept here; start without --replay to work with sessions")
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._call, self.path, act)

    async def save(self, entry: Entry) -> bool:
        """Save what is new in a run; whether that worked. The first run of a session begins it."""
        if self.path is None or not entry.kept or (entry.run_id is not None and entry.saved >= entry.log.settled):
            return True
        try:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._save, self.path, entry)
        except PreflexorError as e:
            self.trouble = str(e)
            return False
        self.trouble = ""
        return True

    async def close(self) -> None:
        """Close the store's file."""
        async with self._one_at_a_time:
            sessions, self._sessions = self._sessions, None
            if sessions is not None:
                await asyncio.to_thread(sessions.close)

    def _call(self, path: Path, act: "Callable[[Sessions], T]") -> T:
        if self._sessions is None:
            self._sessions = _opened(path)
        return act(self._sessions)

    def _save(self, path: Path, entry: Entry) -> None:
        for needed in (entry.parent, entry.forked):
            if needed is not None and needed.kept and needed.run_id is None:
                self._save(path, needed)
        self._call(path, lambda sessions: self._write(sessions, entry))

    def _write(self, sessions: "Sessions", entry: Entry) -> None:
        settled = entry.log.settled
        if self.session_id is None:
            self.session_id = sessions.create(entry.question)
        if entry.run_id is None:
            entry.run_id = sessions.begin_run(
                self.session_id,
                question=entry.question,
                parent_id=entry.parent.run_id if entry.parent else None,
                forked_id=entry.forked.run_id if entry.forked else None,
                before=entry.log.events[: entry.taken_over],
            )
            entry.saved = entry.taken_over
        sessions.append(entry.run_id, entry.log.events[entry.saved : settled])
        entry.saved = settled


def _opened(path: Path) -> "Sessions":
    """Imported when it is needed: what it stands on takes longer to load than the rest of the screen."""
    from preflexor_agents.store.sessions import Sessions

    return Sessions.open(path)
