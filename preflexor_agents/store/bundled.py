"""Stores by name: the path of one, or `bundled` for the notes that come with the package."""

from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from preflexor_agents.store.records import IngestReport
    from preflexor_agents.store.store import Store

NAME = "bundled"


class Bundled(NamedTuple):
    """The open store, and what was done to bring it up to date."""

    store: "Store"
    report: "IngestReport"


def open_bundled() -> Bundled:
    """Open the store of the bundled notes in the user's data folder; make it, or bring it up to date.

    Raises:
        StoreError: it cannot be written.
    """
    import platformdirs

    from preflexor_agents.store.store import Store

    path = Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "bundled-library.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store.open(path, embedder="hash")
    return Bundled(store, store.ingest([Path(str(files("preflexor_agents") / "data" / "library"))]))


def is_store(name: str | PathLike[str]) -> bool:
    """Whether there is something that `open_named` could open."""
    return fspath(name) == NAME or Path(name).expanduser().is_file()


def open_named(name: str | PathLike[str]) -> "Store":
    """The store at a path, or that of the bundled notes for `bundled`.

    Raises:
        StoreError: it cannot be used.
    """
    if fspath(name) == NAME:
        return open_bundled().store
    from preflexor_agents.store.store import Store

    return Store.open(Path(name).expanduser(), create=False)
