"""Graphs as other programs write them in JSON: lists, or objects by id, of nodes and of edges with attributes."""

from collections.abc import Iterable, Iterator, Mapping

from preflexor_agents.errors import InputError
from preflexor_agents.graph.imported import ForeignEdge, ForeignNode, Imported, as_graph

_NODE_LISTS = ("nodes", "vertices")
_EDGE_LISTS = ("edges", "links", "relationships")
_ID_KEYS = ("id", "key", "@id", "uid")
_SOURCE_KEYS = ("source", "from", "src", "start")
_TARGET_KEYS = ("target", "to", "dst", "end")
_PARTS = ("data", "attributes", "metadata", "properties")
"""Objects inside a node or an edge that hold more of its attributes."""

Record = Mapping[str, object]


def read(found: Record) -> Imported:
    """The graph in a JSON object. Raises InputError if there is none."""
    holder: Record = found
    for key in ("elements", "graph"):
        inner = found.get(key)
        if isinstance(inner, dict) and any(name in inner for name in (*_NODE_LISTS, *_EDGE_LISTS)):
            holder = inner
    nodes, edges = _list_in(holder, _NODE_LISTS), _list_in(holder, _EDGE_LISTS)
    if nodes is None:
        keys = ", ".join(sorted(map(str, found))[:8]) or "nothing"
        raise InputError(f"the JSON holds no graph: 'nodes' and 'edges' (or 'links') are needed, it has {keys}")
    as_nodes = [ForeignNode(id=_one(n, _ID_KEYS), attributes=_texts(n)) for n in _records(nodes)]
    as_edges = [
        ForeignEdge(
            id=_one(e, _ID_KEYS), source=_one(e, _SOURCE_KEYS), target=_one(e, _TARGET_KEYS), attributes=_texts(e)
        )
        for e in _records(edges or [])
    ]
    return as_graph(as_nodes, as_edges)


def _list_in(holder: Record, names: Iterable[str]) -> object | None:
    return next((holder[name] for name in names if name in holder), None)


def _records(found: object) -> Iterator[Record]:
    """The objects in a list, or in an object by id; a bare id or a pair of ids counts too."""
    if isinstance(found, dict):
        yield from ({"id": id, **_flat(value)} for id, value in found.items())
        return
    if not isinstance(found, list):
        raise InputError(f"the JSON holds no graph: nodes and edges must be lists, not {type(found).__name__}")
    for one in found:
        if isinstance(one, list) and len(one) in (2, 3):
            yield {"source": one[0], "target": one[1], **({"kind": one[2]} if len(one) == 3 else {})}
        else:
            yield _flat(one) if isinstance(one, dict) else {"id": one}


def _flat(one: object) -> Record:
    if not isinstance(one, dict):
        return {"label": one}
    inner = [part for key in _PARTS if isinstance(part := one.get(key), dict)]
    return {key: value for part in (*inner, one) for key, value in part.items()}


def _one(record: Record, keys: Iterable[str]) -> str:
    return next((_text(record[key]) for key in keys if key in record), "")


def _texts(record: Record) -> dict[str, str]:
    return {key: text for key, value in record.items() if (text := _text(value))}


def _text(value: object) -> str:
    """A value that can be a name or an id; the id of an object, as d3 leaves it, is inside."""
    if isinstance(value, dict):
        return _one(value, _ID_KEYS)
    if isinstance(value, list):
        return ", ".join(one for one in value if isinstance(one, str))
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
