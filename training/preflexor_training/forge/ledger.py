"""What a run has come to: its id, its log, the count of its rows; and what is written when a call of it ends."""

import datetime
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from preflexor_agents.errors import StoreError
from preflexor_agents.store import Store
from preflexor_agents.store.forge_index import ForgeRow
from preflexor_training.forge.card import write_card
from preflexor_training.forge.folder import Origin, claim
from preflexor_training.forge.log import PairLog
from preflexor_training.forge.records import Row, read_rows
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.table import Tally


class Ledger:
    """The rows of a run, in their order. Use it as a context manager or call `close`; one process at a time has it."""

    def __init__(self, folder: Path, settings: ForgeSettings, origin: Origin, *, known: Callable[[Row], None]) -> None:
        """Begin a run in a folder, or go on with the one that is there.

        Args:
            folder: made if there is none.
            settings: of the run.
            origin: what else decides its rows.
            known: is given each row that is there.

        Raises:
            InputError: another run is in the folder, or another process works on it.
            DiskError: the disk is full.
        """
        self.folder = folder
        self.tally = Tally(total=settings.rows)
        self.run = claim(folder, settings, origin)

        def take(row: Row) -> None:
            self.tally.add(row)
            known(row)

        self._log = PairLog(folder, run=self.run, take=take)
        self.tally.before = self.tally.done
        self.tally.total = max(settings.rows, self.tally.before)

    @property
    def left(self) -> range:
        """Numbers of the rows that are not there yet."""
        return range(self._log.next, self.tally.total)

    def add(self, row: Row) -> None:
        """Add the next row; from any thread. Raises DiskError: the disk is full, and the log is as it was."""
        self._log.append(row)
        self.tally.add(row)

    def finish(self, store: Store) -> tuple[str, ...]:
        """Write the data card, and let the rows be found in the store by their chunks; says what could not be done.

        The log holds all that counts, so a store that is read-only is no harm.

        Raises:
            ForgeError: the card could not be written.
        """
        write_card(self.folder, date=datetime.date.today().isoformat())
        try:
            store.forge.record(self.run, map(_noted, read_rows(self.folder)), log=self._log.path)
        except StoreError as e:
            return (f"the rows are not noted in the store: {e}",)
        return ()

    def close(self) -> None:
        """Let the log go. Idempotent."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _noted(row: Row) -> ForgeRow:
    return ForgeRow(
        id=row.id,
        number=row.number,
        state=row.state,
        variant=row.variant,
        phase=row.phase,
        round=row.round,
        chunk_ids=tuple(span.chunk_id for span in row.context),
    )
