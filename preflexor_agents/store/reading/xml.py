"""XML that may be hostile: no entity is defined by the document itself, nothing outside of it is fetched."""

import html.entities
import re
from xml.etree import ElementTree as ET

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading.decoding import decoded

_ENTITY = re.compile(r"<!ENTITY", re.IGNORECASE)
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_DECLARED = re.compile(rb"<\?xml[^>]{0,200}encoding\s*=\s*[\"']([\w.:-]{2,40})[\"']")
_NAMESPACE = re.compile(r"\{[^}]*\}")


def root(data: bytes) -> ET.Element:
    """The document's root; names of characters as in HTML are known, tags are without their namespaces.

    Raises:
        DocumentError: it is no XML, or it defines entities, which can grow without bounds.
    """
    text = _decoded(data)
    if _ENTITY.search(text):
        raise DocumentError("defines XML entities, which can hide anything; take the definitions out")
    parser = ET.XMLParser()
    parser.entity.update({name.rstrip(";"): c for name, c in html.entities.html5.items()})
    try:
        parser.feed(_DECLARATION.sub("", text, count=1))
        found: ET.Element = parser.close()
    except ET.ParseError as error:
        raise DocumentError(f"is broken XML: {error}") from error
    for element in found.iter():
        if isinstance(element.tag, str):
            element.tag = _NAMESPACE.sub("", element.tag)
    return found


def attribute(element: ET.Element, name: str) -> str:
    """An attribute by its name without the namespace; empty if it is not there."""
    return next((value for key, value in element.items() if _NAMESPACE.sub("", key) == name), "")


def _decoded(data: bytes) -> str:
    said = _DECLARED.match(data.lstrip()[:400])
    try:
        return data.decode(said[1].decode("ascii")) if said else decoded(data).text
    except (LookupError, UnicodeDecodeError):
        return decoded(data).text
