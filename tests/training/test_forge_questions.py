"""Which questions and answers forge rows may have."""

import json
import random
from itertools import combinations
from pathlib import Path

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.events import Passage
from preflexor_training.forge import gates
from preflexor_training.forge.duplicates import LEAST_LIKE, AskedBefore, _telling, alike
from preflexor_training.forge.given import read_questions
from preflexor_training.forge.questions import cleaned
from preflexor_training.forge.steps import Dropped

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = (
    "How do the wavy tablets of nacre stop a crack, and what happens when the protein between them dries?",
    "Why does the study of nacre matter in the context of ceramic armour?",
    "Explain how bone combines stiffness with toughness.",
    "What is the figure of merit by which light, stiff panels are compared, and how does balsa wood rank?",
    "How does the section modulus of a bamboo culm follow from its wall thickness?",
    "Is it possible for a dry gecko seta to stick to wet glass?",
    "Do spider silks stretch further when they are wet, and why would water do this to them?",
    "¿Por qué es tan duro el nácar de los moluscos?",
    "珍珠层为什么比普通的碳酸钙坚韧得多?",
)
SCENES = (
    "Consider a film of spheres with grafted chains: its toughness rises, then falls with the length of the chains. "
    "Given these trends, explain why neither long nor short chains are best.",
    "Why is it important for bone that collagen deflects cracks?",
    "A fibre with the draw ratio 2 shrinks by a share in [0, 1] when it is wet. Predict the share at ratio 3.",
)
POINTING = (
    "What does the passage say about nacre and its toughness?",
    "According to the text, why is nacre tough?",
    "What do the authors conclude about the toughness of nacre?",
    "How does the model in Figure 3 explain the toughness of nacre?",
    "Why, as described above, does nacre resist cracks?",
    "What did Jackson et al. find about the toughness of nacre?",
    "Why is nacre so tough (Jackson, 1988)?",
    "How does this study explain the toughness of nacre?",
    "In the context provided, why do tablets slide?",
    "How do the given data support the toughness of nacre?",
    "Why does the toughness of nacre matter in this paper?",
    "Why is nacre tough, as passage 2 has it?",
    "Why is nacre tough [2], and what about its tablets?",
    "How does it resist the growth of cracks?",
    "Why are they so much tougher than chalk?",
)


def passage(text: str, title: str = "Nacre") -> Passage:
    return Passage(chunk_id=1, source="x.md", title=title, start=0, end=len(text), text=text)


@pytest.mark.parametrize("question", GOOD + SCENES)
def test_a_question_that_stands_alone_passes(question: str):
    gates.standalone(question)


def test_published_benchmark_questions_and_their_answers_pass():
    file = SHARED / "ref-graph-preflexor" / "results" / "graph_3b_data_eval_all.jsonl"
    if not file.exists():
        pytest.skip(f"{file.name} is not here")
    asked = AskedBefore()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        gates.standalone(row["question"])
        asked.take(number, row["question"])
        assert cleaned(row["question"]) == " ".join(row["question"].split())
        answer = row["raw_output"].split("</think>")[-1]
        gates.answered(answer, names_passages=False)
        gates.not_leaked(row["question"], answer)


@pytest.mark.parametrize("question", POINTING)
def test_a_question_that_points_to_what_its_reader_does_not_see_is_refused(question: str):
    with pytest.raises(Dropped, match="not_standalone: "):
        gates.standalone(question)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("", "empty_question"),
        ("Nacre is tough because its tablets slide.", "not_a_question"),
        ("Why?", "too_short"),
        pytest.param("Why " + "so " * 300 + "tough?", "too_long", id="too_long"),
    ],
)
def test_what_is_no_question_is_refused_by_kind(question: str, kind: str):
    with pytest.raises(Dropped) as caught:
        gates.standalone(question)
    assert caught.value.kind == kind and kind in gates.KINDS


def test_a_question_about_something_else_than_its_passages_cannot_be_answered_from_them():
    about = [passage("Tablets of aragonite slide over each other and stop a crack.")]
    gates.answerable("How do aragonite tablets stop a crack in nacre?", about)
    with pytest.raises(Dropped, match=r"not_answerable: no passage speaks of .*silk"):
        gates.answerable("How do spiders spin dragline silk at low temperature?", about)


@pytest.mark.parametrize(
    "answer",
    [
        "The passages do not say.",
        "The context does not provide enough information to answer this.",
        "This cannot be determined from what is known here.",
    ],
)
def test_an_answer_that_declines_is_none(answer: str):
    with pytest.raises(Dropped, match="not_answerable: the answer declines"):
        gates.answered(answer, names_passages=True)


def test_an_answer_may_name_its_passages_only_where_its_reader_sees_them():
    answer = "According to the passages, nacre is tough because its tablets slide [1]."
    gates.answered(answer, names_passages=True)
    with pytest.raises(Dropped, match="refers_to_context: 'the passages' in the answer"):
        gates.answered(answer, names_passages=False)
    with pytest.raises(Dropped, match="empty_answer"):
        gates.answered(" ... ", names_passages=True)


