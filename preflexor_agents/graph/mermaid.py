"""The graph as a Mermaid flowchart, for Markdown pages: of a large graph only the best connected part can be read."""

import re

from preflexor_agents.graph.parts import best_connected
from preflexor_agents.graph.values import Graph

MOST_NODES = 40
_UNSAFE = re.compile(r"[^\w ,.()/+-]")


def write(graph: Graph) -> str:
    """A flowchart of at most MOST_NODES entities; a comment says so if there are more."""
    part = best_connected(graph, most=MOST_NODES)
    lines = ["flowchart LR"]
    if len(part.entities) < len(graph.entities):
        lines.append(f"  %% the {len(part.entities)} best connected of {len(graph.entities)} entities")
    lines += [f'  n{entity.id}["{_label(entity.name)}"]' for entity in part.entities]
    lines += [f'  n{r.source} -->|"{_label(r.kind)}"| n{r.target}' for r in part.relations]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """One line in which no character means anything to Mermaid or to HTML."""
    return _UNSAFE.sub(lambda match: f"#{ord(match[0])};", " ".join(text.split()))
