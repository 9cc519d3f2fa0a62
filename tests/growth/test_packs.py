"""Domain packs."""

from importlib import resources
from pathlib import Path

import pytest

from preflexor_agents.errors import ConfigError
from preflexor_agents.packs import load, names

GENERAL = resources.files("preflexor_agents").joinpath("data", "packs", "general.toml").read_text(encoding="utf-8")


def test_the_packs_of_the_package_are_whole():
    assert names() == ("general", "materials")
    for name in names():
        pack = load(name)
        assert pack.name == name and len(pack.categories) > 3
        assert len(set(pack.relations)) == len(pack.relations) and len(set(pack.entity_types)) == len(pack.entity_types)


def test_a_pack_of_the_users_own_is_read_from_its_file(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(GENERAL.replace('name = "general"', 'name = "mine"', 1), encoding="utf-8")
    assert load(str(file)).name == "mine" and load(str(file)).relations == load("general").relations


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("name =", "nome ="), "mine.toml: name is "),
        (("about =", "about = 3 #"), "about is 3; "),
        (("relations = [", "relations = []\nothers = ["), "relations"),
        (("about {a}", "about it"), r"questions.frontier is 'What is known about it"),
        (("[roles]", "[roles"), "is not TOML: .*; correct that line"),
        (
            ('name = "Hypothesis"', 'name = "reasoning steps"'),
            "categories is .*; two of them have the same name; rename",
        ),
        (('name = "Hypothesis"', 'name = "Guess"\nretrieved = true'), "more than one of them is retrieved"),
    ],
)
def test_a_pack_that_is_wrong_is_told_with_the_key(tmp_path: Path, change: tuple[str, str], said: str):
    file = tmp_path / "mine.toml"
    text = GENERAL.replace(*change, 1)
    assert text != GENERAL
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        load(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pack", "said"),
    [("physics", "'physics' is unknown; use general, materials, or"), ("no.toml", "cannot be read: No such file")],
)
def test_a_pack_that_is_not_there_is_told(pack: str, said: str):
    with pytest.raises(ConfigError, match=said):
        load(pack)


def test_a_pack_in_another_encoding_is_told(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8 text; save it as UTF-8"):
        load(str(file))
