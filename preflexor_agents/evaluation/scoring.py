"""Whether an answer is right, without a judge. Pure; the thinking is never looked at."""

import re
from decimal import Decimal

from preflexor_agents.evaluation.tasks import LETTERS, Task
from preflexor_agents.prompts import NOT_IN_PASSAGES
from preflexor_agents.reflection.verdicts import same
from preflexor_agents.store.quantities import Quantity, plain, quantities

TOLERANCE = Decimal("1e-6")
"""Relative; two spellings of one number, not a measurement's error, and units are not converted. The verifier `numeric`
of forge allows 1 % and converts SI prefixes: there a right answer that fails would be trained against."""
_FINAL = re.compile(r"####|\\boxed\{|(?:final answer|answer|result)\s*(?:is|:|=)", re.IGNORECASE)
_LETTER = re.compile(r"(?:^|answer(?:\s+is)?\s*:?\s*|choice\s*:?\s*|\()\**\(?([A-Z])\)?(?![\w'])", re.IGNORECASE)
_FIRST_LETTER = re.compile(r"^\W*([A-Z])(?:[).:*\]]|\s*$)")
_NOT = r"\b(?:do(?:es)? not|don't|doesn't|cannot|can't|no)\b.{0,40}"
_TOLD = r"\b(?:say|tell|state|mention|answer|know|enough|information|determine|given)"
_REFUSES = re.compile(rf"{_NOT}{_TOLD}|\bunanswerable\b|\bnot (?:stated|given|mentioned|known|in the)\b", re.IGNORECASE)
_IS = r"\b\W{0,4}(?:is\W{1,3}|=|:)?\W{0,3}(?:an?\s+)?\W{0,3}(knight|knave)\b"


def right(task: Task, answer: str) -> bool:
    """Whether the answer is right. An `open` question has no right answer: always False."""
    if not answer.strip():
        return False
    match task.kind:
        case "exact":
            found = states(answer, task.answer) or same(answer, task.answer)
        case "numeric":
            found = has_number(answer, task.answer)
        case "choice":
            found = letter(answer, task.choices) == task.answer
        case "comparison":
            found = names_first(answer, task.answer, *(name for name in task.choices if name != task.answer))
        case "identities":
            found = has_identities(answer, task.answer)
        case "unanswerable":
            found = refuses(answer)
        case "open":
            return False
    return found and all(states(answer, words) for words in task.states)


def states(text: str, value: str) -> bool:
    """Whether the value stands in the text as a whole: 47 does not stand in 147, 4.75 or 0.47."""
    return re.search(rf"(?<![\w.]){re.escape(value)}(?!\w|\.\d)", text, re.IGNORECASE) is not None


def has_number(answer: str, expected: str) -> bool:
    """Whether the number is stated. With a unit, anywhere in the answer; without one, as the last number, or the one
    after words like `the answer is`: an answer that counts through all numbers does not know which.
    """
    wanted, said = quantities(plain(expected)), quantities(plain(answer))
    if len(wanted) != 1 or not said:
        return states(answer, expected)
    if wanted[0].unit:
        return any(quantity.unit == wanted[0].unit and _close(quantity, wanted[0]) for quantity in said)
    marks = list(_FINAL.finditer(plain(answer)))
    after = [q for q in said if marks and q.start >= marks[-1].end()]
    return _close((after or said[-1:])[0], wanted[0])


def _close(a: Quantity, b: Quantity) -> bool:
    return abs(a.value - b.value) <= TOLERANCE * max(abs(a.value), abs(b.value))


def letter(answer: str, choices: tuple[str, ...]) -> str:
    """The choice that is made: a letter that is named as such, else the one choice whose words are said; else empty."""
    known = LETTERS[: len(choices)]
    first = _FIRST_LETTER.match(answer)
    if first and first[1] in known:
        return str(first[1])
    named: list[str] = [found.upper() for found in _LETTER.findall(answer) if found.upper() in known]
    if named:
        return named[-1]
    said = [known[i] for i, choice in enumerate(choices) if states(answer, choice)]
    return said[0] if len(said) == 1 else ""


def names_first(text: str, winner: str, loser: str) -> bool:
    """Whether the winner is named, and before the loser, as the answer to a comparison does."""
    at, other = _find(text, winner, not_in=loser), _find(text, loser, not_in=winner)
    return at >= 0 and (other < 0 or at < other)


def _find(text: str, name: str, *, not_in: str) -> int:
    """Where the name stands by itself and not as a part of the longer other name."""
    if name.lower() in not_in.lower():
        text = re.sub(re.escape(not_in), lambda m: "\0" * len(m.group()), text, flags=re.IGNORECASE)
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return found.start() if found else -1


def has_identities(answer: str, expected: str) -> bool:
    """Whether everybody is called what they are; of several words about one person the last ones count."""
    for line in expected.splitlines():
        name, _, what = line.partition("=")
        said = re.findall(rf"(?<!\w){re.escape(name)}{_IS}", answer, re.IGNORECASE)
        if not said or said[-1].lower() != what:
            return False
    return True


def refuses(answer: str) -> bool:
    """Whether it says that the answer is not there."""
    return same(answer, NOT_IN_PASSAGES) or _REFUSES.search(answer) is not None
