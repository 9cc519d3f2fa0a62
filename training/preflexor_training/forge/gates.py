"""Which questions and answers a row may have: rules that need no model, the same on every machine.

The rules know English; `ForgeSettings.check_questions` asks the teacher too, in any language. A rule refuses for one of
the kinds in KINDS, with the words that gave rise to it.
"""

import re
from collections.abc import Sequence

from preflexor_agents.events import Passage
from preflexor_agents.prompts import NOT_IN_PASSAGES
from preflexor_agents.reflection.verdicts import same
from preflexor_agents.store import quantities
from preflexor_agents.store.words import stem, stems, words
from preflexor_training.forge.steps import Dropped

KINDS = (
    *("empty_question", "not_a_question", "too_short", "too_long", "not_standalone", "not_answerable", "gives_away"),
    *("duplicate", "leaked", "empty_answer", "cut_off", "refers_to_context"),
)
"""Why a row is dropped by a gate."""
LEAST_WORDS, MOST_WORDS = 4, 250
"""Of a question. Those of the successor's benchmark have up to 216."""
_LONGEST_WORD = 20
LEAST_HELD = 0.5
"""Share of a question's telling words that its passages must hold."""
LEAST_NEW = 0.2
"""Share of an answer's telling words that must not stand in the question already."""
MOST_TELLING = 40
"""A question with more telling words sets a scene, whose words answers use again."""
_ASKS = (
    r"(?:explain|describe|discuss|compare|contrast|derive|calculate|estimate|determine|propose|design|predict|justify|"
    r"outline|analy[sz]e|evaluate|assess|name|list|identify|summari[sz]e|elaborate|illustrate|show|suggest|formulate|"
    r"develop|specify|state|construct|give|provide|define|argue|formali[sz]e|infer|rank|sketch|apply|use|consider\s+(?:how|why|whether)|recommend|quantify|choose|reconcile|frame|build|reconstruct|rewrite)"
)
_SENTENCE_ASKS = re.compile(
    rf"(?:\A\W*|[.:;!?]\W{{0,5}}\s)(?:(?:given|using|based|considering|to|from|with)\b[^.:;!?]{{0,200}},\s+)?{_ASKS}\b",
    re.IGNORECASE,
)
"""Where a sentence begins that asks for something without a question mark."""
_ENDS_AS_QUESTION = re.compile(r"[?\uff1f\u061f](?=[\s\"'\u201d\u2019)*_]|\Z)|[\uff1f]")
_POINTS = r"(?:the|this|these|those|that|given|provided|above|our|your|their|its|same|both|such)"
_WHICH = (
    r"(?:(?:given|provided|above|following|preceding|present|current|first|second|third|last|same|cited|quoted|original|"
    r"accompanying|supplied|attached|aforementioned)\s+)?"
)
_TEXT = r"(?:passage|excerpt|snippet|text|article|manuscript|abstract|study|studies|publication|summary)"
_MAYBE_TEXT = r"(?:paper|figure|fig|table|section|paragraph|chapter|document|equation|source|review|report)"
_FROM = r"(?:in|from|by|per|of|to|on|within|throughout|according\s+to)"
_REFERS = re.compile(
    "|".join(
        (
            rf"\b{_POINTS}\s+{_WHICH}{_TEXT}s?\b(?!\s+(?:of|for)\b)",
            r"\b(?:the|given|provided|above|following)\s+(?:(?:given|provided|above|following)\s+)?contexts?\b(?!\s+(?:of|for)\b)",
            rf"\b{_FROM}\s+{_POINTS}\s+{_WHICH}{_MAYBE_TEXT}s?\b(?!\s+(?:of|for|modulus)\b)",
            rf"\b(?:this|our|the\s+present|the\s+current)\s+{_WHICH}(?:{_MAYBE_TEXT}|work|research|investigation|analysis)\b",
            r"\bpassages?\s+\[?\d",
            r"\b(?:the|these|those|its|their)\s+authors?\b",
            r"\bauthors?\s+(?:of|propose|suggest|state|describe|report|argue|claim|find|found|show)",
            r"\b(?:fig(?:ure)?|tab(?:le)?|eqn?|equation|ref(?:erence)?|section|chapter|box|scheme)s?\.?\s*\(?(?:\d|[IVX]+\b)",
            r"\bet\s+al\b",
            r"\[[1-9]\d*(?:\s*[,\u2013-]\s*\d+)*\]",
            r"\([A-Z][\w'-]+(?:\s+(?:and|&)\s+[A-Z][\w'-]+)?,?\s+(?:19|20)\d\d\w?\)",
            r"\b(?:mentioned|described|discussed|shown|stated|reported|presented|outlined|listed|noted|given|provided|"
            r"cited|highlighted)\s+(?:above|below|here|earlier|previously)\b",
            r"\b(?:given|provided|above|following)\s+(?:information|data|details|findings|results|description)\b",
            r"\b(?:information|data|details|findings|results)\s+(?:given|provided|above|presented)\b",
        )
    ),
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\W*(?:(?:how|why|what|when|where|in\s+what\s+way|to\s+what\s+extent|which)\s+)?"
    r"(?!does\s+it\s+take\b|is\s+it\s+that\b|(?:is|was)\s+it\s+(?:\w+\s+)?(?!\w+ed\b)\w+\s+(?:to|for|that)\b)"
    r"(?:do|does|did|is|are|was|were|can|could|will|would|might|may|has|have)\s+"
    r"(?:it|they|this|these|those|he|she|its|their)\b",
    re.IGNORECASE,
)
_DECLINES = re.compile(
    r"\b(?:passages?|texts?|context|information(?:\s+(?:given|provided))?|question)\s+(?:do|does|is|are)\s+not\s+"
    r"(?:\w+\s+)?(?:say|state|mention|contain|provide|specify|hold|give|include|explain|address|answer|enough|sufficient)"
    r"|\b(?:cannot|can't|can\s+not|not\s+possible\s+to|unable\s+to)\s+(?:be\s+)?(?:answer|determin|infer|deduc)\w*"
    r"|\bno\s+information\s+(?:is\s+)?(?:given|provided|available)\b",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"\b(?:the|these|given|provided|above)\s+(?:given\s+|provided\s+|above\s+)?"
    r"(?:passage|excerpt|snippet|text|context)s?\b(?!\s+(?:of|for)\b)|\bthis\s+(?:passage|excerpt|text)\b"
    r"|\bpassages?\s+\[?\d|\bas\s+an\s+ai\b",
    re.IGNORECASE,
)
ASKING = frozenset(
    map(
        stem,
        re.findall(
            r"\S+",
            """affect allow analyse analyze answer aspect cause change compare condition consequence consider context
            contribute describe detail determine differ difference discuss effect enable enhance ensure evaluate
            example explain factor feature follow function give help impact implication importance important improve
            include influence interplay involve key know known lead main make mean mechanism might occur overall
            particular play possible potential primary principle process propose provide question reason relate
            relation relationship result role several show significance significant specific specifically state
            suggest term type underlying understand use various way work""",
        ),
    )
)
"""Stems of words that questions are asked with, whatever they are about."""


