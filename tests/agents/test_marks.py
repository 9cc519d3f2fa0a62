from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.events import Citation, Cited
from preflexor_agents.reflection.marks import marked


def cites(claim, number):
    return Citation(number=number, chunk_id=1, source="s", title="t", start=0, end=1, quote="q", claim=claim)


def test_the_checked_number_takes_the_place_of_the_models():
    claim = "The toughness of nacre is 4.5 MPa m^0.5 [2]."
    assert marked(claim, Cited(citations=(cites(claim, 3),))) == "The toughness of nacre is 4.5 MPa m^0.5 [3]."


def test_a_claim_on_two_passages_gets_both_numbers_and_an_unsupported_one_loses_its_mark():
    first, second = "Nacre [1] is tougher than chalk [9]", "It tastes of salt [2, 4]!"
    cited = Cited(citations=(cites(first, 5), cites(first, 1)), unsupported=(second,))
    assert marked(f"{first}. {second}", cited) == "Nacre is tougher than chalk [1] [5]. It tastes of salt!"


@given(st.text(), st.integers(1, 99))
def test_any_text_keeps_its_words(text, number):
    assert marked(text, Cited(citations=())) == text
    if text:
        again = marked(text, Cited(citations=(cites(text, number),)))
        assert f"[{number}]" in again
