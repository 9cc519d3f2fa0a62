"""The conversation on the screen: the runs of one branch, each with its log, and its place in the journal."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from preflexor_agents.events import Event, Timed
from preflexor_agents.session import spent_s
from preflexor_tui.driver import Driver
from preflexor_tui.journal import Entry, Journal
from preflexor_tui.log import up_to_last_round, up_to_round
from preflexor_tui.state.run import Run

if TYPE_CHECKING:
    from preflexor_agents.store.sessions import Session, SessionRun, Sessions


@dataclass(slots=True, eq=False)
class Turn:
    """A question and its run."""

    driver: Driver
    entry: Entry
    failure: str = ""
    """Why it could not go on; empty if nothing is wrong."""

    @property
    def run(self) -> Run:
        """The run so far."""
        return self.driver.run

    @property
    def events(self) -> list[Event]:
        """What has happened."""
        return [t.event for t in self.driver.log.events]


@dataclass(slots=True)
class Conversation:
    """The branch that is shown; every other one is in the store."""

    journal: Journal
    name: str = ""
    turns: list[Turn] = field(default_factory=list)
    runs: "list[SessionRun]" = field(default_factory=list)
    """All runs of the session, for the tree of branches."""

    def begin(self, question: str) -> Turn:
        """A new turn after the last one."""
        return self._add(question, [], forked=None)

    def fork(self, turn: Turn, *, round: int) -> Turn:
        """A branch that goes on from the end of a round of this turn; it takes the turn's place on the screen."""
        before = up_to_round(turn.driver.log.events, round)
        del self.turns[self.turns.index(turn) :]
        return self._add(turn.run.question, before, forked=turn)

    def reask(self, turn: Turn, question: str) -> Turn:
        """A branch that asks something else in this turn's place."""
        del self.turns[self.turns.index(turn) :]
        return self._add(question, [], forked=turn)

    def extend(self, turn: Turn) -> Turn:
        """The same turn, ready to go on after its end, or after its last whole round if it was cut off."""
        before = up_to_last_round(turn.driver.log.events)
        if len(before) < len(turn.driver.log.events):
            del self.turns[self.turns.index(turn) :]
            return self._add(turn.run.question, before, forked=turn)
        turn.failure = ""
        turn.driver = _driver(turn.run.question, before)
        turn.entry.log = turn.driver.log
        return turn

    def rewind(self, turn: Turn) -> None:
        """Go back to before this turn; what came of it stays in the store as a branch."""
        del self.turns[self.turns.index(turn) :]

    async def keep_head(self) -> None:
        """Remember where the conversation stands. Raises as `Journal.call`."""
        session_id = self.journal.session_id
        if session_id is not None:
            head = self.turns[-1].entry.run_id if self.turns else None
            await self.journal.call(lambda sessions: sessions.set_head(session_id, head))
            await self.refresh()

    async def refresh(self) -> None:
        """Read the tree of branches again. Raises as `Journal.call`."""
        session_id = self.journal.session_id
        if session_id is not None:
            self.runs = await self.journal.call(lambda sessions: sessions.runs(session_id))

    async def load(self, session_id: int) -> "Session":
        """Show another session as it was left. Raises as `Journal.call`, and TraceError for one of a newer version."""
        session, self.runs, logs = await self.journal.call(lambda sessions: _read(sessions, session_id))
        self.journal.session_id, self.name = session.id, session.name
        self.turns.clear()
        for run, events in logs:
            driver = _driver(run.question, events)
            parent = self.turns[-1].entry if self.turns else None
            entry = Entry(question=run.question, log=driver.log, parent=parent, run_id=run.id, saved=len(events))
            self.turns.append(Turn(driver, entry))
        return session

    async def show_branch(self, run_id: int) -> None:
        """Go to the branch that ends with a run. Raises as `load`."""
        session_id = self.journal.session_id
        if session_id is not None:
            await self.journal.call(lambda sessions: sessions.set_head(session_id, run_id))
            await self.load(session_id)

    def clear(self) -> None:
        """Begin a new session; it is in the store once something is asked."""
        self.journal.session_id, self.name = None, ""
        self.turns.clear()
        self.runs.clear()

    def _add(self, question: str, before: list[Timed], *, forked: Turn | None) -> Turn:
        driver = _driver(question, before)
        entry = Entry(
            question=question,
            log=driver.log,
            parent=self.turns[-1].entry if self.turns else None,
            forked=forked.entry if forked else None,
            taken_over=len(before),
        )
        turn = Turn(driver, entry)
        self.turns.append(turn)
        self.name = self.name or " ".join(question.split())[:60]
        return turn


def _driver(question: str, before: list[Timed]) -> Driver:
    return Driver(question, before=before, offset_s=spent_s([t.event for t in before]))


def _read(
    sessions: "Sessions", session_id: int
) -> "tuple[Session, list[SessionRun], list[tuple[SessionRun, list[Timed]]]]":
    from preflexor_agents.store.sessions import branch_of

    session = sessions.get(session_id)
    runs = sessions.runs(session_id)
    return session, runs, [(run, sessions.events(run.id)) for run in branch_of(runs, session.head_id)]
