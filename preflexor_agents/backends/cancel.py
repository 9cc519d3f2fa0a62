"""A flag that stops a running decode from any thread."""

import ctypes
from typing import Self


class CancelFlag:
    """In memory it is a C string: empty, of length 1 when it is set."""

    __slots__ = ("_also", "_text")

    def __init__(self, also: Self | None = None) -> None:
        """Not set yet; `also` is set together with it."""
        self._text = ctypes.create_string_buffer(2)
        self._also = also

    def set(self) -> None:
        """Stop what looks at this flag. Thread-safe, idempotent."""
        self._text[0] = b"\x01"
        if self._also is not None:
            self._also.set()

    def clear(self) -> None:
        """Make it ready to be set again."""
        self._text[0] = b"\x00"

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._text[0] != b"\x00"

    @property
    def address(self) -> int:
        """Where the C string is; valid as long as this object lives."""
        return ctypes.addressof(self._text)
