"""Which files an ingest takes."""

import os
from pathlib import Path

import pytest

from preflexor_agents.store.documents import Reader, read
from preflexor_agents.store.reading.finding import find
from tests.store import files


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ["a.pdf", "b.md", "x/c.pdf", "x/y/d.pdf", "x/y/e.html", "x/.h/f.pdf", ".g.pdf", "x/z.jpg", "p.d/q.md"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("text", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(tree: Path, *named: str) -> tuple[list[str], list[str]]:
    failed: list[str] = []
    return [os.path.relpath(path, tree) for path in find([Path(name) for name in named], failed)], failed


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.pdf", ["a.pdf"]),
        ("**/*.pdf", ["a.pdf", "x/c.pdf", "x/y/d.pdf"]),
        ("x/**/*.pdf", ["x/c.pdf", "x/y/d.pdf"]),
        ("x/*/[de].*", ["x/y/d.pdf", "x/y/e.html"]),
        ("?/c.pdf", ["x/c.pdf"]),
        ("x/*", ["x/c.pdf", "x/y/d.pdf", "x/y/e.html"]),
        ("**", ["a.pdf", "b.md", "p.d/q.md", "x/c.pdf", "x/y/d.pdf", "x/y/e.html"]),
        ("x/*.jpg", ["x/z.jpg"]),
        ("p.*", ["p.d/q.md"]),
    ],
)
def test_a_pattern_in_quotes_is_expanded(tree: Path, pattern: str, names: list[str]) -> None:
    assert found(tree, pattern) == (names, [])
    assert found(tree, str(tree / pattern)) == (names, [])


@pytest.mark.parametrize("pattern", ["*.docx", "nowhere/**/*.pdf", "x/**/q/*", "["])
def test_a_pattern_that_fits_nothing_is_said(tree: Path, pattern: str) -> None:
    names, failed = found(tree, pattern)
    assert names == [] and len(failed) == 1 and "has no documents that can be read" in failed[0]


def test_a_name_that_looks_like_a_pattern_is_taken_as_it_is(tree: Path) -> None:
    (tree / "[a].md").write_text("text", encoding="utf-8")
    assert found(tree, "[a].md") == (["[a].md"], [])


def test_links_in_a_circle_end_a_pattern(tree: Path) -> None:
    (tree / "x" / "up").symlink_to(tree)
    (tree / "x" / "self").symlink_to(tree / "x")
    assert found(tree, "**/*.pdf")[0] == ["a.pdf", "x/c.pdf", "x/y/d.pdf"]


def test_xml_in_a_folder_is_taken_if_it_is_an_article(tree: Path) -> None:
    (tree / "article.xml").write_text(files.JATS, encoding="utf-8")
    (tree / "pom.xml").write_text("<project/>", encoding="utf-8")
    names, _ = found(tree, ".")
    assert "article.xml" in names and "pom.xml" not in names
    assert found(tree, "pom.xml") == (["pom.xml"], [])


def test_what_programs_put_there_is_left_out(tree: Path) -> None:
    for name in ["node_modules/a.md", "venv/pyvenv.cfg", "venv/b.md", "src/__pycache__/c.py", "src/d.py"]:
        path = tree / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("text", encoding="utf-8")
    assert [name for name in found(tree, ".")[0] if name.split("/")[0] in ("node_modules", "venv", "src")] == [
        "src/d.py"
    ]


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("paper", files.pdf([["text"]]), "pdf"),
        ("paper.txt", files.pdf([["text"]]), "pdf"),
        ("paper.pdf", b"<!DOCTYPE html>\n<html><p>Log in", "pdf"),
        ("page", b"<?xml version='1.0'?>\n<!-- saved -->\n<html><body>text", "html"),
        ("article", files.JATS.encode(), "jats"),
        ("book.bin", files.epub(), "epub"),
        ("letter.bin", files.docx([("", "x")]), "docx"),
        ("README", b"# Not known as Markdown", "text"),
        ("a.py", b"x = 1", "code"),
        ("a.MD", b"<html>", "markdown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_format_is_told_by_suffix_and_content(tmp_path: Path, name: str, data: bytes, form: str) -> None:
    (tmp_path / name).write_bytes(data)
    with Reader() as reader:
        assert reader.open(tmp_path / name).format.name == form


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pdf", files.pdf([["Nacre is tough."]])),
        ("a.docx", files.docx([("", "Nacre is tough.")])),
        ("a.epub", files.epub()),
        ("a.xml", files.JATS.encode()),
        ("a.html", b"<p>Nacre is tough."),
        ("a.py", b"nacre = 'tough'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_is_read_the_same_each_time(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    first, second = read(tmp_path / name), read(tmp_path / name)
    assert first == second and "nacre" in first.text.lower() and first.chunks
