"""Guesses what a reply says next by looking for its last words in the text so far (prompt-lookup drafting).

A revision or a merge copies much of what it was given; a guess that is right costs a fraction of a decoded token, and
one that is wrong is thrown away, so the reply stays the same.
"""

from collections.abc import Callable, Sequence

NGRAM_TOK = 3
"""Last tokens that must have occurred before."""
LENGTHS = (0, 1, 3, 7)
"""How many tokens may be guessed at once: with the one before them they fill a width that was timed."""
DRAFT_TOK = LENGTHS[-1]
_PRIOR_RIGHT, _PRIOR_TRIED = 1, 2
"""A reply begins as if so many of so many guessed tokens had been right."""


class Lookup:
    """The guesses for one reply."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        """N-gram -> where it last ended; the n-gram at the very end is left out."""
        self._seen = NGRAM_TOK
        self._foreseen: int | None = None
        """The first token of a guess that was not tried; whether it comes is learnt for nothing."""
        self.tried = 0
        """Guessed tokens up to the first wrong one of each guess, which says nothing about those behind it."""
        self.right = 0

    def draft(self, tokens: Sequence[int], last: int) -> list[int]:
        """Tokens that may follow, at most DRAFT_TOK; `tokens` and `last` are the text so far, only ever longer."""
        if self._foreseen is not None:
            self.learn(1, int(self._foreseen == last))
        for end in range(self._seen, len(tokens) + 1):
            self._places[tuple(tokens[end - NGRAM_TOK : end])] = end
        self._seen = max(self._seen, len(tokens) + 1)
        place = self._places.get((*tokens[1 - NGRAM_TOK :], last))
        if place is None:
            return []
        guess = [*tokens[place : place + DRAFT_TOK], last][:DRAFT_TOK]
        self._foreseen = guess[0]
        return guess

    def learn(self, guessed: int, right: int) -> None:
        """Note how a guess went."""
        self._foreseen = None
        self.tried += min(guessed, right + 1)
        self.right += right

    def length(self, cost: Callable[[int], float]) -> int:
        """How many tokens to guess so that the most are written in a given time; 0 where guessing does not pay.

        Args:
            cost: time of a step of so many tokens as a multiple of a step of one.
        """
        hit = (self.right + _PRIOR_RIGHT) / (self.tried + _PRIOR_TRIED)

        def speed(length: int) -> float:
            return (1 - hit ** (length + 1)) / (1 - hit) / cost(length + 1)

        return max(LENGTHS, key=speed)
