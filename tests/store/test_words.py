"""Words, stems and the vectors made of them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.store.embedders import HashEmbedder
from preflexor_agents.store.words import content_words, stem, words

DIGEST = """
import zlib
from preflexor_agents.store.embedders import HashEmbedder
print(zlib.crc32(HashEmbedder().embed([%r]).tobytes()))
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("stiffness", "stiff"),
        ("stiffer", "stiff"),
        ("toughness", "tough"),
        ("layers", "layer"),
        ("properties", "property"),
        ("sliding", "slides"),
        ("fibres", "fibre"),
        ("glasses", "glass"),
        ("mineralised", "minerals"),
        ("nacre's", "nacre"),
    ],
)
def test_inflections_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("one", "other"), [("tensile", "tension"), ("bone", "bond"), ("glass", "gas"), ("silk", "silt")]
)
def test_other_words_do_not(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_words_are_folded_and_function_words_left_out() -> None:
    assert words("Ångström's ﬁbre, CO₂!") == ["angstrom's", "fibre", "co2"]
    assert content_words("What is the toughness of nacre?") == ["toughness", "nacre"]


def cosine(one: str, other: str) -> float:
    a, b = HashEmbedder().embed([one, other])
    return float(a @ b)


def test_likeness_of_spelling_is_likeness_of_vectors() -> None:
    assert cosine("fracture toughness of nacre", "nacre is tough against fracture") > 0.5
    assert cosine("fracture toughness of nacre", "thoughness of nacer fracture") > 0.3
    assert abs(cosine("fracture toughness of nacre", "spiders spin silk in webs")) < 0.2


def test_vectors_have_length_one_or_nothing_in_them() -> None:
    lengths = np.linalg.norm(HashEmbedder().embed(["nacre", "Ångström", "x" * 100_000, "", "?!", "🦪"]), axis=1)
    assert np.allclose(lengths, [1, 1, 1, 0, 0, 0], atol=1e-6)


def test_vectors_are_the_same_in_every_process() -> None:
    text = "Nacre, bone & silk: 4.5 MPa m^0.5"
    seen = {
        subprocess.run(
            [sys.executable, "-c", DIGEST % text],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@given(st.text(max_size=200))
def test_any_text_can_be_hashed(text: str) -> None:
    row = HashEmbedder().embed([text])[0]
    assert row.dtype == np.float32 and np.isfinite(row).all()


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=50))
def test_surrogates_do_no_harm(text: str) -> None:
    assert HashEmbedder().embed([text]).shape == (1, HashEmbedder.dim)
