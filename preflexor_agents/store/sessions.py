"""Conversations kept in a store: each is a tree of runs, each run a whole log of its events.

A run follows its parent. A branch is a run with the same parent as the one that it was forked from; it begins with a
copy of that run's events, so every log can be folded by itself. The head of a session is the run that is shown last.
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlite_utils import Database

from preflexor_agents.errors import InputError, StoreError
from preflexor_agents.events import Event, RoundFinished, RunFinished, Timed, from_json, to_json
from preflexor_agents.store import driver, schema
from preflexor_agents.store.paths import shown

LONGEST_NAME = 120
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation."""

    id: int
    name: str
    created_at: str
    """UTC, ISO 8601."""
    changed_at: str
    runs: int
    question: str
    """The first one; empty if nothing was asked."""
    head_id: int | None
    draft: str
    """What was typed and not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRun:
    """A run in a conversation."""

    id: int
    session_id: int
    parent_id: int | None
    """The run before it in its branch."""
    forked_id: int | None
    """The run that it branched off from."""
    forked_round: int | None
    """Rounds that it took over from there; 0 if the question was asked anew."""
    question: str
    answer: str
    rounds: int
    stop_reason: str
    """Empty while it runs, and if it was cut off."""
    started_at: str


class Sessions:
    """The conversations in a store's file; use it as a context manager or call `close`. Any thread may call it."""

    def __init__(self, db: Database, path: Path) -> None:
        self.path = path
        self._db = db
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> "Sessions":
        """Open the conversations in a file.

        Raises:
            StoreFileError: the file cannot be used as a store.
        """
        return cls(schema.open_file(path, create=create), path)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._closed = True
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, name: str) -> int:
        """Begin a conversation; gives its id."""
        now = _now()
        row = (_name(name), now, now)
        with self._writing():
            sql = "INSERT INTO session(name, created_at, changed_at) VALUES (?, ?, ?)"
            return int(self._db.conn.execute(sql, row).lastrowid or 0)

    def find(self, text: str = "", *, most: int = 200) -> list[Session]:
        """The conversations whose name, questions or answers hold every word of `text`, the latest first."""
        words = _WORD.findall(text)
        name = " AND ".join("name LIKE ? ESCAPE '\\'" for _ in words) or "1"
        sql = f"SELECT id FROM session WHERE {name}"
        given: list[object] = [f"%{_literal(w)}%" for w in words]
        if words:
            sql += """ OR id IN (
                SELECT session_id FROM session_run
                WHERE id IN (SELECT rowid FROM session_fts WHERE session_fts MATCH ?))"""
            given.append(" ".join(f'"{w}"*' for w in words))
        with self._using():
            return self._sessions(f"id IN ({sql})", given, most=most)

    def get(self, session_id: int) -> Session:
        """One conversation. Raises InputError if there is none of that id."""
        with self._using():
            found = self._sessions("id = ?", [session_id], most=1)
        if not found:
            raise InputError(f"there is no session {session_id} in {shown(self.path)}; it may have been deleted")
        return found[0]

    def rename(self, session_id: int, name: str) -> None:
        """Give a conversation another name. Raises InputError if the name is empty."""
        if not name.strip():
            raise InputError("the name is empty; give the session a name")
        with self._writing():
            self._db.conn.execute("UPDATE session SET name = ? WHERE id = ?", (_name(name), session_id))

    def keep_draft(self, session_id: int, text: str) -> None:
        """Keep what was typed and not sent."""
        with self._writing():
            sql = "UPDATE session SET draft = ? WHERE id = ?"
            self._db.conn.execute(sql, (_UNSTORABLE.sub("\ufffd", text), session_id))

    def delete(self, session_id: int) -> None:
        """Delete a conversation with all its runs."""
        with self._writing():
            self._db.conn.execute("DELETE FROM session WHERE id = ?", (session_id,))

    def set_head(self, session_id: int, run_id: int | None) -> None:
        """Go to a run of the conversation, or before its first one: what comes after stays as a branch."""
        with self._writing():
            self._db.conn.execute("UPDATE session SET head_id = ? WHERE id = ?", (run_id, session_id))

    def begin_run(
        self,
        session_id: int,
        *,
        question: str,
        parent_id: int | None,
        forked_id: int | None = None,
        before: Iterable[Timed] = (),
    ) -> int:
        """Begin a run and go to it; gives its id.

        Args:
            session_id: the conversation.
            question: what is asked.
            parent_id: the run that it follows.
            forked_id: the run that it branches off from.
            before: the events that it takes over from there.

        Raises:
            InputError: the conversation was deleted.
        """
        taken = list(before)
        rounds = sum(isinstance(t.event, RoundFinished) for t in taken)
        row = (session_id, parent_id, forked_id, rounds if forked_id else None, _storable(question), _now())
        with self._writing():
            if not self._sessions("id = ?", [session_id], most=1):
                raise InputError(f"session {session_id} was deleted; begin a new one")
            sql = """INSERT INTO session_run(session_id, parent_id, forked_id, forked_round, question, started_at)
                VALUES (?, ?, ?, ?, ?, ?)"""
            run_id = int(self._db.conn.execute(sql, row).lastrowid or 0)
            self._append(run_id, taken)
            sql = "UPDATE session SET head_id = ?, changed_at = ? WHERE id = ?"
            self._db.conn.execute(sql, (run_id, _now(), session_id))
        return run_id

    def append(self, run_id: int, events: Iterable[Timed]) -> None:
        """Add events to a run's log, all or none of them. Raises InputError if the run was deleted."""
        with self._writing():
            if not self._db.conn.execute("SELECT 1 FROM session_run WHERE id = ?", (run_id,)).fetchone():
                raise InputError(f"run {run_id} was deleted; ask again in a new session")
            self._append(run_id, list(events))

    def runs(self, session_id: int) -> list[SessionRun]:
        """All runs of a conversation, the oldest first."""
        columns = (
            "id, session_id, parent_id, forked_id, forked_round, question, answer, rounds, stop_reason, started_at"
        )
        with self._using():
            rows = self._db.conn.execute(
                f"SELECT {columns} FROM session_run WHERE session_id = ? ORDER BY id", (session_id,)
            ).fetchall()
        return [SessionRun(**dict(zip(columns.split(", "), row, strict=True))) for row in rows]

    def events(self, run_id: int) -> list[Timed]:
        """The log of a run. Raises TraceError if one of its events is of a newer version."""
        with self._using():
            sql = "SELECT t_s, body FROM session_event WHERE run_id = ? ORDER BY seq"
            rows = self._db.conn.execute(sql, (run_id,)).fetchall()
        return [Timed(t_s, from_json(json.loads(body))) for t_s, body in rows]

    def _append(self, run_id: int, events: list[Timed]) -> None:
        sql = "SELECT coalesce(max(seq), 0) FROM session_event WHERE run_id = ?"
        last = int(self._db.conn.execute(sql, (run_id,)).fetchone()[0])
        rows = [(run_id, last + n, t.t_s, json.dumps(to_json(t.event))) for n, t in enumerate(events, 1)]
        self._db.conn.executemany("INSERT INTO session_event(run_id, seq, t_s, body) VALUES (?, ?, ?, ?)", rows)
        rounds = sum(isinstance(t.event, RoundFinished) for t in events)
        if rounds:
            self._db.conn.execute("UPDATE session_run SET rounds = rounds + ? WHERE id = ?", (rounds, run_id))
        for timed in events:
            self._note_end(run_id, timed.event)

    def _note_end(self, run_id: int, event: Event) -> None:
        if isinstance(event, RunFinished):
            sql = "UPDATE session_run SET answer = ?, stop_reason = ? WHERE id = ?"
            self._db.conn.execute(sql, (_storable(event.answer), event.stop_reason, run_id))

    def _sessions(self, where: str, given: list[object], *, most: int) -> list[Session]:
        sql = f"""
            SELECT id, name, created_at, changed_at,
                (SELECT count(*) FROM session_run WHERE session_id = session.id),
                coalesce((SELECT question FROM session_run WHERE session_id = session.id ORDER BY id LIMIT 1), ''),
                head_id, draft
            FROM session WHERE {where} ORDER BY changed_at DESC, id DESC LIMIT ?"""
        names = ("id", "name", "created_at", "changed_at", "runs", "question", "head_id", "draft")
        rows = self._db.conn.execute(sql, (*given, most)).fetchall()
        return [Session(**dict(zip(names, row, strict=True))) for row in rows]

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock, driver.speaking_of(self.path):
            if self._closed:
                raise StoreError(f"the sessions in {shown(self.path)} are closed; open them again")
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._using(), driver.writing(self._db):
            yield


def branch_of(runs: list[SessionRun], head_id: int | None) -> list[SessionRun]:
    """The runs from the first one to the head."""
    by_id = {run.id: run for run in runs}
    branch: list[SessionRun] = []
    while head_id is not None and head_id in by_id:
        run = by_id.pop(head_id)
        branch.insert(0, run)
        head_id = run.parent_id
    return branch


def _name(text: str) -> str:
    """A name on one line, not too long."""
    return " ".join(_storable(text).split())[:LONGEST_NAME] or "untitled"


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)


def _literal(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
