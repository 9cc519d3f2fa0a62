"""Numbers with units in text."""

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.store.quantities import is_same, plain, quantities, without


def read(text: str) -> list[tuple[Decimal, str]]:
    return [(q.value, q.unit) for q in quantities(plain(text))]


def one(number: str, unit: str = "") -> list[tuple[Decimal, str]]:
    return [(Decimal(number), unit)]


def stands(claim: str, text: str) -> bool:
    """Whether every quantity of the claim is in the text."""
    found = quantities(plain(text))
    return all(any(is_same(c, f) for f in found) for c in quantities(plain(claim)))


@pytest.mark.parametrize(
    "text",
    [
        "4.5 MPa m^0.5",
        "4.5 MPa·m^{1/2}",
        "4.5 MPa*m^(1/2)",
        "4.5 MPa m1/2",
        "4.5 MPa m½",
        "4.5 MPa√m",
        "4.5 MPa sqrt(m)",
        "4.5 MPa m<sup>0.5</sup>",
        "**4.5** MPa m^0.5",
        "4.50 MPa\u00a0m^0.5 [2]",
        r"$4.5\,\mathrm{MPa\,m}^{1/2}$",
        r"4.5 MPa $\sqrt{m}$",
    ],
)
def test_one_toughness_has_many_spellings(text: str) -> None:
    assert read(f"It is {text}.") == one("4.5", "MPa m^0.5")


@pytest.mark.parametrize(
    ("one_way", "other_way"),
    [
        ("1,200 \u00b5m", "1200 micrometres"),
        ("1,200 um", "1\u202f200 \u03bcm"),
        ("5 kJ/m2", "5 kJ m⁻²"),
        ("5 kJ per m^2", "5 kJ m^-2"),
        ("9.8 m/s²", "9.8 m s^-2"),
        ("20 %", "20 percent"),
        ("95 wt%", "95%"),
        ("37 degrees Celsius", "37°C"),
        ("1.2 \u00d7 10^5 Pa", "120,000 Pa"),
        ("1.5e-6 m", "1.5 \u00d7 10<sup>-6</sup> m"),
        ("3 gigapascals", "3 GPa"),
        ("500-nm", "500 nm"),
        ("-5 °C", "\u22125 °C"),
        ("2 l", "2 litres"),
    ],
)
def test_equal_quantities_are_equal(one_way: str, other_way: str) -> None:
    assert read(one_way) == read(other_way) != []


@pytest.mark.parametrize(
    "text", ["43-70 GPa", "43\u201370 GPa", "43 to 70 GPa", "between 43 and 70 GPa", "43 GPa \u2013 70 GPa"]
)
def test_both_ends_of_a_range_have_the_unit(text: str) -> None:
    assert read(text) == [(Decimal(43), "GPa"), (Decimal(70), "GPa")]


def test_a_list_shares_its_unit() -> None:
    assert read("of 10, 20 and 30 nm") == [(Decimal(n), "nm") for n in (10, 20, 30)]


@pytest.mark.parametrize("text", ["C60 and H2O", "IL-6", "type-2", "v1.2.3", "3D", "the 2nd", "Ti6Al4V", "[12]", "x_1"])
def test_digits_in_names_and_marks_are_no_quantities(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("47 nm", "147 nm"),
        ("47 nm", "470 nm"),
        ("47 nm", "4.47 nm"),
        ("47 nm", "47.5 nm"),
        ("47 nm", "1,047 nm"),
        ("47", "C47 and 47th"),
        ("47 nm", "47 \u00b5m"),
        ("47 GPa", "47 MPa"),
        ("47 nm", "47 [12]"),
        ("-47 °C", "47 °C"),
        ("47 MPa m^0.5", "47 MPa"),
        ("200", "1,200 m"),
        ("50 GPa", "43\u201370 GPa"),
        ("12", "stated before [12]"),
        ("5", "10^5 Pa"),
    ],
)
def test_a_number_does_not_stand_in_another(claim: str, text: str) -> None:
    assert not stands(claim, text)


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("47 nm", "about 47 nm."),
        ("47", "47 nm"),
        ("43 GPa", "43\u201370 GPa"),
        ("4.5", "4.50"),
        ("47 nm", "(47 nm)"),
        ("0.5", ".5"),
    ],
)
def test_a_number_stands_where_it_stands(claim: str, text: str) -> None:
    assert stands(claim, text)


def test_quantities_can_be_taken_out_of_the_text() -> None:
    text = "is 4.5 MPa m^0.5 and 70 GPa stiff"
    assert without(text, quantities(text)).split() == ["is", "and", "stiff"]


@given(st.decimals(0, 10**6, places=2), st.sampled_from(["GPa", "MPa m^0.5", "%", "nm", "kJ/m^2", "°C", ""]))
def test_what_is_written_is_read(value: Decimal, unit: str) -> None:
    found = quantities(plain(f"The value is {value} {unit} here."))
    assert [q.value for q in found] == [value] and bool(found[0].unit) == bool(unit)


@given(st.text(st.sampled_from("0123456789.,-\u2013+eE\u00d7x^{}()[]<>/sup√m MPa%°\u00b5$\\ \n*_")))
@settings(max_examples=500)
def test_no_text_is_an_error(text: str) -> None:
    found = quantities(plain(text))
    assert all(a.end <= b.start for a, b in pairwise(found))


@pytest.mark.parametrize("piece", ["<sup>", "^{", "√(", "1,234", "10^", "$", "5 m ", "1 per ", "*_", "\\sqrt{"])
def test_long_hostile_text_is_read(piece: str) -> None:
    assert isinstance(quantities(plain(piece * 5000)), list)
