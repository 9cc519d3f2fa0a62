"""What the files of the project must look like, whatever they do."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import preflexor_agents

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("preflexor_agents/", "training/", "quantize/", "tui/", "scripts/")
MOST_LINES = 400
# Written so that no pattern finds itself.
MACHINE_PATHS = re.compile(r"(?<![\w.~:/])/(?:home|root|Users|work|opt|mnt|tmp)/[\w.-]+")
LEFTOVERS = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b|\bissues? #?[0-9]|<{7} |>{7} ")


def tracked() -> list[Path]:
    """Files under version control, or a skip outside of it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    """Name and content of every tracked text file; a file with NUL bytes is none."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path.relative_to(ROOT).as_posix(), data.decode("utf-8")))
    assert len(found) > 20
    return found


def hits(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def modules() -> list[tuple[str, str]]:
    return [(name, text) for name, text in texts() if name.endswith(".py")]


def too_long(name: str, text: str) -> bool:
    """Tests may be longer: they are read one by one."""
    return name.startswith(PACKAGES) and len(text.splitlines()) >= MOST_LINES


def test_the_patterns_find_what_they_are_for() -> None:
    assert MACHINE_PATHS.search("see " + "/home" + "/ann/papers")
    assert LEFTOVERS.search("# TO" + "DO: later") and LEFTOVERS.search("see issue" + " 12")


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    assert hits(MACHINE_PATHS) == []


def test_no_file_holds_leftovers() -> None:
    assert hits(LEFTOVERS) == []


def test_text_files_end_with_one_line_end_and_use_unix_ones() -> None:
    bad = [n for n, t in texts() if t and (not t.endswith("\n") or t.endswith("\n\n") or "\r\n" in t)]
    assert bad == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [n for n, t in modules() if n.startswith(PACKAGES) and t.strip() and not ast.get_docstring(ast.parse(t))]
    assert silent == []


def test_modules_stay_small() -> None:
    assert [f"{n}: {len(t.splitlines())}" for n, t in modules() if too_long(n, t)] == []


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert headings[0] == preflexor_agents.__version__


def test_constraints_pin_every_line_to_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin)] == []
    assert "torch==2.13.0" in pins
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)
