"""What each format's text, headings and pages are."""

import pytest

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.chunks import Heading
from preflexor_agents.store.reading import code, docx, epub, html, jats, markdown, pdf
from preflexor_agents.store.reading.parsed import Parsed, check, from_json, iso_date, to_json
from tests.store import files

PARAGRAPH = [
    "Nacre is built of tablets that are stacked like bricks in a wall, and a crack has",
    "to turn at each one.",
]


def levels(parsed: Parsed) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in parsed.headings or ()]


def test_front_matter_tells_authors_and_date() -> None:
    block = "---\nauthors:\n  - Ann Lee\n  - 'Bo Day'\ndate: 2020-03-01T10:00\ntitle: Silk\n---\n\ntext\n"
    parsed = markdown.parse(block.encode(), "a.md")
    assert (parsed.title, parsed.authors, parsed.published) == ("Silk", ("Ann Lee", "Bo Day"), "2020-03-01")
    assert markdown.parse(b"---\nauthor: [A, B]\n---\ntext", "a.md").authors == ("A", "B")


def test_html_is_headings_paragraphs_lists_and_rows() -> None:
    page = """<html><head><title>T | Site</title></head><body><nav>menu</nav><h1>Nacre <em>shell</em></h1>
    <p>Area  5&nbsp;mm<sup>2</sup>, 10<sup>-9</sup> m, silk<sup>12</sup>.<br>Next.</p><ul><li>one<li><p>two</p></ul>
    <table><tr><th>a<th>b<tr><td>1<td><p>2</p></table><pre>x = 1\n  y = 2</pre><h2>End</h2>tail
    <script>bad()</script><p hidden>hid</p></body></html>"""
    parsed = html.parse(page.encode(), "a.html")
    assert parsed.text == (
        "# Nacre shell\n\nArea 5 mm^2, 10^-9 m, silk12.\nNext.\n\n- one\n- two\n\na | b\n1 | 2\n\nx = 1\n  y = 2\n\n"
        "## End\n\ntail"
    )
    assert levels(parsed) == [(1, "Nacre shell"), (2, "End")] and parsed.title == "Nacre shell"
    assert all(parsed.text[h.start : h.end] == f"{'#' * h.level} {h.text}" for h in parsed.headings or ())


def test_html_says_who_wrote_it_and_when() -> None:
    head = """<meta name="citation_author" content="Ann Lee"><meta name="citation_author" content="Bo Day">
    <meta name="citation_publication_date" content="2020/3/1"><meta property="og:title" content="Silk">"""
    parsed = html.parse(f"<html><head>{head}</head><body>text</body></html>".encode(), "a.html")
    assert (parsed.title, parsed.authors, parsed.published) == ("Silk", ("Ann Lee", "Bo Day"), "2020-03-01")


def test_html_in_its_own_encoding() -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body>\u0141\u00f3d\u017a</body></html>'
    assert html.parse(page.encode("iso-8859-2"), "a.html").text == "\u0141\u00f3d\u017a"


def test_a_line_that_looks_like_a_heading_is_none_in_html() -> None:
    parsed = html.parse(b"<p># of samples</p><p>Title</p><pre>Title\n=====</pre>", "a.html")
    assert parsed.headings == () and "# of samples" in parsed.text


def test_a_page_laid_out_as_a_table_keeps_its_headings() -> None:
    page = b"<table><tr><td>menu<td><h2>Silk</h2><p>Tough.</p></tr><tr><td><p>One.<p>Two.</table>"
    parsed = html.parse(page, "a.html")
    assert parsed.text == "menu\n\n## Silk\n\nTough.\n\nOne.\n\nTwo." and levels(parsed) == [(2, "Silk")]


def test_the_main_part_of_a_page_is_taken() -> None:
    assert html.parse(b"<div>shop</div><main><p>text</p></main><div>more</div>", "a.html").text == "text"


def test_pdf_pages_are_joined_and_known() -> None:
    parsed = pdf.parse(files.pdf([["First page.", *PARAGRAPH], [], ["Last page."]]), "a.pdf")
    check(parsed)
    assert parsed.text == f"First page.\n\n{' '.join(PARAGRAPH)}\n\nLast page."
    assert [(p.number, parsed.text[p.start : p.end].split("\n")[0]) for p in parsed.pages] == [
        (1, "First page."),
        (2, ""),
        (3, "Last page."),
    ]


def test_a_word_broken_at_the_end_of_a_line_is_whole() -> None:
    lines = [
        "Spider silk is a protein fibre with a remarkable tough-",
        "ness and a well-",
        "known strength; see well-known.",
    ]
    assert "toughness and a well-known strength" in pdf.parse(files.pdf([lines]), "a.pdf").text


