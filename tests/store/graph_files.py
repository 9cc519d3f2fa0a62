"""Graphs as other programs write them, in their own attribute names, and a small one of ours."""

from preflexor_agents.graph.values import Entity, Evidence, Graph, Relation, Run

NETWORKX = """<?xml version='1.0' encoding='utf-8'?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">
  <key id="d2" for="edge" attr.name="weight" attr.type="double"/>
  <key id="d1" for="edge" attr.name="title" attr.type="string"/>
  <key id="d0" for="node" attr.name="entity_type" attr.type="string"/>
  <graph edgedefault="directed">
    <node id="nacre"><data key="d0">material</data></node>
    <node id="aragonite"/>
    <edge source="nacre" target="aragonite"><data key="d1">consists of</data><data key="d2">0.5</data></edge>
    <edge source="nacre" target="chitin"><data key="d1">holds</data></edge>
  </graph>
</graphml>
"""
GEPHI = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key attr.name="label" attr.type="string" for="node" id="label"/>
<key attr.name="Edge Label" attr.type="string" for="edge" id="edgelabel"/>
<key attr.name="weight" attr.type="double" for="edge" id="weight"/>
<key attr.name="r" attr.type="int" for="node" id="r"/>
<key attr.name="Category" attr.type="string" for="node" id="category"><default>thing</default></key>
<graph edgedefault="directed">
<node id="10.0"><data key="label">nacre</data><data key="category">material</data><data key="r">12</data></node>
<node id="11.0"><data key="label">aragonite</data></node>
<edge id="0" source="10.0" target="11.0"><data key="edgelabel">consists of</data><data key="weight">2.0</data></edge>
<edge id="1" source="11.0" target="12.0"/>
</graph>
</graphml>
"""
YED = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">
  <key attr.name="description" attr.type="string" for="node" id="d5"/>
  <key for="node" id="d6" yfiles.type="nodegraphics"/>
  <key for="edge" id="d10" yfiles.type="edgegraphics"/>
  <graph edgedefault="directed" id="G">
    <node id="n0" yfiles.foldertype="group">
      <data key="d6"><y:ProxyAutoBoundsNode><y:Realizers active="0"><y:GroupNode>
        <y:NodeLabel fontSize="15">shell</y:NodeLabel></y:GroupNode></y:Realizers></y:ProxyAutoBoundsNode></data>
      <graph edgedefault="directed" id="n0:">
        <node id="n0::n0"><data key="d5"/><data key="d6"><y:ShapeNode><y:Geometry height="30.0" width="30.0"/>
          <y:NodeLabel hasText="false"/><y:NodeLabel alignment="center">nacre<y:LabelModel><y:SmartNodeLabelModel/>
          </y:LabelModel></y:NodeLabel><y:Shape type="ellipse"/></y:ShapeNode></data></node>
      </graph>
    </node>
    <node id="n1"><data key="d6"><y:ShapeNode><y:NodeLabel>aragonite</y:NodeLabel></y:ShapeNode></data></node>
    <edge id="e0" source="n0::n0" target="n1"><data key="d10"><y:PolyLineEdge>
      <y:EdgeLabel>consists of<y:PreferredPlacementDescriptor side="anywhere"/></y:EdgeLabel></y:PolyLineEdge></data>
    </edge>
    <edge id="e1" source="n0" target="n1"/>
  </graph>
</graphml>
"""
BOMB = """<?xml version="1.0"?>
<!DOCTYPE graphml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>
<graphml><graph><node id="&c;"/></graph></graphml>
"""
RUN = Run(id=3, kind="extract", model="nano", seed=7, note="papers", started_at="2026-11-21T10:00:00+00:00")
LATER = Run(id=4, kind="grow", model="ollama:qwen3:4b", started_at="2026-11-22T09:30:00+00:00")


def small() -> Graph:
    """Three entities in a row, of two runs; the second relation was found twice."""
    return Graph(
        entities=(
            Entity(id=2, name="nacre", type="material", aliases=("mother of pearl",)),
            Entity(id=5, name="aragonite", type="mineral"),
            Entity(id=9, name="</script><b>chitin & “co”", type="protein"),
        ),
        relations=(
            Relation(id=1, source=2, kind="consists of", target=5),
            Relation(id=4, source=9, kind="lies between", target=5, weight=2),
        ),
        evidence={
            1: (quote(1, "Nacre consists of aragonite.", RUN, start=10, page=3),),
            4: (quote(4, "Chitin lies between.\u2028", LATER, start=40), quote(4, "<img src=x>", LATER, start=90)),
        },
    )


def quote(relation: int, text: str, run: Run, *, start: int, page: int | None = None) -> Evidence:
    return Evidence(
        relation_id=relation,
        chunk_id=1,
        source="papers/nacre.pdf",
        title="Nacre",
        page=page,
        start=start,
        end=start + len(text),
        quote=text,
        run=run,
    )
