"""`preflexor graph`: look at the knowledge graph, share it, and say which of its entities are one."""

from preflexor_agents.cli.groups import lazy_group

EXAMPLE = """
\b
Example:
  preflexor graph extract --model ollama:qwen3:4b --pack materials
  preflexor graph show nacre
  preflexor graph path nacre toughness
  preflexor graph export graph.html
"""
HOMES = {
    "extract": "graph_grow",
    "grow": "graph_grow",
    "show": "graph_show",
    "path": "graph_show",
    "communities": "graph_show",
    "export": "graph_files",
    "import": "graph_files",
    "suggest": "graph_merge",
    "merge": "graph_merge",
    "unmerge": "graph_merge",
}
"""Command -> the module of this package in which it is, as `NAME_command`; in the order of the help."""


@lazy_group(HOMES, short_help="Look at the knowledge graph and share it.", epilog=EXAMPLE)
def command() -> None:
    """Look at the graph of entities and relations in the knowledge store, and share it.

    Every relation stands on quotes from your documents; what loses its last quote is gone.
    """
