"""EPUB books: the chapters in the order of the spine, by way of HTML."""

import posixpath
import zipfile
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading import archive, html, xml
from preflexor_agents.store.reading.blocks import Blocks
from preflexor_agents.store.reading.decoding import decoded
from preflexor_agents.store.reading.parsed import Parsed, iso_date, names, one_line

MIME_TYPE = b"application/epub+zip"
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_CHAPTERS = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml"})


def parse(data: bytes, name: str) -> Parsed:
    """An EPUB file."""
    with archive.opened(data) as book:
        known = set(book.namelist())
        if "mimetype" not in known or archive.entry(book, "mimetype").strip() != MIME_TYPE:
            raise DocumentError("is no EPUB: its mimetype is not application/epub+zip; download it again")
        if _ENCRYPTION in known:
            _refuse_protected(xml.root(archive.entry(book, _ENCRYPTION)))
        place, package = _package(book)
        blocks = Blocks()
        for path in _spine(package, posixpath.dirname(place)):
            html.write(html.parsed_tree(decoded(archive.entry(book, path)).text), blocks)
    fields = {tag: _fields(package, tag) for tag in ("title", "creator", "date")}
    return Parsed(
        text=blocks.text(),
        headings=blocks.headings,
        title=next(iter(fields["title"]), ""),
        authors=names(fields["creator"]),
        published=iso_date(next(iter(fields["date"]), None)),
        pages=blocks.pages(),
    )


def _refuse_protected(encryption: Element) -> None:
    for element in encryption.iter("EncryptionMethod"):
        if element.get("Algorithm") not in _FONT_OBFUSCATION:
            raise DocumentError("is protected against copying (DRM); its text cannot be read")


def _package(book: zipfile.ZipFile) -> tuple[str, Element]:
    """The package document, which says what is in the book, and its path."""
    container = xml.root(archive.entry(book, _CONTAINER))
    path = next((element.get("full-path", "") for element in container.iter("rootfile")), "")
    return path, xml.root(archive.entry(book, path))


def _spine(package: Element, folder: str) -> list[str]:
    """Paths of the chapters in reading order, the table of contents left out."""
    items = {item.get("id", ""): item for item in package.iter("item")}
    found = []
    for reference in package.iter("itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None or item.get("media-type") not in _CHAPTERS or "nav" in item.get("properties", "").split():
            continue
        found.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    if not found:
        raise DocumentError("has no chapters; download it again")
    return list(dict.fromkeys(found))


def _fields(package: Element, tag: str) -> list[str]:
    return [line for line in (one_line(element.text or "") for element in package.findall(f"metadata/{tag}")) if line]
