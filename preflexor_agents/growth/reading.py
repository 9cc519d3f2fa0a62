"""Facts out of a text by a model: what it is asked, and what of its reply stands in the text. Pure.

The reply follows a JSON schema, so its form is right with every backend that can hold a model to one; what it says is
checked here. A fact is kept only with words of the text that name both its ends.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from preflexor_agents.events import Passage
from preflexor_agents.graph.values import Fact, Node, Quote
from preflexor_agents.packs import Pack
from preflexor_agents.prompts import Message, one_line
from preflexor_agents.store.words import stem, stems, words

MOST_FACTS = 12
"""Facts of one text."""
LONGEST_QUOTE = 600
"""Characters; a longer one shows nothing."""
_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
_FIELDS = ("subject", "subject_type", "relation", "object", "object_type", "quote")


class Read(NamedTuple):
    """What a reply comes to."""

    facts: tuple[Fact, ...]
    refused: tuple[str, ...]
    """One line for each fact that its text does not bear out."""


def schema(pack: Pack) -> dict[str, Any]:
    """The JSON schema of a reply: flat facts, types and relations of the pack only."""
    text = {"type": "string", "minLength": 1, "maxLength": 120}
    fact = {
        "type": "object",
        "properties": {
            "subject": text,
            "subject_type": {"enum": list(pack.entity_types)},
            "relation": {"enum": list(pack.relations)},
            "object": text,
            "object_type": {"enum": list(pack.entity_types)},
            "quote": {"type": "string", "minLength": 1, "maxLength": LONGEST_QUOTE},
        },
        "required": list(_FIELDS),
        "additionalProperties": False,
    }
    facts = {"type": "array", "items": fact, "maxItems": MOST_FACTS}
    return {"type": "object", "properties": {"facts": facts}, "required": ["facts"], "additionalProperties": False}


def messages(pack: Pack, passage: Passage) -> tuple[Message, ...]:
    """The prompt; what is the same for all texts comes first, so that it is evaluated once."""
    system = (
        f"{pack.roles.extractor}\n\n"
        f"Task: list the facts of the text about {pack.about} as JSON.\n"
        "subject and object: names as the text writes them, as short as possible, never a pronoun.\n"
        f"subject_type and object_type: one of {', '.join(pack.entity_types)}.\n"
        f"relation: one of {', '.join(pack.relations)}.\n"
        "quote: the words of the text that say so, copied exactly.\n"
        f'At most {MOST_FACTS} facts. If the text holds none: {{"facts": []}}'
    )
    return (Message("system", system), Message("user", f"Title: {one_line(passage.title)}\n\nText:\n{passage.text}"))


def prompt_sha256(pack: Pack) -> str:
    """What the prompt and the schema are told by, whatever the text."""
    empty = Passage(chunk_id=0, source="", title="", start=0, end=0, text="")
    said = json.dumps([[m.content for m in messages(pack, empty)], schema(pack)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def read(reply: str, passage: Passage) -> Read:
    """The facts of a reply that stand in the passage; also those of one that was cut off."""
    facts: dict[Fact, None] = {}
    refused = [] if _is_json(reply) else ["the reply is cut off, or not the JSON that was asked for"]
    for said in _said(reply):
        names = " | ".join(one_line(said[key])[:60] for key in ("subject", "relation", "object"))
        span = locate(said["quote"], passage.text)
        if span is None:
            refused.append(f"{names}: its quote is not in the text")
        elif not bears_out(said["subject"], said["object"], passage.text[span[0] : span[1]], passage.title):
            refused.append(f"{names}: its quote does not name both ends")
        else:
            quote = Quote(chunk_id=passage.chunk_id, start=span[0], end=span[1])
            subject = Node(name=said["subject"], type=said["subject_type"])
            target = Node(name=said["object"], type=said["object_type"])
            facts[Fact(subject=subject, kind=said["relation"], object=target, quotes=(quote,))] = None
    return Read(tuple(facts), tuple(refused))


def locate(quote: str, text: str) -> tuple[int, int] | None:
    """Where the quote stands in the text, white space aside; None if it does not."""
    parts = quote.split()
    if not parts:
        return None
    found = re.search(r"\s+".join(map(re.escape, parts)), text) or re.search(
        r"\s+".join(map(re.escape, parts)), text, re.IGNORECASE
    )
    return (found.start(), found.end()) if found else None


def bears_out(subject: str, target: str, quote: str, title: str) -> bool:
    """Whether the quote names both ends; the one may be what the whole text is about, and so stand in its title."""
    said, about = _stems(quote), _stems(quote) | _stems(title)
    ends = (_stems(subject), _stems(target))
    named = all(end and end <= about for end in ends)
    return named and any(end <= said for end in ends) and ends[0] != ends[1]


def facts_of(quotes: Sequence[tuple[Passage, str]], facts: Sequence[Fact]) -> Iterator[Fact]:
    """The facts with the quotes that bear them out, those without any left out.

    Args:
        quotes: passages, each with words of it.
        facts: read from another text, such as an answer that stands on the quotes.
    """
    for fact in facts:
        found = []
        for passage, words_ in quotes:
            at = passage.text.find(words_)
            if at >= 0 and bears_out(fact.subject.name, fact.object.name, words_, passage.title):
                found.append(Quote(chunk_id=passage.chunk_id, start=at, end=at + len(words_)))
        if found:
            yield Fact(subject=fact.subject, kind=fact.kind, object=fact.object, quotes=tuple(found))


def _is_json(reply: str) -> bool:
    try:
        return isinstance(json.loads(reply), dict)
    except (ValueError, RecursionError):
        return False


def _said(reply: str) -> Iterator[dict[str, str]]:
    """The facts that a reply states, whole ones only."""
    for match in _FLAT_OBJECT.finditer(reply):
        try:
            said = json.loads(match.group())
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and all(isinstance(said.get(key), str) and said[key].strip() for key in _FIELDS):
            yield {key: said[key].strip() for key in _FIELDS}


def _stems(text: str) -> frozenset[str]:
    """Stems of the content words; of all words where there are none, as in `10`."""
    return stems(text) or frozenset(map(stem, words(text)))
