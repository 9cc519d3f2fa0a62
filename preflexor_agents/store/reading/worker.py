"""The process in which files are parsed that may be hostile: `python -m preflexor_agents.store.reading.worker`.

It reads requests from standard input and answers on standard output: one line of JSON, then as many bytes as that says.
A parser may hang, eat memory or crash; the process then ends, and whoever started it knows which file it was.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any, BinaryIO

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading.parsed import Parsed, check, to_json


def main() -> None:
    """Answer requests until standard input ends."""
    sys.excepthook = _in_one_line
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size_bytes"])
        _limit(request["timeout_s"], request["memory_bytes"])
        _answer(replies, request, data)


def target(place: str) -> Any:
    """What stands at `module:attribute`, or the module itself."""
    module, _, attribute = place.partition(":")
    found: Any = import_module(module.strip())
    for name in filter(None, attribute.strip().split(".")):
        found = getattr(found, name)
    return found


def parser(place: str) -> Callable[[bytes, str], Parsed]:
    """The function that parses: the target itself, or its `parse`."""
    found = target(place)
    function: Callable[[bytes, str], Parsed] = getattr(found, "parse", found)
    return function


def _answer(replies: BinaryIO, request: dict[str, Any], data: bytes) -> None:
    try:
        reply = _described(request) if request["work"] == "describe" else _parsed(request, data)
        header: dict[str, Any] = {"size_bytes": len(reply)}
    except DocumentError as error:
        header, reply = {"refused": str(error), "size_bytes": 0}, b""
    except MemoryError:
        header, reply = {"memory": True, "size_bytes": 0}, b""
    replies.write(json.dumps(header).encode() + b"\n" + reply)
    replies.flush()


def _parsed(request: dict[str, Any], data: bytes) -> bytes:
    parsed = parser(request["target"])(data, request["name"])
    if not isinstance(parsed, Parsed):
        raise TypeError(f"parse gave {type(parsed).__name__}, not Parsed")
    check(parsed)
    return to_json(parsed)


def _described(request: dict[str, Any]) -> bytes:
    """What a plug-in says of itself."""
    found = target(request["target"])
    suffixes = sorted(str(suffix).lower() for suffix in found.suffixes)
    if not suffixes or not all(suffix.startswith(".") for suffix in suffixes) or isinstance(found.suffixes, str):
        raise ValueError(f"suffixes are {found.suffixes!r}, not a set such as {{'.rtf'}}")
    if not callable(found.parse):
        raise TypeError("parse is no function")
    known = {"suffixes": suffixes, "version": str(found.version)}
    known |= {key: getattr(found, key) for key in ("timeout_s", "memory_bytes") if hasattr(found, key)}
    return json.dumps(known).encode()


def _limit(timeout_s: float, memory_bytes: int) -> None:
    """Bound this process: memory, files, and its time too, should nobody be left to stop it; a crash leaves no core."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limits = (
        (resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + timeout_s) + 2),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, memory_bytes),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, soft in limits:
        hard = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
        except (ValueError, OSError):
            continue


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last line is what is shown of a crash."""
    sys.stderr.write(f"\n{kind.__name__}: {' '.join(str(error).split())}\n")


if __name__ == "__main__":
    main()
