"""The bundled notes as a knowledge store, for the bundled model and whoever has no documents at hand."""

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import platformdirs

from preflexor_agents.store.records import IngestReport
from preflexor_agents.store.store import Store


class Bundled(NamedTuple):
    """The open store, and what was done to bring it up to date."""

    store: Store
    report: IngestReport


def open_bundled() -> Bundled:
    """Open the store of the bundled notes in the user's data folder; make it, or bring it up to date.

    Raises:
        StoreError: it cannot be written.
    """
    path = Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "bundled-library.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store.open(path, embedder="hash")
    return Bundled(store, store.ingest([Path(str(files("preflexor_agents") / "data" / "library"))]))
