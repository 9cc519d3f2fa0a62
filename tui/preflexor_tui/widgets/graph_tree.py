"""The knowledge graph around a run as a tree: entity, what is said of it, the quote that says so."""

from textwrap import wrap

from rich.text import Text
from textual.widgets import Tree

from preflexor_agents.cli.show import inert
from preflexor_agents.graph.values import Evidence
from preflexor_tui.state.facts import Facts
from preflexor_tui.widgets.citations import Source

QUOTE_CHARS = 240
LINE_CELLS = 30
"""A tree does not wrap its lines, so that quotes are cut into lines that fit the narrowest pane."""
NO_FACTS = ("No facts in this store yet.", "Make some from its documents:", "preflexor graph extract")
NONE_NAMED = ("The graph knows nothing that", "this question or answer names.")


class GraphTree(Tree[Evidence]):
    """Entities in play; choosing a quote opens its source."""

    def __init__(self) -> None:
        super().__init__("knowledge graph", id="graph")
        self.show_root = False
        self.guide_depth = 2
        self._shown: Facts | None = None

    def show(self, facts: Facts) -> None:
        """Show these facts."""
        if facts == self._shown:
            return
        self._shown = facts
        self.root.remove_children()
        if not facts.entities:
            for line in NONE_NAMED if facts.has_graph else NO_FACTS:
                self.root.add_leaf(Text(line, style="dim"))
        for at, known in enumerate(facts.entities):
            label = Text.assemble((_cut(inert(known.entity.name)), "bold"), (f"  {inert(known.entity.type)}", "dim"))
            node = self.root.add(label, expand=at < 2)
            for statement in known.statements:
                more = f" ({len(statement.evidence)})" if len(statement.evidence) > 1 else ""
                text = inert(statement.text)
                said = node.add(Text.assemble(_cut(text), (more, "dim")))
                for line in wrap(text, LINE_CELLS) if _cut(text) != text else ():
                    said.add_leaf(line)
                for evidence in statement.evidence:
                    for quoted in _quote(evidence):
                        said.add_leaf(quoted, evidence)
        if facts.paths:
            node = self.root.add(Text("how they are connected", style="bold"), expand=True)
            for path in facts.paths:
                for line in wrap(inert(path), LINE_CELLS + 4):
                    node.add_leaf(line)

    def on_tree_node_selected(self, event: Tree.NodeSelected[Evidence]) -> None:
        """Open the source of a quote."""
        event.stop()
        if event.node.data is not None:
            self.post_message(Source.Opened(event.node.data.source))


def _cut(text: str) -> str:
    return text if len(text) <= LINE_CELLS else text[: LINE_CELLS - 1] + "…"


def _quote(evidence: Evidence) -> list[Text]:
    words = inert(" ".join(evidence.quote.split()))
    page = f" p.{evidence.page}" if evidence.page is not None else ""
    shown = words if len(words) <= QUOTE_CHARS else words[:QUOTE_CHARS] + "…"
    lines = [Text(line, style="italic") for line in wrap(f"“{shown}”", LINE_CELLS)]
    return [*lines, *(Text(line, style="dim") for line in wrap(inert(evidence.title) + page, LINE_CELLS))]
