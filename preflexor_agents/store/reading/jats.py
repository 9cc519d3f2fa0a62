"""JATS, the XML in which journals give their articles: title, authors, date, abstract, sections, captions, tables."""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading import mathml, xml
from preflexor_agents.store.reading.blocks import Blocks, raised
from preflexor_agents.store.reading.parsed import Parsed, date, names, one_line

_ABSTRACTS = {"summary": "Author summary", "editors-summary": "Editors' summary", "toc": "In short", "": "Abstract"}
_DATES = ("epub", "pub", "ppub", "collection")
"""Kinds of publication dates, the one that counts first."""
_LEFT_OUT = frozenset(
    re.findall(
        r"\S+",
        """ref-list graphic inline-graphic media object-id label custom-meta-group permissions tex-math fn-group
        glossary inline-supplementary-material alternatives-graphic annotation""",
    )
)
_CONTAINERS = frozenset(
    re.findall(
        r"\S+",
        """body sec abstract trans-abstract back app app-group ack boxed-text disp-quote fig-group list list-item
        def-list def-item def statement table-wrap-group floats-group notes caption bio sec-meta
        verse-group speech disp-formula-group table-wrap-foot fn sub-article response front-stub""",
    )
)
_BLOCKS = frozenset({"p", "disp-formula", "preformat", "code", "title", "attrib", "verse-line", "term", "speaker"})
_MAX_DEPTH = 200


def parse(data: bytes, name: str) -> Parsed:
    """A JATS file."""
    article = xml.root(data)
    if article.tag != "article":
        article = next(article.iter("article"), article)
    meta = article.find("front/article-meta")
    if article.tag != "article" or meta is None:
        raise DocumentError("is XML, but no JATS article; convert it to text, Markdown or HTML")
    blocks = Blocks()
    title = one_line(_words(meta.find("title-group/article-title")))
    blocks.heading(1, title)
    for abstract in meta.findall("abstract"):
        if abstract.find("title") is None:
            blocks.heading(2, _ABSTRACTS.get(abstract.get("abstract-type") or "", "Abstract"))
        _write(abstract, blocks, depth=2)
    for part in ("body", "floats-group", "back"):
        for element in article.findall(part):
            _write(element, blocks, depth=1)
    return Parsed(
        text=blocks.text(),
        headings=blocks.headings,
        title=title,
        authors=names(_authors(meta)),
        published=_published(meta),
    )


def _authors(meta: Element) -> Iterator[str]:
    for contributor in meta.findall("contrib-group/contrib"):
        if contributor.get("contrib-type", "author") != "author":
            continue
        person = contributor.find("name")
        if person is None:
            person = contributor.find("name-alternatives/name")
        if person is not None:
            yield " ".join(person.findtext(part, "") for part in ("given-names", "surname", "suffix"))
        elif (group := contributor.find("collab")) is not None:
            yield _words(group, without=frozenset({"contrib-group"}))


def _published(meta: Element) -> str | None:
    """The date on which the article appeared; of several kinds the electronic one."""
    found: dict[str, str] = {}
    for element in meta.findall("pub-date"):
        kind = element.get("pub-type") or element.get("date-type") or "pub"
        day = date(*(element.findtext(part) for part in ("year", "month", "day")))
        if day:
            found.setdefault(kind, day)
    return next((found[kind] for kind in _DATES if kind in found), next(iter(found.values()), None))


def _write(element: Element, blocks: Blocks, *, depth: int) -> None:
    """Write what stands under an element; `depth` is the level of the headings around it."""
    if depth > _MAX_DEPTH:
        raise DocumentError(f"nests its sections deeper than {_MAX_DEPTH}; convert it to text, Markdown or HTML")
    for child in element:
        tag = child.tag
        if not isinstance(tag, str) or tag in _LEFT_OUT:
            continue
        if tag == "title":
            blocks.heading(min(depth, 6), _numbered(element, _words(child)))
        elif tag in ("fig", "table-wrap", "supplementary-material"):
            _write_figure(child, blocks)
        elif tag == "p":
            _write_paragraph(child, blocks, lead="- " if element.tag == "list-item" else "", depth=depth)
        elif tag in _BLOCKS:
            blocks.paragraph(one_line(_words(child)))
        elif tag == "table":
            _write_table(child, blocks)
        elif tag in _CONTAINERS:
            if tag == "ack" and child.find("title") is None:
                blocks.heading(min(depth + 1, 6), "Acknowledgments")
            _write(child, blocks, depth=depth + (tag in ("sec", "app", "ack", "boxed-text")))


def _numbered(section: Element, title: str) -> str:
    number = one_line(_words(section.find("label"), without=frozenset()))
    return f"{number} {title}" if number else title


def _write_paragraph(element: Element, blocks: Blocks, *, lead: str, depth: int) -> None:
    """A paragraph; figures, tables and lists inside of it come after it."""
    inside = frozenset({"fig", "table-wrap", "list", "def-list", "boxed-text", "disp-quote", "supplementary-material"})
    blocks.paragraph(one_line(_words(element, without=inside)), lead=lead, close=bool(lead))
    if any(child.tag in inside for child in element):
        kept = Element("p")
        kept.extend(child for child in element if child.tag in inside)
        _write(kept, blocks, depth=depth + 1)


def _write_figure(element: Element, blocks: Blocks) -> None:
    """Label and caption of a figure, a table or an attachment in one paragraph, then the table's rows."""
    label = one_line(_words(element.find("label"), without=frozenset()))
    parts = [one_line(_words(part)) for part in element.findall("caption/*")]
    caption = " ".join(part if part[-1:] in ".!?:" else f"{part}." for part in (label, *parts) if part)
    blocks.paragraph(caption)
    for table in element.iter():
        if isinstance(table.tag, str) and table.tag.lower() == "table":
            _write_table(table, blocks)
    for note in element.findall("table-wrap-foot//p"):
        blocks.paragraph(one_line(_words(note)))


def _write_table(table: Element, blocks: Blocks) -> None:
    is_first = True
    for row in table.iter():
        if not isinstance(row.tag, str) or row.tag.lower() != "tr":
            continue
        cells = [one_line(_words(cell)) for cell in row]
        if any(cells):
            blocks.paragraph(" | ".join(cells), close=not is_first)
            is_first = False


def _words(element: Element | None, *, without: frozenset[str] = _LEFT_OUT) -> str:
    """The text in an element; exponents get a `^`."""
    if element is None:
        return ""
    out = [element.text or ""]
    pending: list[Element | str | int] = list(_reversed(element))
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, int):
            before = "".join(out[max(0, item - 3) : item])
            out[item:] = [raised(before, "".join(out[item:]))]
        else:
            pending.append(item.tail or "")
            if not isinstance(item.tag, str) or item.tag in without or item.tag in _LEFT_OUT:
                continue
            if item.tag == "math":
                out.append(mathml.text(item))
                continue
            if item.tag == "sup" and item.find("xref") is None:
                pending.append(len(out))
            pending.extend(_reversed(item))
            pending.append(item.text or "")
            if item.tag in ("break", "p", "title"):
                out.append(" ")
    return "".join(out)


def _reversed(element: Element) -> list[Element]:
    return list(element)[::-1]
