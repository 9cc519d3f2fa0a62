"""The graph as GraphML: opens in Gephi, yEd, Cytoscape, networkx and igraph with names as labels; reads theirs.

Characters that XML cannot hold are written as `_xHHHH_`, as in Office Open XML, and read back.
"""

import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from preflexor_agents.errors import InputError
from preflexor_agents.graph import evidence_rows
from preflexor_agents.graph.imported import SEEN_LABEL, ForeignEdge, ForeignNode, Imported, as_graph
from preflexor_agents.graph.parts import connections
from preflexor_agents.graph.values import Entity, Graph, Relation

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">
<key id="label" for="node" attr.name="label" attr.type="string"/>
<key id="type" for="node" attr.name="type" attr.type="string"/>
<key id="aliases" for="node" attr.name="aliases" attr.type="string"/>
<key id="connections" for="node" attr.name="connections" attr.type="int"/>
<key id="node_graphics" for="node" yfiles.type="nodegraphics"/>
<key id="edgelabel" for="edge" attr.name="label" attr.type="string"/>
<key id="weight" for="edge" attr.name="weight" attr.type="int"/>
<key id="evidence" for="edge" attr.name="evidence" attr.type="string"/>
<key id="edge_graphics" for="edge" yfiles.type="edgegraphics"/>
<graph id="G" edgedefault="directed">
"""
_TAIL = "</graph>\n</graphml>\n"
_UNFIT = re.compile("_(?=x[0-9A-Fa-f]{4}_)|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def write(graph: Graph) -> str:
    """The graph as GraphML, nothing left out: evidence is JSON in an attribute of its edge."""
    counts = connections(graph)
    nodes = (_node(entity, counts[entity.id]) for entity in graph.entities)
    edges = (_edge(relation, graph) for relation in graph.relations)
    return "".join((_HEAD, *nodes, *edges, _TAIL))


def read(data: bytes) -> Imported:
    """The graph in a GraphML file of any program; hyperedges are left out, nested graphs are taken as one.

    Raises:
        InputError: the file is no GraphML, or has a document type, in which entities could be declared.
    """
    try:
        root = ElementTree.fromstring(data, parser=ElementTree.XMLParser(target=_Tree()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"no XML: {error}") from None
    if _local(root.tag) != "graphml":
        raise InputError(f"no GraphML: the document is a {_local(root.tag)!r}; export it as GraphML")
    keys = {e.get("id", ""): e for e in root.iter() if _local(e.tag) == "key"}
    names = {id: key.get("attr.name") or id for id, key in keys.items()}
    defaults = {(key.get("for"), names[id]): text for id, key in keys.items() if (text := _default(key))}
    nodes, edges, hyperedges = [], [], 0
    for element in root.iter():
        match _local(element.tag):
            case "node":
                attributes = _attributes(element, names, defaults)
                nodes.append(ForeignNode(id=element.get("id", ""), attributes=attributes))
            case "edge":
                edges.append(
                    ForeignEdge(
                        id=element.get("id", ""),
                        source=element.get("source", ""),
                        target=element.get("target", ""),
                        attributes=_attributes(element, names, defaults),
                    )
                )
            case "hyperedge":
                hyperedges += 1
    found = as_graph(nodes, edges)
    if not hyperedges:
        return found
    line = f"{hyperedges} hyperedges: only edges with two ends can be read"
    return Imported(graph=found.graph, left_out=(*found.left_out, line))


class _Tree(ElementTree.TreeBuilder):
    """Refuses a document type before anything in it is read: entities there can grow without bound or name files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError("the XML declares a document type (<!DOCTYPE …>), which could hold anything; remove it")


def _node(entity: Entity, relations: int) -> str:
    label = _xml(entity.name)
    return (
        f'<node id="n{entity.id}">{_data("label", label)}{_data("type", _xml(entity.type))}'
        f"{_data('aliases', _xml(json.dumps(entity.aliases)) if entity.aliases else '')}"
        f"{_data('connections', str(relations))}"
        f'<data key="node_graphics"><y:ShapeNode><y:NodeLabel>{label}</y:NodeLabel>'
        f'<y:Shape type="roundrectangle"/></y:ShapeNode></data></node>\n'
    )


def _edge(relation: Relation, graph: Graph) -> str:
    kind = _xml(relation.kind)
    quotes = graph.evidence.get(relation.id, ())
    return (
        f'<edge id="e{relation.id}" source="n{relation.source}" target="n{relation.target}">'
        f"{_data('edgelabel', kind)}{_data('weight', str(relation.weight))}"
        f"{_data('evidence', _xml(evidence_rows.as_text(quotes)) if quotes else '')}"
        f'<data key="edge_graphics"><y:PolyLineEdge><y:Arrows source="none" target="standard"/>'
        f"<y:EdgeLabel>{kind}</y:EdgeLabel></y:PolyLineEdge></data></edge>\n"
    )


def _data(key: str, text: str) -> str:
    return f'<data key="{key}">{text}</data>' if text else ""


def _xml(text: str) -> str:
    kept = _UNFIT.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
    return escape(kept, {"\r": "&#13;"})


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def _attributes(element: Element, names: dict[str, str], defaults: dict[tuple[str | None, str], str]) -> dict[str, str]:
    """What is known of a node or an edge, the label in a drawing of yEd's included."""
    kind = _local(element.tag)
    found = {name: text for (owner, name), text in defaults.items() if owner in (kind, "all")}
    found |= {key: value for key, value in element.attrib.items() if key in ("label", "labels")}
    for data in element:
        if _local(data.tag) != "data":
            continue
        text = next(_labels(data), "") if len(data) else data.text or ""
        name = SEEN_LABEL if len(data) else names.get(data.get("key", ""), data.get("key", ""))
        if text.strip():
            found[name] = _plain(text)
    return found


def _labels(data: Element) -> Iterator[str]:
    """The texts of yEd's labels inside; it writes layout hints behind the text."""
    for inner in data.iter():
        if _local(inner.tag) in ("NodeLabel", "EdgeLabel") and (inner.text or "").strip():
            yield inner.text or ""


def _default(key: Element) -> str:
    return next((child.text or "" for child in key if _local(child.tag) == "default"), "")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