def test_running_heads_are_kept_once() -> None:
    pages = [[f"Journal of Shells {n}", f"Words of page {chr(64 + n)} about nacre.", f"Page {n}"] for n in range(1, 7)]
    text = pdf.parse(files.pdf(pages), "a.pdf").text
    assert text.count("Journal of Shells") == 1 and text.count("Words of page") == 6


def test_the_pdfs_metadata_tell_title_authors_and_date() -> None:
    info = {"Title": "On Silk", "Author": "Ann Lee and Bo Day", "CreationDate": "D:20200301120000+01'00'"}
    parsed = pdf.parse(files.pdf([["text"]], info=info), "a.pdf")
    assert (parsed.title, parsed.authors, parsed.published) == ("On Silk", ("Ann Lee", "Bo Day"), "2020-03-01")


@pytest.mark.parametrize("made_up", ["Microsoft Word - draft3.docx", "untitled", "paper.dvi", ""])
def test_a_title_that_a_program_made_up_gives_way_to_the_largest_words(made_up: str) -> None:
    data = files.pdf(
        [["Journal 3 (2020)", "The toughness of nacre", *PARAGRAPH]], info={"Title": made_up}, sizes=[9, 20]
    )
    assert pdf.parse(data, "a.pdf").title == "The toughness of nacre"


@pytest.mark.parametrize(
    ("author", "names"),
    [("Lee, Ann", ("Lee, Ann",)), ("Ann Lee, Bo Day", ("Ann Lee", "Bo Day")), ("A; B; A", ("A", "B")), ("unknown", ())],
)
def test_authors_in_one_field_are_told_apart(author: str, names: tuple[str, ...]) -> None:
    assert pdf.parse(files.pdf([["text"]], info={"Author": author}), "a.pdf").authors == names


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (files.pdf([[], []]), "has no text layer; OCR it first"),
        (b"%PDF-1.4\n" + b"\x00garbage" * 50, "is no PDF, or a broken one"),
        (files.pdf([["text"]])[:200], "is no PDF, or a broken one"),
    ],
)
def test_a_pdf_without_text_says_what_to_do(data: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        pdf.parse(data, "a.pdf")


def test_word_documents_have_headings_and_fields() -> None:
    core = "<title>On Silk</title><creator>Ann Lee;Bo Day</creator><created>2020-03-01T00:00:00Z</created>"
    parsed = docx.parse(files.docx([("heading 1", "Silk"), ("", "It is tough."), ("heading 2", "Use")], core=core), "a")
    assert parsed.text == "# Silk\n\nIt is tough.\n\n## Use"
    assert (parsed.title, parsed.authors, parsed.published) == ("On Silk", ("Ann Lee", "Bo Day"), "2020-03-01")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (files.zipped({"a.txt": "x"}), "is a ZIP archive, but no DOCX or EPUB"),
        (files.docx([("", "x")])[:300], "is broken"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, "is encrypted or an old Office file"),
        (files.docx([("", "x")], before='<!DOCTYPE d [<!ENTITY a "aa">]>'), "defines XML entities"),
    ],
    ids=["zip", "cut", "old", "entities"],
)
def test_what_is_no_word_document_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        docx.parse(data, "a.docx")


