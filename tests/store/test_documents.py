"""Reading documents from disk, friendly and hostile ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.errors import DocumentError
from preflexor_agents.store import documents
from preflexor_agents.store.documents import Document, Reader, read
from preflexor_agents.store.reading.finding import find


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def texts(document: Document) -> list[str]:
    return [document.text[c.start : c.end] for c in document.chunks]


def found(folder: Path, *named: Path) -> tuple[list[str], list[str]]:
    failed: list[str] = []
    files = find(named or [folder], failed)
    return [os.path.relpath(file, folder.resolve()) for file in files], failed


def test_the_title_is_the_first_heading_of_level_one(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.md", "## Sub\n\n# Nacre *shell*\n\ntext\n")).title == "Nacre shell"


def test_the_title_may_come_from_the_front_matter(tmp_path: Path) -> None:
    assert read(written(tmp_path / "m1.md", '---\ntitle: "Carbohydrates"\n---\n\ntext\n')).title == "Carbohydrates"


@pytest.mark.parametrize("name", ["spider silk.md", "spider silk.txt"])
def test_without_a_heading_the_title_is_the_files_name(tmp_path: Path, name: str) -> None:
    assert read(written(tmp_path / name, "plain text\n")).title == "spider silk"


def test_text_is_kept_as_it_is_line_ends_included(tmp_path: Path) -> None:
    text = "# A\r\n\r\nÅngström\tline\r\nnext <|/thinking|> \x0c page\r\n"
    document = read(written(tmp_path / "a.md", text))
    assert document.text == text
    assert texts(document) == [text.strip()]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Å\n".encode(), "utf-8"),
        ("\ufeffÅ\n".encode(), "utf-8"),
        ("Å\n".encode("utf-16"), "utf-16-le"),
        (b"\xfe\xff" + "Å\n".encode("utf-16-be"), "utf-16-be"),
        ("Å\n".encode("utf-32"), "utf-32-le"),
        ("Å\n".encode("latin-1"), "cp1252"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, data: bytes, encoding: str) -> None:
    document = read(written(tmp_path / "a.txt", data))
    assert (document.text, document.encoding) == ("Å\n", encoding)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        ("\u00a0\u2003\n".encode(), "has no text"),
        (b"---\ntitle: x\n---\n", "has no text"),
        (b"\x7fELF\x02\x01\x01\x00\x00\x00", "is binary"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n1 0 obj\x00", "is no PDF, or a broken one"),
        (b"\x1f\x8b\x08\xff\xfe\x01\x02\x03\x04", "is binary"),
        (b"\x01\x02\x03\x04 text", "is binary"),
        (b"caf\xe9 \x81\x8d", "neither UTF-8 nor Windows-1252"),
        ("text without a mark".encode("utf-16-le"), "is binary"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        read(written(tmp_path / "bad\nname.md", data))
    assert str(caught.value).startswith(f"{tmp_path}/bad\\nname.md ") and "\n" not in str(caught.value)


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    with pytest.raises(DocumentError, match="is no regular file"):
        read(tmp_path / "pipe.md")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(documents.MAX_FILE_BYTES + 1)
    with pytest.raises(DocumentError, match="split it"):
        read(tmp_path / "huge.txt")


def test_folders_are_searched_by_suffix_hidden_names_left_out(tmp_path: Path) -> None:
    for name in ["b.md", "a.TXT", "c.markdown", "d.jpg", ".hidden.md", "sub/e.md", ".git/f.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, "x")
    assert found(tmp_path) == (["a.TXT", "b.md", "c.markdown", "sub/e.md"], [])


def test_a_file_named_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    assert found(tmp_path, written(tmp_path / "README", "x")) == (["README"], [])


def test_what_is_given_twice_is_taken_once(tmp_path: Path) -> None:
    file = written(tmp_path / "a.md", "x")
    (tmp_path / "link.md").symlink_to(file)
    assert found(tmp_path, tmp_path, file, tmp_path / ".." / tmp_path.name / "a.md") == (["a.md"], [])


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub" / "a.md", "x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    files, failed = found(tmp_path)
    assert files == ["self.md", "sub/a.md"] and failed == []
    with pytest.raises(DocumentError, match="cannot be read"):
        read(tmp_path / "self.md")


@pytest.mark.parametrize("name", ["missing.md", "self.md", "a\0b.md"])
def test_what_is_named_and_cannot_be_used_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    files, failed = found(tmp_path, tmp_path / name)
    assert files == [] and len(failed) == 1
    assert "cannot be read: " in failed[0] and "\n" not in failed[0] and "\0" not in failed[0]


def test_a_folder_without_documents_is_said(tmp_path: Path) -> None:
    names, failed = found(tmp_path)
    assert names == [] and [line.partition(";")[0] for line in failed] == [
        f"{tmp_path} has no documents that can be read"
    ]


def test_a_name_that_is_not_utf8_can_be_stored_and_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    document = read(written(path, "x"))
    assert document.source == f"{tmp_path}/caf\\xe9.txt" and document.title == "caf\\xe9"


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as opened:
        yield opened


BEGINNINGS = (b"", b"%PDF-1.4\n", b"PK\x03\x04", b"<html>", b"<article>", b"\xff\xfe", b"---\n")


@pytest.mark.parametrize("suffix", ["md", "py", "bin"])
@given(data=st.tuples(st.sampled_from(BEGINNINGS), st.binary(max_size=300)).map(b"".join))
@settings(max_examples=40, deadline=None)
def test_no_bytes_are_more_than_a_document_error(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, suffix: str, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    try:
        document = reader.parse(reader.open(written(file, data)))
    except DocumentError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)
    else:
        assert all(text.strip() for text in texts(document))
