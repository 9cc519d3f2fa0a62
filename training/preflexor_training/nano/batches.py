"""Dialogues to token forests. The dialogues of an episode share most of their prompt, so a shared token is run once.

The token sequences of an episode form a tree: a node attends to its ancestors, and its position is its depth. Each
dialogue's loss is then exactly what a row of its own would give, and nothing is padded.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from preflexor_training.nano.dialogues import Dialogue, Episode
from preflexor_training.nano.tokenizer import END, chat_text


@dataclass(frozen=True, slots=True)
class Tokens:
    """One dialogue as token ids; the reply ends with the end-of-turn token."""

    task: str
    prompt: list[int]
    reply: list[int]


@dataclass(frozen=True, slots=True)
class Branch:
    """The nodes that one dialogue adds to a tree, and the runs of earlier nodes that are their ancestors."""

    start: int
    stop: int
    ancestors: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees laid end to end: N nodes, and the P predictions that are learnt."""

    ids: NDArray[np.int64]  # (N,)
    depth: NDArray[np.int64]  # (N,) position of each node
    branches: tuple[Branch, ...]
    at: NDArray[np.int64]  # (P,) node whose output predicts
    target: NDArray[np.int64]  # (P,) the token that follows on one branch
    weight: NDArray[np.float32]  # (P,)
    dialogue: NDArray[np.int64]  # (P,) which dialogue a reply token belongs to; -1 in a prompt
    tasks: tuple[str, ...]  # of each dialogue


def encode(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Tokenise prompt and reply together, so that they split as they do in one text."""
    start = chat_text(dialogue.messages, given=dialogue.given)
    prompt: list[int] = tokenizer.encode(start, add_special_tokens=False)
    whole: list[int] = tokenizer.encode(start + dialogue.completion + END, add_special_tokens=False)
    if whole[: len(prompt)] != prompt:
        reply: list[int] = tokenizer.encode(dialogue.completion + END, add_special_tokens=False)
        return Tokens(dialogue.task, prompt, reply)
    return Tokens(dialogue.task, prompt, whole[len(prompt) :])


def plant(
    dialogues: Sequence[Tokens], *, prompt_weight: float = 0.0, weights: dict[str, float] | None = None
) -> Forest:
    """One tree of the dialogues; `weights` scales a task's reply tokens, prompt tokens count `prompt_weight`.

    Sorted sequences share most with their neighbours, so comparing each with the one before finds the tree.
    """
    ids: list[int] = []
    depth: list[int] = []
    branches: list[Branch] = []
    before: list[int] = []
    path: list[int] = []
    learnt: dict[int, tuple[int, int, float, int]] = {}
    for number in sorted(range(len(dialogues)), key=lambda n: dialogues[n].prompt + dialogues[n].reply):
        tokens = dialogues[number]
        sequence = tokens.prompt + tokens.reply
        shared = _common(before, sequence)
        start, stop = len(ids), len(ids) + len(sequence) - shared
        branches.append(Branch(start, stop, _runs(path[:shared])))
        path = path[:shared] + list(range(start, stop))
        ids += sequence[shared:]
        depth += range(shared, len(sequence))
        scale = (weights or {}).get(tokens.task, 1.0)
        for k in range(1 if prompt_weight else len(tokens.prompt), len(sequence)):
            _, _, earlier, owner = learnt.get(path[k], (0, 0, 0.0, -1))
            if k >= len(tokens.prompt):
                learnt[path[k]] = (path[k - 1], sequence[k], earlier + scale, number)
            else:
                learnt[path[k]] = (path[k - 1], sequence[k], max(earlier, prompt_weight), owner)
        before = sequence
    at, target, weight, owners = zip(*learnt.values(), strict=True)
    return Forest(
        np.asarray(ids),
        np.asarray(depth),
        tuple(branches),
        np.asarray(at),
        np.asarray(target),
        np.asarray(weight, dtype=np.float32),
        np.asarray(owners),
        tuple(d.task for d in dialogues),
    )


def _runs(path: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The path as runs of consecutive nodes."""
    runs: list[tuple[int, int]] = []
    for node in path:
        if runs and runs[-1][1] == node:
            runs[-1] = (runs[-1][0], node + 1)
        else:
            runs.append((node, node + 1))
    return tuple(runs)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b) - 1)
    for k in range(n):
        if a[k] != b[k]:
            return k
    return n


def stretch(tree: Forest, rng: random.Random, *, context: int) -> Forest:
    """Leave a gap in the positions, as if text had been cut out, so that far distances are trained on short trees."""
    longest = int(tree.depth.max()) + 1
    at, room = rng.randrange(1, longest), context - longest
    if room <= 0:
        return tree
    return dataclasses.replace(tree, depth=tree.depth + np.where(tree.depth >= at, rng.randrange(room), 0))


def join(trees: Sequence[Forest]) -> Forest:
    """The trees as one forest; no node of one is an ancestor in another."""
    nodes = np.cumsum([0] + [len(t.ids) for t in trees])
    dialogues = np.cumsum([0] + [len(t.tasks) for t in trees])
    return Forest(
        np.concatenate([t.ids for t in trees]),
        np.concatenate([t.depth for t in trees]),
        tuple(_moved(b, int(n)) for t, n in zip(trees, nodes, strict=False) for b in t.branches),
        np.concatenate([t.at + n for t, n in zip(trees, nodes, strict=False)]),
        np.concatenate([t.target for t in trees]),
        np.concatenate([t.weight for t in trees]),
        np.concatenate([np.where(t.dialogue < 0, -1, t.dialogue + n) for t, n in zip(trees, dialogues, strict=False)]),
        tuple(task for t in trees for task in t.tasks),
    )


def _moved(branch: Branch, by: int) -> Branch:
    return Branch(branch.start + by, branch.stop + by, tuple((a + by, b + by) for a, b in branch.ancestors))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How episodes become forests."""

    batch_tok: int
    """Nodes of a forest, about."""
    context: int
    """Longest dialogue; longer ones are left out."""
    prompt_share: float
    """Share of the trees whose prompt tokens are learnt as well."""
    prompt_weight: float
    """What such a prompt token counts against a reply token."""
    stretched_share: float
    """Share of the trees with a gap in their positions."""
    weights: dict[str, float]
    """What a reply token of a task counts; 1 where nothing is said."""


def forests(
    episodes: Callable[[random.Random], Episode], tokenizer: PreTrainedTokenizerBase, rng: random.Random, *, mix: Mix
) -> Iterator[Forest]:
    """Endless forests of fresh episodes."""
    while True:
        trees: list[Forest] = []
        while sum(len(t.ids) for t in trees) < mix.batch_tok:
            tokens = [encode(d, tokenizer) for d in episodes(rng).dialogues]
            tokens = [t for t in tokens if len(t.prompt) + len(t.reply) <= mix.context]
            if not tokens:
                continue
            weight = mix.prompt_weight if rng.random() < mix.prompt_share else 0.0
            tree = plant(tokens, prompt_weight=weight, weights=mix.weights)
            trees.append(stretch(tree, rng, context=mix.context) if rng.random() < mix.stretched_share else tree)
        yield join(trees)
