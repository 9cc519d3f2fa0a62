"""Text from bytes: the encoding is found, binary data is refused."""

import codecs
import re
from typing import NamedTuple

from preflexor_agents.errors import DocumentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01


class Decoded(NamedTuple):
    """A text and the encoding it was in."""

    text: str
    encoding: str


def decoded(data: bytes) -> Decoded:
    """The text and its encoding: what the byte order mark says, else UTF-8, else Windows-1252.

    Raises:
        DocumentError: it is binary, or text in another encoding. Says what is wrong, without the file's name.
    """
    encoding, mark = next(((name, mark) for mark, name in _BOMS if data.startswith(mark)), ("utf-8", b""))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            raise DocumentError("is neither UTF-8 nor Windows-1252 text; convert it to UTF-8") from None
    controls = len(_CONTROL.findall(text))
    allowed = 0 if encoding == "cp1252" else 1 + int(len(text) * _MAX_CONTROL_SHARE)
    if "\0" in text or controls > allowed:
        raise DocumentError("is binary, no text in any format that can be read")
    return Decoded(text, encoding)
