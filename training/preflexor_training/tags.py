"""The reasoning tags of a tokenizer: which are single tokens, which must become so, and how they stand in a reply.

Tags are added as non-special tokens, so that they stay visible when text is decoded; how their embedding rows begin is
the backends' part.
"""

from typing import TYPE_CHECKING, NamedTuple

from preflexor_agents.backends.hf_tokens import template_source
from preflexor_agents.backends.model_text import COMMON_MARKS, OWN_MARKS, Marks
from preflexor_agents.errors import ConfigError
from preflexor_training.recipe_parts import Tags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REFLECT = Marks("<|reflect|>", "<|/reflect|>")
"""How a reflection stands in a reply, whatever the thinking's tags are."""
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '### Assistant:\\n' + message['content'] + eos_token + '\\n\\n' }}{% else %}"
    "{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
"""What a base without a chat template is taught: headed paragraphs, ended by the tokenizer's own end token."""


class TagPlan(NamedTuple):
    """The tags of a run in a tokenizer."""

    ids: dict[str, int]
    """Tag -> its token, for those that are one already."""
    missing: tuple[str, ...]
    """Tags that have to be added; none in text mode."""


def marks(tags: Tags) -> Marks:
    """How the thinking stands in a reply, white space included: as the agents put it there themselves."""
    return OWN_MARKS if tags.thinking == "<|thinking|>" else COMMON_MARKS


def wanted(tags: Tags) -> tuple[str, ...]:
    """The four tags: thinking and reflection, opening and closing."""
    thinking = marks(tags)
    return thinking.open.strip(), thinking.close.strip(), *REFLECT


def plan(tokenizer: "PreTrainedTokenizerFast", tags: Tags) -> TagPlan:
    """Look which tags are there.

    Raises:
        ConfigError: the agents would use other tags with this tokenizer than those that are to be trained.
    """
    known = tokenizer.get_added_vocab()
    if tags.thinking == "<think>" and "<|thinking|>" in known:
        raise ConfigError(
            'tags.thinking is "<think>", but the tokenizer has <|thinking|>, which the agents then use; set it to'
            ' "<|thinking|>"'
        )
    ids = {tag: known[tag] for tag in wanted(tags) if tag in known}
    missing = tuple(tag for tag in wanted(tags) if tag not in known)
    return TagPlan(ids, missing if tags.mode == "tokens" else ())


def add(tokenizer: "PreTrainedTokenizerFast", tags: Tags) -> tuple[int, ...]:
    """Make every tag one token, and give a tokenizer without a chat template the plain one.

    Changes the tokenizer. What is saved with the model then renders at inference as it did in training.

    Returns:
        The ids of tags that were not there, whose embedding rows are new; a piece of the vocabulary that only was no
        token of its own keeps its row.

    Raises:
        ConfigError: as `plan`; or the tokenizer names no token that ends a text.
    """
    from tokenizers import AddedToken

    missing = plan(tokenizer, tags).missing
    before = tokenizer.get_vocab()
    if not template_source(tokenizer):
        if tokenizer.eos_token is None:
            raise ConfigError(
                "the tokenizer has neither a chat template nor an end token; name one as eos_token in its"
                " tokenizer_config.json"
            )
        tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in missing])
    known = tokenizer.get_added_vocab()
    return tuple(known[tag] for tag in missing if tag not in before)
