"""Where a setting comes from, and what is said about one that cannot be used."""

import os
from pathlib import Path

import pytest

from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import ConfigError
from preflexor_agents.settings import load, reflect_config


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PREFLEXOR_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def write(folder: Path, text: str) -> Path:
    file = folder / "preflexor.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_anything_the_defaults_hold(folder: Path) -> None:
    settings = load(folder=folder)
    assert (settings.model, settings.preset, settings.rounds) == ("nano", "default", None)
    assert settings.store.parts[-2:] == ("preflexor", "store.db")
    assert reflect_config(settings) == ReflectConfig()


def test_an_option_beats_a_variable_beats_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, 'model = "gguf:file.gguf"\nrounds = 5\nseed = 5\n')
    monkeypatch.setenv("PREFLEXOR_ROUNDS", "4")
    monkeypatch.setenv("PREFLEXOR_SEED", "4")
    settings = load({"seed": 3, "candidates": None}, folder=folder)
    assert (settings.model, settings.rounds, settings.seed) == ("gguf:file.gguf", 4, 3)


def test_the_file_beside_the_work_hides_the_users_own(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / "preflexor"
    home.mkdir(parents=True)
    write(home, "rounds = 7\nseed = 7")
    assert load(folder=folder).rounds == 7
    write(folder, "rounds = 2")
    assert (load(folder=folder).rounds, load(folder=folder).seed) == (2, None)


def test_a_store_in_the_file_is_found_beside_the_file(folder: Path) -> None:
    write(folder, 'store = "data/papers.db"')
    assert load(folder=folder).store == folder / "data" / "papers.db"


def test_a_tilde_is_the_home_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLEXOR_STORE", "~/papers.db")
    assert load(folder=folder).store == tmp_path / "home" / "papers.db"


def test_an_empty_variable_is_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLEXOR_ROUNDS", "")
    assert load(folder=folder).rounds is None


def test_what_is_set_lies_on_top_of_the_preset(folder: Path) -> None:
    options = {"preset": "paper", "rounds": 2, "candidates": 3, "seed": 9, "budget_tokens": 77, "budget_seconds": 1.5}
    config = reflect_config(load(options, folder=folder))
    assert (config.preset, config.gate, config.integrate) == ("paper", False, "always")
    assert (config.rounds, config.candidates, config.seed) == (2, 3, 9)
    assert (config.budget_tok, config.budget_s) == (77, 1.5)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('rounds = "many"', "'many'"),
        ("rounds = 0", "0"),
        ("rounds = 101", "101"),
        ("rounds = 2.5", "2.5"),
        ("rounds = true", "True"),
        ("rounds = [1]", "[1]"),
        ("seed = -1", "-1"),
        ("seed = 2147483648", "2147483648"),
        ("budget_tokens = 0", "0"),
        ("budget_seconds = nan", "nan"),
        ("budget_seconds = inf", "inf"),
        ("budget_seconds = 0", "0"),
        ("budget_seconds = 2000-01-01", "datetime.date(2000, 1, 1)"),
        ('preset = "Paper"', "'Paper'"),
        ('model = ""', "''"),
        ('model = "a\\u001b[2Jb"', "'a\\x1b[2Jb'"),
        ("model = 3", "3"),
        ('store = "a\\u0000b"', "'a\\x00b'"),
        ('store = " "', "' '"),
        ("store = 4", "4"),
        ("candidates = {n = 1}", "{'n': 1}"),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_file(folder: Path, line: str, value: str) -> None:
    file = write(folder, line)
    with pytest.raises(ConfigError) as caught:
        load(folder=folder)
    message = str(caught.value)
    assert f"{line.split()[0]} in {file} is " in message
    assert value in message
    assert "; it " in message and "\n" not in message


def test_a_bad_variable_and_a_bad_option_are_named_as_they_were_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"^--budget-tokens is -5; it should be greater than or equal to 1$"):
        load({"budget_tokens": -5}, folder=folder)
    monkeypatch.setenv("PREFLEXOR_SEED", "0x10")
    with pytest.raises(ConfigError, match=r"^PREFLEXOR_SEED is '0x10'; it should be a valid integer"):
        load(folder=folder)


def test_a_huge_value_is_cut_in_the_message(folder: Path) -> None:
    write(folder, f'rounds = "{"9" * 5000}"')
    with pytest.raises(ConfigError) as caught:
        load(folder=folder)
    assert len(str(caught.value)) < 300 + len(str(folder))


def test_an_unknown_key_is_refused_with_the_nearest_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder, "round = 3")
    with pytest.raises(ConfigError) as caught:
        load(folder=folder)
    assert str(caught.value) == f"'round' = 3 in {file} is not a setting; did you mean rounds?"
    write(folder, "[tool.x]\ny = 1")
    with pytest.raises(ConfigError, match="the settings are model, store"):
        load(folder=folder)
    write(folder, "")
    monkeypatch.setenv("PREFLEXOR_MODLE", "nano")
    with pytest.raises(ConfigError, match=r"^PREFLEXOR_MODLE is not a setting; did you mean PREFLEXOR_MODEL\?$"):
        load(folder=folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rounds = ", "is not TOML"),
        (b"rounds = 1\nrounds = 2", "is not TOML"),
        (b"rounds = " + b"[" * 100_000, "is not TOML"),
        (b"model = '\xff'", "is not UTF-8"),
    ],
    ids=["no value", "twice", "deep", "latin-1"],
)
def test_a_damaged_file_is_named(folder: Path, content: bytes, words: str) -> None:
    file = folder / "preflexor.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load(folder=folder)
    assert str(file) in str(caught.value)


def test_a_folder_or_a_dead_link_in_place_of_the_file_is_named(folder: Path) -> None:
    file = folder / "preflexor.toml"
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(folder=folder)
    file.rmdir()
    file.symlink_to(folder / "gone")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(folder=folder)


def test_a_byte_order_mark_does_no_harm(folder: Path) -> None:
    (folder / "preflexor.toml").write_bytes(b"\xef\xbb\xbfrounds = 2")
    assert load(folder=folder).rounds == 2


def test_a_temperature_warms_every_voice_but_the_judge(folder: Path) -> None:
    config = reflect_config(load({"temperature": 0.9}, folder=folder))
    assert (config.thinker.temperature, config.improver.temperature, config.judge.temperature) == (0.9, 0.9, 0.0)
    assert config.thinker.top_p == ReflectConfig().thinker.top_p


def test_keys_come_from_the_file_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder, '[keys]\n"chat.send" = "ctrl+s"')
    assert load(folder=folder).keys == {"chat.send": "ctrl+s"}
    write(folder, '[keys]\n"chat.send" = 3')
    with pytest.raises(ConfigError) as caught:
        load(folder=folder)
    assert str(caught.value) == f"'chat.send' among the keys in {file} is 3; it should be a valid string"
    monkeypatch.setenv("PREFLEXOR_KEYS", "x")
    with pytest.raises(ConfigError, match="PREFLEXOR_KEYS is not a setting"):
        load(folder=folder)
