"""The header of a GGUF file, read by llama.cpp itself, which knows every type that it can write."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_cpp._ggml import libggml

from preflexor_agents.errors import ModelError
from preflexor_quantize.llama_log import log_lines

UNKNOWN, CONTROL = 2, 3
"""Types of tokens."""
_MOST_TYPES = 200


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


libggml.gguf_init_from_file.restype = ctypes.c_void_p
libggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, _InitParams]
libggml.gguf_free.argtypes = [ctypes.c_void_p]
for _name in ("gguf_get_n_tensors", "gguf_get_data_offset"):
    getattr(libggml, _name).restype = ctypes.c_int64
    getattr(libggml, _name).argtypes = [ctypes.c_void_p]
for _name in ("gguf_get_tensor_offset", "gguf_get_tensor_size", "gguf_get_tensor_type"):
    getattr(libggml, _name).restype = ctypes.c_int if _name.endswith("type") else ctypes.c_size_t
    getattr(libggml, _name).argtypes = [ctypes.c_void_p, ctypes.c_int64]
libggml.gguf_find_key.restype = ctypes.c_int64
libggml.gguf_find_key.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
libggml.gguf_get_arr_n.restype = ctypes.c_size_t
libggml.gguf_get_arr_n.argtypes = [ctypes.c_void_p, ctypes.c_int64]
libggml.gguf_get_arr_data.restype = ctypes.POINTER(ctypes.c_int32)
libggml.gguf_get_arr_data.argtypes = [ctypes.c_void_p, ctypes.c_int64]
libggml.gguf_get_tensor_name.restype = libggml.ggml_type_name.restype = ctypes.c_char_p
libggml.gguf_get_tensor_name.argtypes = [ctypes.c_void_p, ctypes.c_int64]
libggml.ggml_type_name.argtypes = [ctypes.c_int]
libggml.ggml_row_size.restype = ctypes.c_size_t
libggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds."""

    data_offset: int
    """Bytes before the tensors' data."""
    types: dict[str, str]
    """Tensor -> type, as `Q4_K`."""


def read_gguf(file: Path) -> Header:
    """Read the header, and see that the file is as long as it says.

    Raises:
        ModelError: the file is missing, damaged or cut short.
    """
    with _opened(file) as found:
        data_offset = int(libggml.gguf_get_data_offset(found))
        types, end = {}, 0
        for n in range(libggml.gguf_get_n_tensors(found)):
            name = libggml.gguf_get_tensor_name(found, n).decode("utf-8", errors="replace")
            types[name] = _type_name(libggml.gguf_get_tensor_type(found, n))
            end = max(end, libggml.gguf_get_tensor_offset(found, n) + libggml.gguf_get_tensor_size(found, n))
    size = file.stat().st_size
    if data_offset + end > size:
        raise ModelError(f"{file} is cut short: {size} of {data_offset + end} bytes; download or convert it again")
    return Header(data_offset, types)


def token_types(file: Path) -> list[int]:
    """The file's type of each token, as GGUF numbers them. Raises as `read_gguf`.

    llama.cpp's own view differs: it shows some control tokens, as `<|start|>`, whatever the file says.
    """
    with _opened(file) as found:
        key = libggml.gguf_find_key(found, b"tokenizer.ggml.token_type")
        if key < 0:
            raise ModelError(f"{file} has no vocabulary; download or convert it again")
        types: list[int] = libggml.gguf_get_arr_data(found, key)[: libggml.gguf_get_arr_n(found, key)]
        return types


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    try:
        with file.open("rb"):
            pass
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror or e}; give a GGUF file") from None
    with log_lines():
        found = libggml.gguf_init_from_file(os.fsencode(file), _InitParams(no_alloc=True, context=None))
    if not found:
        raise ModelError(f"{file} is damaged or no GGUF file; download or convert it again")
    try:
        yield found
    finally:
        libggml.gguf_free(found)


def row_bytes(type_name: str, count: int) -> int:
    """Bytes of so many numbers of a type, which must be whole blocks."""
    number = next(n for n in range(_MOST_TYPES) if _type_name(n) == type_name)
    return int(libggml.ggml_row_size(number, count))


def _type_name(number: int) -> str:
    return str((libggml.ggml_type_name(number) or b"").decode().upper())
