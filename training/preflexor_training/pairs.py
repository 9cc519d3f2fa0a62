"""What training needs of a preference row: the turns before the reply, and two replies with their sections told apart.

Sections are kept apart as values, so that a tag that is spelt inside a text never becomes a control token.
"""

from dataclasses import dataclass

from preflexor_agents.prompts import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply, without its tags."""

    thinking: str | None = None
    """What stands between the thinking tags; None if there is no such section."""
    reflection: str | None = None
    """What stands between the reflection tags, likewise; it follows the thinking."""
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One preference."""

    id: str
    """Unique in its file; the seed of everything that is drawn for this row."""
    prompt: tuple[Message, ...]
    """The turns before the reply; the last is the user's."""
    chosen: Reply
    rejected: Reply
    round: int = 0
    """Refresh that the row was made in, from 0."""
