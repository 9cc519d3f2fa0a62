"""Settings written back into the file: only what changed changes."""

import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.errors import ConfigError
from preflexor_agents.settings import load
from preflexor_agents.settings_file import save, written

FILE = """\
# my settings
model = "nano"   # small
rounds = 3

# where the papers are
store = "papers.db"

[keys]
"chat.send" = "ctrl+s"  # as at work
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "preflexor.toml"
    made.write_text(FILE, encoding="utf-8")
    return made


def test_only_the_line_of_the_setting_changes(file: Path) -> None:
    save(file, {"rounds": 5})
    assert file.read_text(encoding="utf-8") == FILE.replace("rounds = 3", "rounds = 5")


def test_a_comment_behind_a_value_stays(file: Path) -> None:
    save(file, {"model": "ollama:qwen3:4b"})
    assert "# small" in file.read_text(encoding="utf-8")
    assert load(folder=file.parent).model == "ollama:qwen3:4b"


def test_a_new_setting_does_not_fall_into_the_table_of_keys(file: Path) -> None:
    save(file, {"theme": "nord", "temperature": 0.7})
    settings = load(folder=file.parent)
    assert (settings.theme, settings.temperature) == ("nord", 0.7)
    assert settings.keys == {"chat.send": "ctrl+s"}


def test_none_takes_a_setting_out_and_leaves_the_rest(file: Path) -> None:
    save(file, {"rounds": None})
    text = file.read_text(encoding="utf-8")
    assert "rounds" not in text and "# where the papers are" in text and "# as at work" in text


def test_keys_are_set_one_by_one(file: Path) -> None:
    save(file, {"keys": {"chat.send": "ctrl+s", "app.help": "f2"}})
    text = file.read_text(encoding="utf-8")
    assert "# as at work" in text
    assert tomllib.loads(text)["keys"] == {"chat.send": "ctrl+s", "app.help": "f2"}


@pytest.mark.parametrize(
    "changes", [{"rounds": 0}, {"rounds": "many"}, {"model": ""}, {"preset": "none"}, {"temperature": -1.0}]
)
def test_a_wrong_value_leaves_the_file_as_it_was(file: Path, changes: dict[str, str | int | float]) -> None:
    with pytest.raises(ConfigError, match=r"in .*preflexor\.toml is "):
        save(file, changes)
    assert file.read_text(encoding="utf-8") == FILE
    assert os.listdir(file.parent) == ["preflexor.toml"]


def test_an_unknown_key_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean rounds"):
        save(file, {"round": 3})
    assert file.read_text(encoding="utf-8") == FILE


def test_a_file_is_made_with_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "config" / "preflexor" / "preflexor.toml"
    save(file, {"rounds": 2})
    assert file.read_text(encoding="utf-8") == "rounds = 2\n"


def test_a_link_stays_a_link_and_the_permissions_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o600)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "preflexor.toml"
    link.symlink_to(file)
    save(link, {"rounds": 4})
    assert link.is_symlink() and "rounds = 4" in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_windows_line_ends_stay(file: Path) -> None:
    file.write_bytes(FILE.replace("\n", "\r\n").encode())
    save(file, {"rounds": 5})
    data = file.read_bytes()
    assert data == FILE.replace("\n", "\r\n").replace("rounds = 3", "rounds = 5").encode()


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file, no folder", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be (read|written): .*") as caught:
        save(tmp_path / "blocked" / "preflexor.toml", {"rounds": 2})
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_left_alone(file: Path) -> None:
    file.write_text("rounds = ", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not TOML"):
        save(file, {"rounds": 2})
    assert file.read_text(encoding="utf-8") == "rounds = "


@given(
    st.dictionaries(st.sampled_from(["model", "theme"]), st.text(min_size=1), max_size=2),
    st.dictionaries(st.text(min_size=1), st.text(), max_size=4),
)
def test_whatever_text_is_written_comes_back(values: dict[str, str], keys: dict[str, str]) -> None:
    text = written(FILE, {**values, "keys": keys}, file=Path("preflexor.toml"))
    assert tomllib.loads(text) == tomllib.loads(FILE) | values | {"keys": keys}
