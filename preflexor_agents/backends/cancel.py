"""A flag that stops a running decode from any thread."""

import ctypes


class CancelFlag:
    """Set once, for good. In memory it is a C string: empty, of length 1 when it is set."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop what looks at this flag. Thread-safe, idempotent."""
        self._text[0] = b"\x01"

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._text[0] != b"\x00"

    @property
    def address(self) -> int:
        """Where the C string is; valid as long as this object lives."""
        return ctypes.addressof(self._text)
