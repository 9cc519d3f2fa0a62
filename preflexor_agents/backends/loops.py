"""Notices a model that only repeats itself, as small ones do at words they do not know."""

from collections.abc import Sequence

SPAN_TOK = 96
"""A reply has looped when its last so many tokens repeat one piece at least four times."""
CHECK_EVERY_TOK = 16


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the end of the text is one piece of at most SPAN_TOK / 4 tokens, over and over."""
    if len(tokens) < SPAN_TOK or len(tokens) % CHECK_EVERY_TOK:
        return False
    tail = tokens[-SPAN_TOK:]
    return any(tail[period:] == tail[:-period] for period in range(1, SPAN_TOK // 4 + 1))
