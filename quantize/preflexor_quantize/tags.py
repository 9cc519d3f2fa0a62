"""Which added tokens have to stay visible: the tags of reasoning, whatever a tokenizer says of them."""

import re

_REASONING = re.compile(
    r"<\|?/?(?:think|thinking|reflect|reflection|graph|brainstorm|patterns|synthesis|scratchpad|answer)\|?>"
)


def stays_visible(content: str, *, special: bool) -> bool:
    """Whether a reader of the reply has to see the token: control tokens are rendered as nothing."""
    return not special or _REASONING.fullmatch(content) is not None
