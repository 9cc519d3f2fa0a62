"""Format plug-ins, good and broken, as other packages would bring them."""

import os
import time

from preflexor_agents.store.reading import Parsed, from_markdown


class Shouted:
    """Reads files in capital letters."""

    suffixes = frozenset({".SHOUT"})
    version = "1"
    timeout_s = 5.0

    @staticmethod
    def parse(data: bytes, name: str) -> Parsed:
        """Lower case, as Markdown; some words make it misbehave."""
        text = data.decode().lower()
        match text.split()[0]:
            case "hang":
                time.sleep(60)
            case "crash":
                os.abort()
            case "raise":
                raise KeyError(name)
            case "eat":
                bytearray(8 << 30)
            case "exit":
                raise SystemExit(3)
            case "print":
                os.write(1, b"not a reply")
            case "wrong":
                return text  # type: ignore[return-value]
        return from_markdown(text, title=name)


class Hasty(Shouted):
    """Has less time."""

    timeout_s = 0.3


def crash(data: bytes, name: str) -> Parsed:
    """A parser that dies."""
    os.abort()


class Nameless:
    """Says no suffixes."""

    suffixes = ""
    version = "1"
