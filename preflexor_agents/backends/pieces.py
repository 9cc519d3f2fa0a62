"""Prompts are evaluated in pieces, cut where it changes nothing of what is computed."""

from collections.abc import Sequence

PIECE_TOK = 64
"""Prompt tokens of one call while others are being written, so that these do not wait for long."""
LONG_PIECE_TOK = 256
"""The same while nobody else is. At 170M parameters on an AMD EPYC, pieces of 64 take 2 to 6 % longer, since weights
are read more often; pieces of 512 take 4 to 9 % longer, since each looks at all cells up to its end."""
LEAST_TOK = 8
"""Rows that are computed together where there are more of a prompt: fewer have other last bits, in Q4_K_M at least."""


def piece_end(done: int, length: int, *, most: int) -> int:
    """Where the next piece of a prompt of `length` tokens ends, when `done` of them are there.

    At most `most` tokens, and never fewer than LEAST_TOK left over.
    """
    end = min(length, done - done % most + most)
    if length - end not in range(1, LEAST_TOK):
        return end
    return length if length - done <= most else end - 2 * LEAST_TOK


def shared_tok(a: Sequence[int], b: Sequence[int], *, step: int = PIECE_TOK) -> int:
    """Tokens that both begin with, in whole steps, at least one token of `b` left out."""
    same, most = 0, max(0, min(len(a), len(b) - 1)) // step
    while same < most:
        middle = (same + most + 1) // 2
        if a[same * step : middle * step] == b[same * step : middle * step]:
            same = middle
        else:
            most = middle - 1
    return same * step
