"""Word documents (DOCX), by way of HTML."""

import io
import re
import zipfile

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading import archive, html, xml
from preflexor_agents.store.reading.blocks import Blocks
from preflexor_agents.store.reading.parsed import Parsed, iso_date, names, one_line

_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"
_ENTITY = re.compile(rb"<!ENTITY", re.IGNORECASE)
_AUTHOR_GAP = re.compile(r"\s*;\s*")


def parse(data: bytes, name: str) -> Parsed:
    """A DOCX file."""
    import mammoth

    with archive.opened(data) as parts:
        known = set(parts.namelist())
        if "word/document.xml" not in known:
            raise DocumentError("is a ZIP archive, but no DOCX or EPUB; unpack it and ingest the folder")
        for part in known:
            if part.endswith((".xml", ".rels")) and _ENTITY.search(archive.entry(parts, part)):
                raise DocumentError("defines XML entities, which can hide anything; save it again with Word")
        fields = _fields(parts) if "docProps/core.xml" in known else {}
    image = mammoth.images.img_element(lambda image: {})
    made = mammoth.convert_to_html(io.BytesIO(data), style_map=_STYLES, convert_image=image)
    blocks = Blocks()
    html.write(html.parsed_tree(made.value), blocks)
    tops = [heading.text for heading in blocks.headings if heading.level == 1]
    return Parsed(
        text=blocks.text(),
        headings=blocks.headings,
        title=fields.get("title") or (tops[0] if tops else ""),
        authors=names(_AUTHOR_GAP.split(fields.get("creator", ""))),
        published=iso_date(fields.get("created")),
    )


def _fields(parts: zipfile.ZipFile) -> dict[str, str]:
    """Title, creator and date as Word keeps them."""
    core = xml.root(archive.entry(parts, "docProps/core.xml"))
    return {child.tag: one_line(child.text or "") for child in core}
