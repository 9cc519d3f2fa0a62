"""Knights and knaves, made to measure: every puzzle has exactly one solution, found by trying all.

On an island knights always tell the truth and knaves always lie; each inhabitant says one thing about who is what
(Smullyan, What Is the Name of This Book?, 1978). The words are our own, the shape of a row that of Logic-RL.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from preflexor_agents.evaluation.tasks import Task, identities

NAMES = (
    "Ada", "Bruno", "Carla", "Dario", "Edith", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karin", "Leo", "Mara",
    "Nils", "Olga", "Pavel", "Rosa", "Silas", "Tara", "Ugo", "Vera", "Walter", "Yara", "Zeno",
)  # fmt: skip
FEWEST, MOST = 2, 8
MOST_OF_TWO = 167
"""So many different puzzles with one solution there are with two people."""


@dataclass(frozen=True, slots=True)
class Saying:
    """`form` of one or two claims about persons; a claim is a person's number and whether a knight is claimed."""

    form: str
    claims: tuple[tuple[int, bool], ...]

    def holds(self, knights: Sequence[bool]) -> bool:
        """Whether it is true if these are the knights."""
        first = knights[self.claims[0][0]] == self.claims[0][1]
        if self.form == "is":
            return first
        second = knights[self.claims[1][0]] == self.claims[1][1]
        match self.form:
            case "and":
                return first and second
            case "or":
                return first or second
            case "if":
                return not first or second
        return first == second

    def words(self, names: Sequence[str]) -> str:
        """The saying in English."""
        said = [f"{names[person]} is a {'knight' if knight else 'knave'}" for person, knight in self.claims]
        match self.form:
            case "is":
                return said[0]
            case "if":
                return f"if {said[0]}, then {said[1]}"
            case "iff":
                return f"{said[0]} exactly if {said[1]}"
        return f"{said[0]} {self.form} {said[1]}"


def solutions(sayings: Sequence[Saying]) -> list[tuple[bool, ...]]:
    """All ways in which the inhabitants can be knights (True) and knaves; person i says `sayings[i]`."""
    ways = product((True, False), repeat=len(sayings))
    return [way for way in ways if all(saying.holds(way) == way[i] for i, saying in enumerate(sayings))]


def puzzles(count: int, *, people: int, seed: int = 0) -> Iterator[Task]:
    """So many different puzzles with so many people; the same for the same seed."""
    if not FEWEST <= people <= MOST:
        raise ValueError(f"people is {people}; it must be {FEWEST} to {MOST}")
    if people == FEWEST and count > MOST_OF_TWO:
        raise ValueError(f"count is {count}; with two people there are {MOST_OF_TWO} puzzles")
    rng = random.Random(f"knights|{people}|{seed}")
    seen: set[tuple[Saying, ...]] = set()
    while len(seen) < count:
        sayings = tuple(_saying(rng, speaker, people) for speaker in range(people))
        found = solutions(sayings)
        if len(found) != 1 or sayings in seen:
            continue
        seen.add(sayings)
        names = rng.sample(NAMES, people)
        yield Task(
            id=f"knights-{people}-{seed}-{len(seen)}",
            question=_words(names, sayings),
            kind="identities",
            answer=identities(names, list(found[0])),
            column=f"{people} people",
        )


def _saying(rng: random.Random, speaker: int, people: int) -> Saying:
    """One claim is about somebody else, since nobody can call themselves a knave."""
    form = rng.choice(("is", "and", "or", "if", "iff"))
    others = [person for person in range(people) if person != speaker]
    first = rng.choice(others)
    if form == "is":
        return Saying(form, ((first, rng.random() < 0.5),))
    second = rng.choice([person for person in range(people) if person != first])
    return Saying(form, ((first, rng.random() < 0.5), (second, rng.random() < 0.5)))


def _words(names: Sequence[str], sayings: Sequence[Saying]) -> str:
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    said = " ".join(f'{name} says: "{s.words(names)}."' for name, s in zip(names, sayings, strict=True))
    return (
        "On an island live knights, who always tell the truth, and knaves, who always lie. "
        f"You meet {listed}. {said} Who is a knight and who is a knave?"
    )
