"""Scores an answer without a model, from 0 to 1: by a known answer, by its number and unit, by the kind of question, or
by a rule.

Generous on purpose: a right answer that was taken for a wrong one would teach the model to avoid it. `task` alone is as
strict as the evaluation, whose rules it takes.
"""

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

from preflexor_agents.errors import ConfigError
from preflexor_agents.evaluation.scoring import right
from preflexor_agents.store.quantities import Quantity, plain, quantities
from preflexor_training.forge.given import Question
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped

TOLERANCE = Decimal("0.01")
"""Relative, of a number, with SI prefixes converted: 7.05 km are 7000 m here. `evaluation.scoring`, which `task` takes
its rules from, wants the number and the unit as they are: it measures, and must not flatter."""
Score = Callable[[str, Question], float]
"""What an answer to a question scores."""
_WORD = re.compile(r"(?:(?<![\w.])-)?\d+(?:[.,]\d+)*|[^\W\d]\w*")
_SHORT = frozenset(("yes", "no", "true", "false"))
_FINAL = re.compile(r"\b(?:answer|result|option|choice)\s*(?:is|:)?\s*$", re.IGNORECASE)
_NEAR = 40
"""Characters before a word in which it may be said to be the answer."""
_PREFIXES = {"T": 12, "G": 9, "M": 6, "k": 3, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
_BASES = frozenset(
    ("Pa", "m", "g", "J", "N", "W", "V", "A", "s", "L", "Hz", "eV", "mol", "K", "Da", "cal", "S", "C", "F")
)
_PART = re.compile(r"(?P<name>[^\s^]+)(?:\^(?P<power>\S+))?")


def score_of(settings: ForgeSettings) -> Score | None:
    """What scores the answers of a run; None if nothing does, or if a judge does.

    Raises:
        ConfigError: the rule is missing or no regular expression, or there are no known answers to compare with.
    """
    match settings.verifier:
        case "none" | "judge":
            return None
        case "rule":
            return _by_rule(settings.rule)
        case "exact" | "numeric" | "task" as kind:
            if settings.questions is None:
                raise ConfigError(
                    f"verifier {kind!r} compares with known answers and there are none; "
                    "name a file of questions with answers, or use the verifier 'judge'"
                )
            return by_task if kind == "task" else _known(exact if kind == "exact" else numeric)


def exact(answer: str, gold: str) -> float:
    """1 if the known answer stands in the answer word by word, whatever its case and punctuation.

    A yes or no, a letter or another word of one or two characters must be the first or the last word, or follow words
    like `the answer is`: else it would be found anywhere.
    """
    said, wanted = _words(answer), _words(gold)
    if not wanted:
        raise Dropped("no_gold", f"the known answer {gold[:40]!r} has no words to compare with")
    if len(wanted) == 1 and (len(wanted[0]) <= 2 or wanted[0] in _SHORT):
        return float(wanted[0] in (*said[:1], *said[-1:]) or _is_named(answer, wanted[0]))
    return float(any(said[n : n + len(wanted)] == wanted for n in range(len(said) - len(wanted) + 1)))


def numeric(answer: str, gold: str) -> float:
    """Share of the known answer's numbers that stand in the answer, in the same unit or with another SI prefix.

    A number without a unit is met in any unit.
    """
    wanted, said = quantities(plain(gold)), quantities(plain(answer))
    if not wanted:
        raise Dropped("no_gold", f"the known answer {gold[:40]!r} has no number to compare with")
    return sum(any(_meets(have, want) for have in said) for want in wanted) / len(wanted)


def by_task(answer: str, question: Question) -> float:
    """1 if the answer is right by the kind of its question, as `preflexor eval` tells it; citations are not looked for.

    Raises:
        Dropped: the question is an open one, of which no answer is known (`no_gold`).
    """
    if question.task is None or question.task.kind == "open":
        raise Dropped("no_gold", "the question is an open one; give it an answer, or use the verifier 'judge'")
    return float(right(question.task, answer))


def _known(score: Callable[[str, str], float]) -> Score:
    def scored(answer: str, question: Question) -> float:
        if not question.gold.strip():
            raise Dropped("no_gold", "the question came without a known answer")
        return score(answer, question.gold)

    return scored


def _by_rule(rule: str) -> Score:
    if not rule:
        raise ConfigError("verifier 'rule' has no rule; give it a regular expression that a right answer contains")
    try:
        pattern = re.compile(rule, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as e:
        raise ConfigError(f"rule {rule[:60]!r} is no regular expression: {e}; correct it") from None
    return lambda answer, _: float(pattern.search(answer) is not None)


def _words(text: str) -> list[str]:
    return [word.replace(",", "") for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


def _is_named(answer: str, word: str) -> bool:
    found = re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE)
    return any(_FINAL.search(answer[max(0, match.start() - _NEAR) : match.start()].rstrip("*( \n")) for match in found)


def _meets(have: Quantity, want: Quantity) -> bool:
    if not want.unit:
        return _close(have.value, want.value)
    (mine, base), (other, wanted) = _scale(have.unit), _scale(want.unit)
    return base == wanted and _close(have.value.scaleb(mine), want.value.scaleb(other))


def _close(a: Decimal, b: Decimal) -> bool:
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def _scale(unit: str) -> tuple[int, str]:
    """Power of ten and unit without SI prefixes; powers that are not whole are left with their prefix."""
    tens, bases = 0, []
    for part in _PART.finditer(unit):
        name, power = part["name"], part["power"] or "1"
        if name not in _BASES and name[1:] in _BASES and name[0] in _PREFIXES and re.fullmatch(r"-?\d{1,2}", power):
            tens += _PREFIXES[name[0]] * int(power)
            name = name[1:]
        bases.append(name if power == "1" else f"{name}^{power}")
    return tens, " ".join(sorted(bases))
