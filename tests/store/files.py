"""Small documents of every format, made for the tests."""

import io
import zipfile
from collections.abc import Mapping, Sequence


def pdf(pages: Sequence[Sequence[str]], *, info: Mapping[str, str] | None = None, sizes: Sequence[int] = ()) -> bytes:
    """A PDF with a line of text for each string; `sizes` are the font sizes of the first page's lines."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, lines in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        parts, at = ["BT"], 750
        for n, line in enumerate(lines):
            size = sizes[n] if number == 0 and n < len(sizes) else 11
            words = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            parts.append(f"/F1 {size} Tf 1 0 0 1 50 {at} Tm ({words}) Tj")
            at -= size + 4
        stream = " ".join([*parts, "ET"])
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    fields = " ".join(f"/{key} ({value})" for key, value in (info or {}).items())
    objects.append(f"<< {fields} >>")
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    )
    return (out + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}").encode("latin-1")


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(paragraphs: Sequence[tuple[str, str]], *, core: str = "", before: str = "") -> bytes:
    """A Word document: pairs of a style's name, or nothing, and a text. `before` goes into the XML's prologue."""
    styles = {style for style, _ in paragraphs if style}
    body = "".join(
        f"<w:p>{f'<w:pPr><w:pStyle w:val={style.replace(chr(32), str())!r}/></w:pPr>' if style else ''}"
        f"<w:r><w:t>{text}</w:t></w:r></w:p>"
        for style, text in paragraphs
    )
    named = "".join(
        f'<w:style w:type="paragraph" w:styleId="{style.replace(" ", "")}"><w:name w:val="{style}"/></w:style>'
        for style in sorted(styles)
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types"/>',
            "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r2" '
            f'Type="{office}/styles" Target="styles.xml"/></Relationships>',
            "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{named}</w:styles>',
            "word/document.xml": f'{before}<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
            "docProps/core.xml": f"<coreProperties>{core}</coreProperties>",
        }
    )


_PACKAGE = """<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The Sea</dc:title>
<dc:creator>Ann Lee</dc:creator><dc:creator>Bo Day</dc:creator><dc:date>2011-05-01</dc:date></metadata><manifest>
<item id="two" href="b%20two.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="one.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest>
<spine><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/></spine></package>"""


def epub(**changes: str | None) -> bytes:
    """A book with two chapters and printed pages 7 and 8; `changes` replace entries, None takes one out."""
    parts: dict[str, str | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        "OPS/book.opf": _PACKAGE,
        "OPS/nav.xhtml": "<html><body><ol><li>Contents</li></ol></body></html>",
        "OPS/one.xhtml": '<html><head><title/><script src="a.js"/></head><body><span epub:type="pagebreak" title="7"/>'
        "<h1>Shells</h1><p>Nacre is tough.</p></body></html>",
        "OPS/b two.xhtml": '<html><body><h1>Fish</h1><p>Scales bend.</p><div role="doc-pagebreak" aria-label="8"/>'
        "<p>Teeth cut.</p></body></html>",
    }
    parts |= changes
    return zipped({name: data for name, data in parts.items() if data is not None})


JATS = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD Journal Publishing DTD v3.0 20080202//EN" "journalpublishing3.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
<title-group><article-title>Tough <italic>nacre</italic></article-title></title-group>
<contrib-group><contrib contrib-type="author">
<name><surname>Lee</surname><given-names>Ann B</given-names></name></contrib>
<contrib contrib-type="editor">
<name><surname>Day</surname><given-names>Bo</given-names></name></contrib></contrib-group>
<pub-date pub-type="collection"><year>2012</year></pub-date>
<pub-date pub-type="epub"><day>3</day><month>4</month><year>2012</year></pub-date>
<abstract><p>Shells do&nbsp;not break.</p></abstract></article-meta></front>
<body><sec><title>Methods</title><p>Beams of 10 mm<sup>2</sup> were bent<xref><sup>3</sup></xref>.
<fig><label>Figure 1</label><caption><title>A beam</title><p>It bends.</p></caption></fig></p>
<sec><title>Data</title><table-wrap><label>Table 1</label><caption><p>Strengths</p></caption>
<table><tr><th>shell</th><th>MPa</th></tr><tr><td>nacre</td><td>170</td></tr></table></table-wrap></sec></sec></body>
<back><ref-list><ref>Somebody 1999</ref></ref-list></back></article>"""