def test_a_book_is_its_chapters_in_order_with_the_printed_pages() -> None:
    parsed = epub.parse(files.epub(), "a.epub")
    assert parsed.text == "# Shells\n\nNacre is tough.\n\n# Fish\n\nScales bend.\n\nTeeth cut."
    assert (parsed.title, parsed.authors, parsed.published) == ("The Sea", ("Ann Lee", "Bo Day"), "2011-05-01")
    assert [page.number for page in parsed.pages] == [7, 8]
    assert "Teeth cut." in parsed.text[parsed.pages[1].start :] and "Scales" not in parsed.text[parsed.pages[1].start :]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mimetype": "text/plain"}, "is no EPUB"),
        ({"OPS/one.xhtml": None}, "is broken: it has no OPS/one.xhtml"),
        ({"META-INF/container.xml": "<container"}, "is broken XML"),
        ({"META-INF/encryption.xml": '<e><EncryptionMethod Algorithm="aes"/></e>'}, "is protected against copying"),
        ({"OPS/book.opf": "<package/>"}, "has no chapters"),
    ],
)
def test_a_book_that_cannot_be_read_says_why(changes: dict[str, str | None], said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        epub.parse(files.epub(**changes), "a.epub")


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflexor_agents.store.reading.archive.MAX_UNPACKED_BYTES", 5000)
    with pytest.raises(DocumentError, match=r"unpacks to 1000\d+ bytes, more than 5000"):
        epub.parse(files.epub(**{"OPS/x": " " * 1_000_000}), "a.epub")


def test_articles_have_sections_captions_and_tables_but_no_references() -> None:
    parsed = jats.parse(files.JATS.encode(), "a.xml")
    assert parsed.text == (
        "# Tough nacre\n\n## Abstract\n\nShells do not break.\n\n## Methods\n\nBeams of 10 mm^2 were bent3.\n\n"
        "Figure 1. A beam. It bends.\n\n### Data\n\nTable 1. Strengths.\n\nshell | MPa\nnacre | 170"
    )
    assert levels(parsed) == [(1, "Tough nacre"), (2, "Abstract"), (2, "Methods"), (3, "Data")]
    assert (parsed.title, parsed.authors, parsed.published) == ("Tough nacre", ("Ann B Lee",), "2012-04-03")


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("<msub><mi>I</mi><mi>ss</mi></msub><mo>=</mo><mi>p</mi><mo>(</mo><mi>s</mi><mo>)</mo>", "I_ss = p(s)"),
        ("<mn>10</mn><mo>\u00d7</mo><msup><mn>10</mn><mrow><mo>\u2212</mo><mn>9</mn></mrow></msup>", "10 \u00d7 10^-9"),
        ("<mfrac><mn>1</mn><mrow><mi>r</mi><mo>!</mo></mrow></mfrac>", "1/(r!)"),
        ("<mover><mi>k</mi><mo>^</mo></mover>", "k"),
        ("<semantics><msqrt><mn>2</mn></msqrt><annotation>tex</annotation></semantics>", "sqrt(2)"),
        ("<mi>x</mi>" + "<mrow>" * 300 + "<mi>y</mi>" + "</mrow>" * 300, "x"),
    ],
)
def test_formulas_are_lines(formula: str, words: str) -> None:
    math = f'<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML">{formula}</mml:math>'
    article = files.JATS.replace("Shells do&nbsp;not break.", f"Here {math} holds.")
    assert f"Here {words} holds." in jats.parse(article.encode(), "a.xml").text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (files.JATS.replace('"journalpublishing3.dtd">', '"x" [<!ENTITY a "b">]>'), "defines XML entities"),
        ("<article><front>", "is broken XML"),
        ("<note><to>Ann</to></note>", "is XML, but no JATS article"),
        (files.JATS.replace("<p>Shells", "<p>&undefined;Shells"), "is broken XML: undefined entity"),
    ],
)
def test_what_is_no_article_is_refused(data: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        jats.parse(data.encode(), "a.xml")


def test_an_entity_bomb_is_refused_whatever_its_encoding() -> None:
    bomb = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><a>&b;</a>'
    with pytest.raises(DocumentError, match="defines XML entities"):
        jats.parse(bomb.encode("utf-16"), "a.xml")


def test_code_is_cut_at_definitions_with_what_stands_above_them() -> None:
    function = "# Adds.\n@cache\ndef add(a, b):\n    return a + b\n"
    text = f"import os\n\n\n{function}\n\nclass Sum:\n    def of(self):\n        pass\n"
    parsed = code.parse(text.encode(), "sum.py")
    assert parsed.text == text and parsed.title == "sum.py"
    assert levels(parsed) == [(3, "def add(a, b)"), (3, "class Sum"), (4, "def of(self)")]
    first = (parsed.headings or (Heading(0, 0, 0, ""),))[0]
    assert text[first.start : first.end] == "# Adds.\n@cache\ndef add(a, b):\n"


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("a.c", "static int add(int a, int b) {\n  return a;\n}\n", "static int add(int a, int b)"),
        ("a.rs", "pub(crate) async fn go() -> u8 {\n}\n", "pub(crate) async fn go() -> u8"),
        ("a.ts", "export default class Shell {\n}\n", "export default class Shell"),
        ("a.go", "func (s *S) Go() {\n}\n", "func (s *S) Go()"),
    ],
)
def test_definitions_are_known_in_many_languages(name: str, text: str, label: str) -> None:
    assert [words for _, words in levels(code.parse(text.encode(), name))] == [label]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2020-3-1", "2020-03-01"),
        ("2020/03", "2020-03"),
        ("D:20200301120000", "2020-03-01"),
        ("2020", "2020"),
        ("2020-13-40", "2020"),
        ("0000", None),
        ("spring", None),
        ("", None),
    ],
)
def test_dates_are_as_exact_as_they_are_known(text: str, day: str | None) -> None:
    assert iso_date(text) == day


def test_a_document_travels_between_processes_unchanged() -> None:
    for parsed in (epub.parse(files.epub(), "a.epub"), markdown.parse_text("\u00e9\U0001d6fc".encode(), "a.txt")):
        assert from_json(to_json(parsed)) == parsed


@pytest.mark.parametrize("field", ["[[1, 5, 9]]", "[[2, 0, 1], [1, 1, 2]]", "[[0, 0, 1]]", "[[1, 3, 2]]"])
def test_pages_outside_of_the_text_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="pages"):
        from_json(f'["text", null, 0, "", [], null, {field}, "utf-8"]'.encode())
