"""Words that some models were trained to see before a query and before a text; without them they find less.

From the model cards of the models named.
"""

from typing import NamedTuple


class Prefixes(NamedTuple):
    """What stands before the text."""

    query: str
    document: str


_RETRIEVE = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
_NONE = Prefixes("", "")
_KNOWN: tuple[tuple[tuple[str, ...], Prefixes], ...] = (
    (("nomic-embed-text",), Prefixes("search_query: ", "search_document: ")),
    (("e5-", "-instruct"), Prefixes(_INSTRUCT, "")),
    (("e5-",), Prefixes("query: ", "passage: ")),
    (("qwen3-embedding",), Prefixes(_INSTRUCT, "")),
    (("embeddinggemma",), Prefixes("task: search result | query: ", "title: none | text: ")),
    (("bge-", "-en"), Prefixes(_RETRIEVE, "")),
    (("mxbai-embed",), Prefixes(_RETRIEVE, "")),
    (("snowflake-arctic-embed2",), Prefixes("query: ", "")),
    (("snowflake-arctic-embed-", "-v2"), Prefixes("query: ", "")),
    (("snowflake-arctic-embed",), Prefixes(_RETRIEVE, "")),
)


def prefixes_of(model: str) -> Prefixes:
    """The prefixes of the model of that name, empty for models that need none."""
    name = model.lower().replace("_", "-").replace(" ", "-")
    return next((found for parts, found in _KNOWN if all(part in name for part in parts)), _NONE)
