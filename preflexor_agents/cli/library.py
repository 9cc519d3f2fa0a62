"""Which knowledge store a question is asked against."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from preflexor_agents.settings import Settings
    from preflexor_agents.store import Store


def open_library(settings: "Settings", watch: "Console") -> "Store | None":
    """The store to search; for nano without a store of the user's own, the bundled library; else none."""
    from preflexor_agents.settings import default_store
    from preflexor_agents.store import Store, browsing
    from preflexor_agents.store.paths import shown

    if settings.store.exists() or settings.store != default_store():
        store = Store.open(settings.store, create=False)
        if not browsing.documents(settings.store, most=1):
            note = f"store {shown(settings.store)} holds no documents: answering without passages"
            watch.print(f"{note} (preflexor ingest PATH… puts some in)", style="dim", markup=False, soft_wrap=True)
        return store
    if settings.model == "nano":
        return bundled_library(watch)
    watch.print("no knowledge store yet: answering without passages (preflexor ingest PATH… makes one)", style="dim")
    return None


def bundled_library(watch: "Console") -> "Store":
    """The store of the bundled notes, made or brought up to date."""
    from preflexor_agents.store import open_bundled

    store, report = open_bundled()
    watch.print(f"bundled library: {report}", style="dim", markup=False, soft_wrap=True)
    return store
