"""Guesses what a reply says next by looking for its last words in the text so far (prompt-lookup drafting).

A revision or a merge copies much of what it was given; a guess that is right costs a fraction of a decoded token, and
one that is wrong is thrown away, so the reply stays the same.
"""

from collections.abc import Sequence

NGRAM_TOK = 3
"""Last tokens that must have occurred before."""
DRAFT_TOK = 7
"""Most tokens guessed at once."""
_TRIAL_TOK = 3 * DRAFT_TOK
"""Guessed tokens after which a low share of hits ends the guessing for this reply."""


class Lookup:
    """The guesses for one reply."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        """N-gram -> where it last ended; the n-gram at the very end is left out."""
        self._seen = NGRAM_TOK
        self.guessed = 0
        self.right = 0

    def draft(self, tokens: Sequence[int], last: int) -> list[int]:
        """Tokens that may follow, at most DRAFT_TOK; `tokens` and `last` are the text so far, only ever longer."""
        for end in range(self._seen, len(tokens) + 1):
            self._places[tuple(tokens[end - NGRAM_TOK : end])] = end
        self._seen = max(self._seen, len(tokens) + 1)
        place = self._places.get((*tokens[1 - NGRAM_TOK :], last))
        return [*tokens[place : place + DRAFT_TOK], last][:DRAFT_TOK] if place is not None else []

    def learn(self, guessed: int, right: int) -> None:
        """Note how a guess went."""
        self.guessed += guessed
        self.right += right

    def pays(self, cost: float) -> bool:
        """Whether to go on guessing, if a step with a full guess takes `cost` times a step without one."""
        if self.guessed < _TRIAL_TOK:
            return True
        return 1 + DRAFT_TOK * self.right / self.guessed > cost
