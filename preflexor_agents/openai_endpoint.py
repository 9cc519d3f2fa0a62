"""Where an OpenAI-compatible server is, who may see the key, and what its refusals mean. Pure.

A store or a recipe remembers an address and may come from someone else. So the key in OPENAI_API_KEY goes only to
OpenAI, to this machine, and to the host that the user has put into OPENAI_BASE_URL.
"""

import json
import os
from urllib.parse import urlsplit

from preflexor_agents.errors import InputError

OWN_URL = "https://api.openai.com/v1"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def split(name: str) -> tuple[str, str]:
    """Model and address in `NAME@BASE_URL`; without an address that in OPENAI_BASE_URL, else OpenAI's.

    Raises:
        InputError: the address is none, or holds a password.
    """
    model, _, given = name.partition("@")
    url = (given or os.environ.get("OPENAI_BASE_URL", "") or OWN_URL).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise InputError(f"{url!r} is no address of a server; write openai:NAME@http://localhost:8080/v1")
    if parts.username or parts.password:
        raise InputError("the address of a server may hold no password; put the key into OPENAI_API_KEY")
    return model, url


def headers(url: str) -> dict[str, str]:
    """The key for this address, if it may have it."""
    key = os.environ.get("OPENAI_API_KEY", "")
    host = urlsplit(url).hostname
    chosen = urlsplit(os.environ.get("OPENAI_BASE_URL", "")).hostname
    trusted = host in LOOPBACK or host in (urlsplit(OWN_URL).hostname, chosen)
    return {"Authorization": f"Bearer {key}"} if key and trusted else {}


def key_remedy(url: str) -> str:
    """What to do where the key was refused."""
    return "check OPENAI_API_KEY" if headers(url) else f"set OPENAI_API_KEY, and OPENAI_BASE_URL={url}"


def reason(status: int, body: str) -> str:
    """A refusal in the server's own words, on one line."""
    try:
        error = json.loads(body)
        error = error.get("error", error.get("message", error.get("detail", body)))
        said = error["message"] if isinstance(error, dict) and "message" in error else error
    except (ValueError, AttributeError, RecursionError):
        said = body
    text = " ".join(str(said).split())
    return f"{status} {''.join(c if c.isprintable() else '?' for c in text)[:200]}".strip()