def test_a_question_that_holds_its_own_answer_is_refused_and_a_number_is_an_answer():
    question = "Why do the sliding tablets of nacre, which stop cracks, make nacre tough?"
    gates.not_leaked(
        question, "Protein between the tablets stretches in steps and holds the faces of a crack together."
    )
    with pytest.raises(Dropped, match="leaked: "):
        gates.not_leaked(question, "The tablets of nacre slide, which stops cracks and makes nacre tough.")
    gates.not_leaked("What is the stiffness of nacre in GPa?", "The stiffness of nacre is 70 GPa.")
    with pytest.raises(Dropped, match="leaked: "):
        gates.not_leaked("Is the stiffness of nacre 70 GPa or less?", "The stiffness of nacre is 70 GPa.")


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("Why is nacre tough?", "Why is nacre tough?"),
        ("**Question:** Why is\nnacre tough?", "Why is nacre tough?"),
        ("Here is a question for you:\n\n1. Why is nacre tough?\n\nAnswer: its tablets slide.", "Why is nacre tough?"),
        ('Q1: "Why is nacre tough?" I hope that helps!', "Why is nacre tough?"),
        ("Nacre is brittle chalk. Why is it tough? (Hint: tablets)", "Nacre is brittle chalk. Why is it tough?"),
        ("Explain why nacre is tough.", "Explain why nacre is tough."),
        ("Why is nacre tough? Then compare it with bone.", "Why is nacre tough? Then compare it with bone."),
        ("- \n***\n", ""),
    ],
)
def test_the_question_is_taken_out_of_what_a_teacher_wraps_it_in(reply: str, question: str):
    assert cleaned(reply) == question


NEAR = (
    ("How does the sliding of tablets make nacre tough?", "How does tablet sliding make nacre tough?"),
    ("Why is nacre tough, and which role do its tablets play?", "Explain why nacre is tough and what its tablets do."),
    ("How does water affect the stiffness of silk?", "How does water influence the stiffness of silk?"),
    (
        "How do mineral bridges, wavy tablets and protein together stop a crack in nacre?",
        "How do mineral bridges, wavy tablets and protein together stop a growing crack in nacre?",
    ),
)
APART = (
    (
        "How does the fibre layout of bamboo set its bending stiffness?",
        "How does the fibre layout of balsa set its bending stiffness?",
    ),
    ("What is the stiffness of nacre at 20 % water?", "What is the stiffness of nacre at 50 % water?"),
    (
        "Why does nacre crack when it is loaded along its layers?",
        "Why does nacre not crack when it is loaded along its layers?",
    ),
    ("Why is nacre tough?", "How do geckos stick to glass?"),
)


@pytest.mark.parametrize(("first", "second"), NEAR)
def test_a_question_in_nearly_the_same_words_is_a_duplicate(first: str, second: str):
    asked = AskedBefore()
    asked.take(3, first)
    with pytest.raises(Dropped, match="duplicate: row 3 asks nearly the same: "):
        asked.take(7, second)


@pytest.mark.parametrize(("first", "second"), APART)
def test_the_same_asked_of_something_else_is_another_question(first: str, second: str):
    asked = AskedBefore()
    asked.take(3, first)
    asked.take(7, second)


def test_the_search_for_duplicates_misses_none_that_a_look_at_all_pairs_finds():
    rng = random.Random(5)
    words = [f"word{n}" for n in range(18)]
    questions = [" ".join(rng.sample(words, rng.randrange(4, 9))) + "?" for _ in range(300)]
    asked, kept = AskedBefore(), list[str]()
    for number, question in enumerate(questions):
        known = [_telling(earlier) for earlier in kept]
        repeated = any(alike(earlier, _telling(question)) for earlier in known)
        if repeated:
            with pytest.raises(Dropped):
                asked.take(number, question)
        else:
            asked.take(number, question)
            kept.append(question)
    assert 20 < len(kept) < 290
    for a, b in combinations(map(_telling, kept), 2):
        same_words = len({*a} & {*b}) / len({*a} | {*b}) >= LEAST_LIKE
        assert not same_words or not alike(a, b)


def test_given_questions_come_with_their_answers_in_any_known_shape(tmp_path: Path):
    file = tmp_path / "questions.jsonl"
    rows = (
        {"question": " How tough is nacre?\t", "answer": "4.5 MPa m^0.5"},
        {"question": "How many tablets?", "answer": "3 + 4 is 7\n#### 7"},
        {"id": "3", "question": "Half a pair: \ud800?"},
    )
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [(q.text, q.gold, q.task.kind if q.task else "") for q in read_questions(file)] == [
        ("How tough is nacre?", "4.5 MPa m^0.5", "numeric"),
        ("How many tablets?", "7", "numeric"),
        ("Half a pair: ??", "", "open"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "has no questions"), (b"{", "is no JSON"), (b'{"q": 1}', "has no question"), (b"\xff", "is not UTF-8")],
)
def test_a_file_of_questions_that_cannot_be_used_is_told(tmp_path: Path, content: bytes, said: str):
    file = tmp_path / "questions.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_questions(file)
