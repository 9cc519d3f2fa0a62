"""The outcome of comparing a file with the folder it came from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was compared, all of it equal unless counted otherwise."""

    vocabulary: int
    tags: tuple[str, ...]
    windows: int
    chat_prompts: int
    """0 if the tokenizer has no chat template; the continuations are then those of plain text."""
    greedy_prompts: int
    greedy_tok: int
    """Greedy tokens compared."""
    greedy_equal_tok: int
    """Tokens that are the folder's likeliest too, after the same ones before."""
    ties: int
    """Tokens that are not, but as good as."""
    reference: str
    """Precision that the folder's model was computed in."""
