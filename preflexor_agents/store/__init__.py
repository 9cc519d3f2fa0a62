"""The knowledge store: one SQLite file with documents, hybrid search and citations that are checked.

Names are loaded at first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflexor_agents.store.bundled import is_store, open_bundled, open_named
    from preflexor_agents.store.embedders import Embedder, open_embedder
    from preflexor_agents.store.filters import Filter
    from preflexor_agents.store.findings import Finding
    from preflexor_agents.store.records import IngestProgress, IngestReport, StoreStats
    from preflexor_agents.store.reindex import ReindexProgress, ReindexReport
    from preflexor_agents.store.search import Reranker
    from preflexor_agents.store.store import Store

__all__ = [
    "Embedder",
    "Filter",
    "Finding",
    "IngestProgress",
    "IngestReport",
    "ReindexProgress",
    "ReindexReport",
    "Reranker",
    "Store",
    "StoreStats",
    "is_store",
    "open_bundled",
    "open_embedder",
    "open_named",
]

_HOMES = {
    "Embedder": "embedders",
    "is_store": "bundled",
    "open_bundled": "bundled",
    "open_named": "bundled",
    "open_embedder": "embedders",
    "Filter": "filters",
    "Finding": "findings",
    "IngestProgress": "records",
    "IngestReport": "records",
    "StoreStats": "records",
    "ReindexProgress": "reindex",
    "ReindexReport": "reindex",
    "Reranker": "search",
    "Store": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
