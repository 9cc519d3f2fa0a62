"""ZIP archives that may be hostile: how much comes out of them is limited."""

import io
import zipfile
import zlib

from preflexor_agents.errors import DocumentError

MAX_UNPACKED_BYTES = 400_000_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def opened(data: bytes) -> zipfile.ZipFile:
    """The archive.

    Raises:
        DocumentError: it is none, or what it says of its size is too much.
    """
    if data.startswith(_OLE):
        raise DocumentError("is encrypted or an old Office file; save it as DOCX without a password")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentError(f"is broken: {error}; save or download it again") from error
    size = sum(info.file_size for info in archive.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise DocumentError(f"unpacks to {size} bytes, more than {MAX_UNPACKED_BYTES}; split it")
    return archive


def entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry.

    Raises:
        DocumentError: it is missing, encrypted, damaged or larger than the archive says.
    """
    try:
        with archive.open(name) as file:
            data = file.read(MAX_UNPACKED_BYTES + 1)
    except KeyError:
        raise DocumentError(f"is broken: it has no {name}; save or download it again") from None
    except RuntimeError as error:
        raise DocumentError("is encrypted; save it without a password") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise DocumentError(f"is broken: {error}; save or download it again") from error
    if len(data) > MAX_UNPACKED_BYTES:
        raise DocumentError(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes; split it")
    return data
