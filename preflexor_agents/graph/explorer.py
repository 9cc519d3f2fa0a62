"""The graph as one HTML page that needs nothing else: it draws, searches and shows quotes without any network.

The parts of the page lie in `preflexor_agents/data/explorer`. Its policy lets only the script and the style that are
written into it run, and forbids every connection; text of the graph is data to it, never markup.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template

from preflexor_agents.graph.values import Evidence, Graph

SCRIPTS = ("model.js", "layout.js", "marks.js", "view.js", "pointer.js", "panel.js", "main.js")
_TROUBLE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end the element that holds the JSON, or a line of a script."""


def write(graph: Graph, *, title: str, communities: Iterable[Sequence[int]] = ()) -> str:
    """The page for a graph.

    Args:
        graph: What to show.
        title: The page's heading.
        communities: Entity ids that belong together, largest community first; told apart by colour and shape.
    """
    script = '"use strict";\n(() => {\n' + "\n".join(map(_part, SCRIPTS)) + "})();\n"
    style = _part("explorer.css")
    return Template(_part("explorer.html")).substitute(
        title=html.escape(title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        graph=_json(graph, communities),
    )


def _part(name: str) -> str:
    return (files("preflexor_agents") / "data" / "explorer" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression by which a content security policy knows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


class _Numbered(dict[tuple[str, ...], int]):
    """Gives each value the place at which it was first met."""

    def __missing__(self, value: tuple[str, ...]) -> int:
        self[value] = len(self)
        return self[value]


def _json(graph: Graph, communities: Iterable[Sequence[int]]) -> str:
    """The graph as `readGraph` in model.js takes it: rows of values, in which numbers are places in other rows."""
    types, kinds, sources, runs = _Numbered(), _Numbered(), _Numbered(), _Numbered()
    community = {entity: place for place, members in enumerate(communities) for entity in members}
    places = {entity.id: place for place, entity in enumerate(graph.entities)}

    def quote(found: Evidence) -> list[object]:
        run = found.run
        return [
            sources[found.title, found.source],
            *(found.page, found.start, found.end, found.quote),
            runs[run.started_at, run.kind, run.model, run.note],
        ]

    rows = {
        "entities": [[e.name, types[(e.type,)], e.aliases, community.get(e.id, -1)] for e in graph.entities],
        "relations": [
            [places[r.source], kinds[(r.kind,)], places[r.target], [quote(q) for q in graph.evidence.get(r.id, ())]]
            for r in graph.relations
        ],
        "types": [type for (type,) in types],
        "kinds": [kind for (kind,) in kinds],
        "sources": list(sources),
        "runs": list(runs),
        "communities": bool(community),
    }
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return "".join(_TROUBLE.get(c, c) for c in text) if not _TROUBLE.keys().isdisjoint(text) else text
