"""Parsers that hang, crash, eat memory or are not there at all."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from preflexor_agents.errors import DocumentError
from preflexor_agents.store import Store
from preflexor_agents.store.documents import Reader
from preflexor_agents.store.reading import formats
from preflexor_agents.store.reading.sandbox import Sandbox
from tests.store import files
from tests.store.checking import assert_sound


def entry(target: str, name: str = "shout") -> EntryPoint:
    return EntryPoint(name, f"tests.store.plugged:{target}", formats.GROUP)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as opened:
        yield opened


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that are installed."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(formats, "plug_ins", lambda: found)
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("CRASH", r"broke the shout parser \(ended by signal 6\)"),
        ("RAISE", r"broke the shout parser \(KeyError: 'a.shout'\)"),
        ("EAT", "needs more than 2048 MiB to parse as shout"),
        ("EXIT", r"broke the shout parser \(exit status 3\)"),
        ("WRONG", r"broke the shout parser \(TypeError: parse gave str, not Parsed\)"),
    ],
)
def test_a_parser_that_fails_costs_one_line_and_the_next_file_is_read(sandbox: Sandbox, words: str, said: str) -> None:
    form = sandbox.describe(entry("Shouted"))
    with pytest.raises(DocumentError, match=said) as caught:
        sandbox.parse(form, words.encode(), "a.shout")
    assert "\n" not in str(caught.value)
    assert sandbox.parse(form, b"NACRE", "b.shout").text == "nacre"


def test_a_parser_that_hangs_is_stopped(sandbox: Sandbox) -> None:
    form = sandbox.describe(entry("Hasty"))
    with pytest.raises(DocumentError, match=r"took longer than 0.3 s to parse as shout"):
        sandbox.parse(form, b"HANG", "a.shout")


def test_a_pdf_that_crashes_one_library_is_read_with_the_other(sandbox: Sandbox) -> None:
    crashing = replace(formats.built_in()["pdf"], target="tests.store.plugged:crash")
    assert sandbox.parse(crashing, files.pdf([["Nacre is tough."]]), "a.pdf").text == "Nacre is tough."
    with pytest.raises(DocumentError, match="is no PDF, or a broken one"):
        sandbox.parse(crashing, b"%PDF-", "b.pdf")


def test_what_a_parser_prints_is_no_reply(sandbox: Sandbox) -> None:
    assert sandbox.parse(sandbox.describe(entry("Shouted")), b"PRINT", "a.shout").text == "print"


def test_one_process_parses_many_files(sandbox: Sandbox) -> None:
    form = formats.built_in()["html"]
    texts = [sandbox.parse(form, f"<p>{n}".encode(), "a.html").text for n in range(200)]
    assert texts == [str(n) for n in range(200)] and sandbox._served == 200


def test_a_worn_process_is_replaced_before_a_file_is_given_up(sandbox: Sandbox) -> None:
    form = formats.built_in()["html"]
    sandbox.parse(form, b"<p>one", "a.html")
    assert sandbox._process is not None
    sandbox._process.kill()
    assert sandbox.parse(form, b"<p>two", "b.html").text == "two"


def test_a_folder_full_of_modules_cannot_slip_code_in(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "selectolax.py").write_text("raise SystemExit(9)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert sandbox.parse(formats.built_in()["html"], b"<p>text", "a.html").text == "text"


def test_the_process_loads_no_heavy_library(sandbox: Sandbox) -> None:
    sandbox.parse(formats.built_in()["pdf"], files.pdf([["text"]]), "a.pdf")
    assert sandbox._process is not None
    maps = Path(f"/proc/{sandbox._process.pid}/maps")
    if not maps.exists():
        pytest.skip("the system does not show what a process has loaded")
    loaded = maps.read_text(encoding="utf-8")
    assert "pdfium" in loaded and not any(name in loaded for name in ("torch", "llama", "numpy"))


def test_a_plug_in_reads_its_files(store: Store, tmp_path: Path, plugged: list[EntryPoint]) -> None:
    plugged.append(entry("Shouted"))
    (tmp_path / "a.shout").write_text("# NACRE\n\nTOUGH", encoding="utf-8")
    (tmp_path / "b.shout").write_text("RAISE", encoding="utf-8")
    report = store.ingest([tmp_path])
    assert report.added == 1 and len(report.failed) == 1 and "b.shout broke the shout parser" in report.failed[0]
    assert store.search("tough")[0].text == "# nacre\n\ntough"
    assert_sound(store.path)


def test_a_plug_in_takes_a_suffix_from_a_built_in_format(tmp_path: Path, plugged: list[EntryPoint]) -> None:
    plugged.append(entry("Shouted"))
    (tmp_path / "a.shout").write_bytes(files.pdf([["text"]]))
    with Reader() as reader:
        assert reader.open(tmp_path / "a.shout").format.parser.startswith("shout/1.")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("Nameless", "ValueError: suffixes are ''"),
        ("Missing", "AttributeError: module 'tests.store.plugged' has no attribute 'Missing'"),
        ("gone.py:x", "No module named 'gone"),
    ],
)
def test_a_broken_plug_in_is_one_line_and_the_rest_is_read(
    store: Store, notes: Path, plugged: list[EntryPoint], target: str, said: str
) -> None:
    value = f"tests.store.plugged:{target}" if ":" not in target else target
    plugged.append(EntryPoint("shout", value, formats.GROUP))
    report = store.ingest([notes])
    assert report.added == 3 and report.failed == () and len(report.notes) == 1
    assert said in report.notes[0] and "update or uninstall it" in report.notes[0] and "\n" not in report.notes[0]
