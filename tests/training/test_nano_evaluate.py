from collections.abc import Sequence

import pytest

pytest.importorskip("transformers", reason="needs the train extra")

from preflexor_agents.events import Passage
from preflexor_agents.prompts import Message
from preflexor_training.nano.evaluate import score_dialogues, score_library
from preflexor_training.nano.questions import Question
from preflexor_training.nano.scoring import Reply

HARDNESS = Question(
    text="How hard is bone?",
    kind="single",
    material="bone",
    attribute="hardness",
    value="0.6 GPa",
    note="bone.md",
    shape="direct-h1",
    held_out=False,
)
HARDER = Question(
    text="Which is harder, enamel or bone?",
    kind="comparison",
    material="enamel",
    other="bone",
    attribute="hardness",
    value="enamel",
    numbers=("4 GPa", "0.6 GPa"),
    note="enamel.md",
    shape="compare-h1",
    held_out=True,
)


class Parrot:
    """Says one thing, whatever it is asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def reply(self, messages: Sequence[Message], *, given: str = "") -> Reply:
        return Reply(f"<|thinking|>\nFind: x.\n<|/thinking|>{self.answer}", ended=True)


def retrieve(text: str) -> list[Passage]:
    texts = ("The hardness of bone is 0.6 GPa.", "Enamel has a hardness of 4 GPa.")
    return [Passage(chunk_id=n, source="x.md", title="X", start=0, end=len(t), text=t) for n, t in enumerate(texts, 1)]


def counted(answer: str, question: Question) -> dict[str, int]:
    return score_library(Parrot(answer), [question], retrieve=retrieve)[question.kind].right


def test_a_right_value_with_the_passage_that_states_it_counts_as_cited() -> None:
    assert counted("The hardness of bone is 0.6 GPa [1].", HARDNESS)["right_and_cited"] == 1


def test_a_right_value_with_another_passage_counts_as_right_only() -> None:
    right = counted("The hardness of bone is 0.6 GPa [2].", HARDNESS)
    assert (right["right"], right["right_and_cited"]) == (1, 0)


def test_a_longer_number_is_wrong() -> None:
    assert counted("The hardness of bone is 10.6 GPa [1].", HARDNESS)["right"] == 0


def test_a_comparison_needs_the_winner_first_and_both_values() -> None:
    assert counted("The hardness of enamel, 4 GPa, is higher than that of bone, 0.6 GPa [2] [1].", HARDER)["right"] == 1
    assert counted("The hardness of bone, 0.6 GPa, is higher than that of enamel, 4 GPa [1].", HARDER)["right"] == 0
    assert counted("The hardness of enamel is higher than that of bone [1].", HARDER)["right"] == 0


def test_a_question_without_passages_is_counted_without_citations() -> None:
    scores = score_library(Parrot("It is 0.6 GPa."), [HARDNESS], retrieve=lambda _: ())
    assert scores["single"].of == {"right": 1, "well_formed": 1}


def test_a_parrot_is_never_right_about_made_up_materials() -> None:
    scores = score_dialogues(Parrot("The hardness of bone is 0.6789 GPa [1]."), count=2)
    assert {"single", "critique", "judge"} <= set(scores)
    assert all(score.right["right"] == 0 for score in scores.values())
    assert all(score.of["right"] <= 2 for score in scores.values())
