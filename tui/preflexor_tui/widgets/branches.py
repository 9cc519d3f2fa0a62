"""The tree of a session's runs: what follows what, and what was branched off where."""

from typing import TYPE_CHECKING

from rich.text import Text
from textual.message import Message
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from preflexor_agents.cli.show import inert
from preflexor_tui.conversation import Conversation

if TYPE_CHECKING:
    from preflexor_agents.store.sessions import SessionRun

QUESTION_CHARS = 40


class Branches(Tree[int]):
    """All branches of a session; choosing a run goes to it."""

    class Chosen(Message):
        """The user wants to see the branch that ends with a run."""

        def __init__(self, run_id: int) -> None:
            super().__init__()
            self.run_id = run_id

    def __init__(self) -> None:
        super().__init__("new session", id="branches")
        self.root.expand()
        self.guide_depth = 2

    def show(self, conversation: Conversation) -> None:
        """Show the runs of a conversation; those on the screen are marked."""
        shown = {turn.entry.run_id for turn in conversation.turns}
        self.root.set_label(Text(_short(conversation.name or "new session"), style="bold"))
        self.root.remove_children()
        self._add(self.root, conversation.runs, None, shown)
        self.root.expand_all()

    def on_tree_node_selected(self, event: Tree.NodeSelected[int]) -> None:
        """Go to a run."""
        event.stop()
        if event.node.data is not None:
            self.post_message(self.Chosen(event.node.data))

    def _add(
        self, node: TreeNode[int], runs: "list[SessionRun]", parent_id: int | None, shown: set[int | None]
    ) -> None:
        """A single line of runs stays flat; where there are branches, each is a node with its runs in it."""
        children = [run for run in runs if run.parent_id == parent_id]
        for run in children:
            label = _label(run, is_shown=run.id in shown)
            if len(children) == 1 and parent_id is not None:
                node.add_leaf(label, run.id)
                self._add(node, runs, run.id, shown)
            else:
                self._add(node.add(label, run.id), runs, run.id, shown)


def _label(run: "SessionRun", *, is_shown: bool) -> Text:
    fork = "" if run.forked_round is None else f" ↰r{run.forked_round}" if run.forked_round else " ↰"
    rounds = f" {run.rounds}r" if run.rounds else ""
    end = "" if run.stop_reason else " (cut off)"
    mark, style = ("● ", "bold") if is_shown else ("○ ", "")
    return Text.assemble((mark + _short(run.question), style), (f"{fork}{rounds}{end}", "dim"))


def _short(text: str) -> str:
    line = inert(" ".join(text.split()))
    return line if len(line) <= QUESTION_CHARS else line[: QUESTION_CHARS - 1] + "…"