def standalone(question: str) -> None:
    """The question can be asked by itself.

    Raises:
        Dropped: it is empty, no question, very short or long, or points to something that its reader does not see.
    """
    if not question.strip():
        raise Dropped("empty_question", "there are no words")
    if len(question) > MOST_WORDS * _LONGEST_WORD:
        raise Dropped("too_long", f"{len(question)} characters, more than {MOST_WORDS * _LONGEST_WORD}")
    if not _ENDS_AS_QUESTION.search(question) and not _SENTENCE_ASKS.search(question):
        raise Dropped("not_a_question", repr(question[:80]))
    said = question.split()
    if len(said) < LEAST_WORDS and len(question) < LEAST_WORDS * 4:
        raise Dropped("too_short", repr(question))
    if len(said) > MOST_WORDS:
        raise Dropped("too_long", f"{len(said)} words, more than {MOST_WORDS}")
    found = _REFERS.search(question) or _POINTS_BACK.match(question)
    if found:
        raise Dropped("not_standalone", f"{found.group().strip()!r} in {question[:80]!r}")


def answerable(question: str, passages: Sequence[Passage]) -> None:
    """The passages speak of what the question is about.

    Raises:
        Dropped: they do not hold enough of its words (`not_answerable`).
    """
    telling = stems(question) - ASKING
    held = frozenset[str]().union(*(stems(p.title) | stems(p.text) for p in passages))
    lacking = sorted(telling - held)
    if telling and len(telling) - len(lacking) < LEAST_HELD * len(telling):
        raise Dropped("not_answerable", f"no passage speaks of {', '.join(lacking)[:80]}")


def answered(answer: str, *, names_passages: bool, may_decline: bool = False) -> None:
    """The text is an answer, and one for a reader who sees no passages, unless it may name them.

    Args:
        answer: of the chosen side.
        names_passages: whether its reader sees the passages.
        may_decline: whether to say that there is no answer is one, as where it is known that there is none.

    Raises:
        Dropped: it is empty, says that there is no answer (`not_answerable`), or speaks of its context.
    """
    if not words(answer):
        raise Dropped("empty_answer", "there are no words")
    opening = " ".join(answer.split()[:60])
    if not may_decline and (same(answer, NOT_IN_PASSAGES) or _DECLINES.search(opening)):
        raise Dropped("not_answerable", f"the answer declines: {opening[:80]!r}")
    found = _CONTEXT.search(answer)
    if found and not names_passages:
        raise Dropped("refers_to_context", f"{found.group()!r} in the answer")


def not_leaked(question: str, answer: str) -> None:
    """The answer says something that the question does not.

    Raises:
        Dropped: nearly all of its words, and all of its numbers, stand in the question (`leaked`).
    """
    plain, asked = quantities.plain(answer), quantities.plain(question)
    known = quantities.quantities(asked)
    new_numbers = [q for q in quantities.quantities(plain) if not any(quantities.is_same(q, k) for k in known)]
    telling = stems(answer) - ASKING
    new = telling - stems(question)
    if len(stems(question) - ASKING) > MOST_TELLING:
        return
    if telling and not new_numbers and len(new) < LEAST_NEW * len(telling):
        raise Dropped("leaked", f"the question holds all of its answer but {', '.join(sorted(new)) or 'nothing'}")
