"""HTML, and the HTML inside of other formats: text with headings, without what only serves the page."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from preflexor_agents.store.reading.blocks import Blocks, raised
from preflexor_agents.store.reading.decoding import decoded
from preflexor_agents.store.reading.parsed import Parsed, iso_date, names, one_line

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

_LEFT_OUT = frozenset(
    re.findall(
        r"\S+",
        """script style template noscript svg canvas iframe object audio video map nav footer aside button select
        textarea input datalist dialog head title link meta annotation annotation-xml""",
    )
)
_BLOCKS = frozenset(
    re.findall(
        r"\S+",
        """address article blockquote body caption center dd details div dl dt fieldset figcaption figure form header
    hgroup hr html legend li main menu ol p section summary table tbody td tfoot th thead tr ul""",
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol"})
_CELLS = frozenset({"td", "th"})
_EMPTY_TAG = re.compile(
    r"<(script|style|title|textarea|iframe|noscript|a|span|div|p|i|b|em)\b([^<>]*)/>", re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_CHARSET_WITHIN_BYTES = 4096
_TITLES = ("citation_title", "dc.title", "og:title", "twitter:title")
_AUTHORS = ("citation_author", "dc.creator", "dcterms.creator", "author", "article:author")
_DATES = (
    *("citation_publication_date", "citation_date", "citation_online_date", "article:published_time"),
    *("dc.date", "dcterms.issued", "datepublished", "date"),
)


def parse(data: bytes, name: str) -> Parsed:
    """An HTML file."""
    text, encoding = _decoded(data)
    tree = parsed_tree(text)
    blocks = Blocks()
    write(tree, blocks)
    known = _metadata(tree)
    title = next((known[key][0] for key in _TITLES if key in known), "") or _title(tree, blocks)
    return Parsed(
        text=blocks.text(),
        headings=blocks.headings,
        title=title,
        authors=names(next((known[key] for key in _AUTHORS if key in known), [])),
        published=iso_date(next((known[key][0] for key in _DATES if key in known), None)),
        pages=blocks.pages(),
        encoding=encoding,
    )


def parsed_tree(text: str) -> "LexborHTMLParser":
    """The document tree; tags that XHTML closes at once are closed for HTML too, where they would swallow the rest."""
    from selectolax.lexbor import LexborHTMLParser

    return LexborHTMLParser(_EMPTY_TAG.sub(r"<\1\2></\1>", text))


def write(tree: "LexborHTMLParser", blocks: Blocks) -> None:
    """Write what the document says: its `main` part where it has one, else its body."""
    mains = tree.css("main, [role=main]")
    root = mains[0] if len(mains) == 1 else tree.body
    if root is not None:
        _Walk(blocks).through(root)


def _decoded(data: bytes) -> tuple[str, str]:
    """By byte order mark, UTF-8, or what the document says of itself."""
    said = _CHARSET.search(data, 0, _CHARSET_WITHIN_BYTES)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        if said:
            try:
                return data.decode(said[1].decode("ascii")), said[1].decode("ascii").lower()
            except (LookupError, UnicodeDecodeError):
                pass
    return decoded(data)


def _metadata(tree: "LexborHTMLParser") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in tree.css("meta[content]"):
        attributes = node.attributes
        key = attributes.get("name") or attributes.get("property") or attributes.get("itemprop") or ""
        value = one_line(attributes.get("content") or "")
        if key and value:
            found.setdefault(key.lower(), []).append(value)
    return found


def _title(tree: "LexborHTMLParser", blocks: Blocks) -> str:
    """The only heading of level 1, else the title of the window, else the first heading."""
    tops = [heading.text for heading in blocks.headings if heading.level == 1]
    node = tree.css_first("title")
    window = one_line(node.text()) if node is not None else ""
    return tops[0] if len(tops) == 1 else window or (tops[0] if tops else "")


class _Walk:
    """One pass over a tree, without recursion: a page may nest deeper than any stack."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._line: list[str] = []
        self._raises: list[int] = []
        """Where in the line the superscripts begin that are not yet closed."""
        self._kept = 0
        """Depth inside of `pre`, where white space counts."""
        self._lists = 0
        """Lists that are open."""
        self._lead = ""
        self._close = False
        self._cells: list[str] | None = None

    def through(self, root: "LexborNode") -> None:
        """Write everything under the root."""
        for node, is_end in _steps(root):
            tag = node.tag or ""
            if tag == "-text":
                if not is_end:
                    self._text(node.text_content or "")
            elif is_end:
                self._leave(tag)
            else:
                self._enter(tag, node)
        self._flush()

    def _text(self, words: str) -> None:
        self._line.append(words if self._kept else re.sub(r"\s+", " ", words))

    def _enter(self, tag: str, node: "LexborNode") -> None:
        if tag == "br":
            self._line.append("\n")
        elif tag == "sup":
            self._raises.append(len(self._line))
        elif tag == "tr":
            self._flush()
            self._cells = [] if _is_data(node) else None
        elif tag in _BLOCKS or tag in _HEADINGS or tag == "pre":
            if tag not in _CELLS and self._cells is None:
                self._flush()
            elif self._cells is not None:
                self._line.append(" ")
            self._kept += tag == "pre"
            self._lists += tag in _LISTS
            if tag == "li":
                self._lead = "- "
        self._page(node)

    def _leave(self, tag: str) -> None:
        if tag in _HEADINGS and self._cells is None:
            words = self._taken()
            self._blocks.heading(_HEADINGS[tag], words)
        elif tag == "sup":
            self._raise()
        elif tag in _CELLS and self._cells is not None:
            self._cells.append(one_line(self._taken()))
        elif tag == "tr" and self._cells is not None:
            row = " | ".join(self._cells) if any(self._cells) else ""
            self._cells = None
            self._blocks.paragraph(row, close=self._close)
            self._close = True
        elif tag in _BLOCKS or tag == "pre":
            if self._cells is None:
                self._flush()
            self._kept -= tag == "pre"
            self._lists -= tag in _LISTS
            if tag == "table" or (tag in _LISTS and self._lists <= 0):
                self._close = False

    def _raise(self) -> None:
        if self._raises:
            at = self._raises.pop()
            words = "".join(self._line[at:])
            self._line[at:] = [raised("".join(self._line[max(0, at - 3) : at]), words)]

    def _page(self, node: "LexborNode") -> None:
        """EPUB marks where a printed page begins."""
        kind = f"{node.attributes.get('epub:type') or ''} {node.attributes.get('role') or ''}"
        if "pagebreak" in kind:
            number = re.search(r"\d+", node.attributes.get("title") or node.attributes.get("aria-label") or "")
            if number and len(number[0]) < 6:
                self._flush()
                self._blocks.page(int(number[0]))

    def _taken(self) -> str:
        words = "".join(self._line)
        self._line, self._raises = [], []
        return words

    def _flush(self) -> None:
        words = self._taken()
        if not self._kept:
            words = "\n".join(line.strip() for line in re.sub(r" {2,}", " ", words).split("\n"))
        if words.strip():
            is_item = bool(self._lead)
            self._blocks.paragraph(words.strip("\n"), lead=self._lead, close=is_item and self._close)
            self._close = is_item
            self._lead = ""


def _is_data(row: "LexborNode") -> bool:
    """Whether a table's row holds data, not a page that somebody laid out as a table."""
    cells = 0
    child = row.child
    while child is not None:
        cells += child.tag in _CELLS
        child = child.next
    return cells > 1 and row.css_first("table, h1, h2, h3, h4") is None


def _steps(root: "LexborNode") -> Iterator[tuple["LexborNode", bool]]:
    """Every node twice: when it begins and, True, when it ends; what is left out not at all."""
    node: LexborNode | None = root
    depth = 0
    while node is not None:
        is_out = (node.tag or "") in _LEFT_OUT or (node.is_element_node and "hidden" in node.attributes)
        if not is_out:
            yield node, False
        child = None if is_out else node.child
        if child is not None:
            node, depth = child, depth + 1
            continue
        if not is_out:
            yield node, True
        while depth and node is not None and node.next is None:
            node, depth = node.parent, depth - 1
            if node is not None:
                yield node, True
        node = node.next if depth and node is not None else None
