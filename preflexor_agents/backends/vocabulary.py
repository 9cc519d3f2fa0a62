"""What a prompt needs of a model's vocabulary, whichever library has it."""

from collections.abc import Iterable
from typing import Protocol

from preflexor_agents.backends.template import Span


class Words(Protocol):
    """A vocabulary in which only the template's own text can become control tokens."""

    tags: dict[int, str]
    """Id -> tag, for the reasoning tags that are one token."""
    special: dict[str, int]
    """Text -> id of the tokens that mean something in a prompt."""

    def encode(self, spans: Iterable[Span]) -> list[int]:
        """Token ids of a prompt; an untrusted span that spells a special token becomes plain text."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; none for a control token."""

    def ends(self, token: int) -> bool:
        """Whether the token ends a reply."""

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token; empty if there is no such token (-1)."""

    @property
    def bos(self) -> int:
        """Id of the token that begins a text, -1 if there is none."""

    @property
    def eos(self) -> int:
        """Id of the token that ends a text, -1 if there is none."""
