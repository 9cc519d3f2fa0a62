"""The graph in Graphviz's DOT language."""

from preflexor_agents.graph.values import Graph


def write(graph: Graph) -> str:
    """A digraph with names and kinds of relations as labels."""
    lines = ["digraph preflexor {", '  graph [charset="UTF-8"]', "  node [shape=box, style=rounded]"]
    for entity in graph.entities:
        type = f", class={_quoted(entity.type)}" if entity.type else ""
        lines.append(f"  n{entity.id} [label={_quoted(entity.name)}{type}]")
    lines += [f"  n{r.source} -> n{r.target} [label={_quoted(r.kind)}, weight={r.weight}]" for r in graph.relations]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A string that stands for itself: what Graphviz would read as an escape or a line's end is taken out of play."""
    line = " ".join(text.replace("\0", " ").split())
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'
