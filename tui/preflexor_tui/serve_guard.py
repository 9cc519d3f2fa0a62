"""Who may use the served page: one browser for each address that was printed, known by its cookie afterwards.

The page can do what the user can do, so every request is checked, the websocket and the static files too: the name it
was asked for by (a page elsewhere may point its own name at this machine), the page it came from, and the secret.
"""

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from typing import NamedTuple

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Asked(NamedTuple):
    """What of a request decides."""

    path: str
    host: str
    """The Host header."""
    origin: str | None = None
    fetch_site: str | None = None
    """The Sec-Fetch-Site header: what the browser says about the page that asks."""
    navigates: bool = True
    """Whether the browser is opening a page, not fetching a part of one."""
    prefetches: bool = False
    cookie: str = ""


@dataclass(slots=True)
class Guard:
    """Decides on requests to one host and port."""

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Opens the page once; then there is a new one."""
    known: set[str] = field(default_factory=set)
    """Cookies that were given out."""

    @property
    def address(self) -> str:
        """What to type into a browser."""
        name = "127.0.0.1" if is_everywhere(self.host) else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/?token={self.token}"

    @property
    def cookie_name(self) -> str:
        """Cookies do not tell ports apart, so the name does."""
        return f"preflexor_{self.port}"

    def enter(self, token: str) -> str | None:
        """A cookie for whoever brings the token, which is spent by that; None if it is not the token."""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        self.token = secrets.token_urlsafe(32)
        cookie = secrets.token_urlsafe(32)
        self.known.add(cookie)
        return cookie

    def refusal(self, asked: Asked) -> str:
        """Why the request is refused, cookie or not; empty if it is not."""
        if not self._is_ours(asked.host):
            return f"this page is not served under the name {asked.host!r}"
        if asked.origin is not None and asked.origin != f"http://{asked.host}":
            return f"pages of {asked.origin!r} may not ask this one"
        if asked.origin is None and asked.path == "/ws":
            return "the request does not say which page it comes from"
        if asked.fetch_site in ("cross-site", "same-site") and not asked.navigates:
            return "pages of other origins may not ask this one"
        return "the page is not opened ahead of time" if asked.prefetches else ""

    def knows(self, cookie: str) -> bool:
        """Whether the cookie is one that was given out."""
        return any(hmac.compare_digest(cookie.encode(), known.encode()) for known in self.known)

    def _is_ours(self, host_header: str) -> bool:
        name, port = split_host(host_header)
        if port != self.port:
            return False
        if name in LOOPBACK or name == self.host.lower():
            return True
        if self.host in LOOPBACK:
            return False
        return _is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach the host."""
    return host in LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_everywhere(host: str) -> bool:
    """Whether the host stands for all addresses of this machine."""
    return host in ("", "0.0.0.0", "::")


def split_host(header: str) -> tuple[str, int | None]:
    """Name and port of a Host header; port 80 where it names none, None where it is not a number."""
    name, colon, port = header.strip().lower().rpartition(":")
    if not colon or port.endswith("]"):
        name, port = header.strip().lower(), "80"
    return name.strip("[]"), int(port) if port.isascii() and port.isdigit() and len(port) < 6 else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
