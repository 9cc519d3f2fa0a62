"""The served page: who gets in, who does not, and what a tab runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

pytest.importorskip("textual_serve", reason="needs the web extra")

from aiohttp import ClientSession, CookieJar, WSMsgType, WSServerHandshakeError, web

from preflexor_agents.errors import InputError
from preflexor_tui.serve import GuardedServer, listening
from preflexor_tui.serve_guard import Asked, Guard, is_loopback, split_host

TINY_APP = """
from textual.app import App
from textual.widgets import Static

class Tiny(App):
    def compose(self):
        yield Static("it runs in " + self.size.__class__.__name__)

    def on_key(self, event):
        self.query_one(Static).update("pressed " + event.key)

Tiny().run()
"""


class Served(NamedTuple):
    base: str
    guard: Guard
    said: list[str]


@asynccontextmanager
async def serving(*command: str) -> AsyncIterator[Served]:
    sock = listening("127.0.0.1", 0)
    guard = Guard("127.0.0.1", sock.getsockname()[1])
    said: list[str] = []
    runner = web.AppRunner(await GuardedServer(command, guard, say=said.append).application())
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield Served(f"http://127.0.0.1:{guard.port}", guard, said)
    finally:
        await runner.cleanup()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(sys.executable, "-c", TINY_APP) as running:
        yield running


@pytest.fixture
async def stranger() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def friend(served: Served) -> AsyncIterator[ClientSession]:
    """A browser that opened the address."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        async with session.get(served.guard.address) as page:
            assert page.status == 200
        yield session


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=x", "/static/js/textual.js", "/static/", "/download/x", "/no"]
)
async def test_without_the_token_every_request_is_refused(served: Served, stranger: ClientSession, path: str) -> None:
    async with stranger.get(served.base + path) as answer:
        assert answer.status == 403
        assert "textual" not in await answer.text()


async def test_without_the_token_the_websocket_is_refused(served: Served, stranger: ClientSession) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await stranger.ws_connect(served.base + "/ws", headers={"Origin": served.base})
    assert refused.value.status == 403


async def test_the_address_works_once_and_a_new_one_is_said(served: Served, stranger: ClientSession) -> None:
    first = served.guard.address
    async with stranger.get(first, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    stranger.cookie_jar.clear()
    async with stranger.get(first) as again:
        assert again.status == 403
        assert "used already" in await again.text()
    assert served.said == [f"opened in a browser; for another one: {served.guard.address}"]
    assert served.guard.address != first


async def test_a_request_that_only_looks_does_not_spend_the_token(served: Served, stranger: ClientSession) -> None:
    address = served.guard.address
    async with stranger.head(address) as looked, stranger.get(address, headers={"Sec-Purpose": "prefetch"}) as fetched:
        assert (looked.status, fetched.status) == (403, 403)
    async with stranger.get(address, allow_redirects=False) as opened:
        assert opened.status == 303


async def test_the_cookie_opens_page_and_files_without_the_token(served: Served, friend: ClientSession) -> None:
    async with friend.get(served.base) as page, friend.get(served.base + "/static/js/textual.js") as script:
        assert (page.status, script.status) == (200, 200)
        text = await page.text()
    assert f"ws://127.0.0.1:{served.guard.port}/ws" in text
    assert text.count("http") == 0, "the page must not name any other address"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1", "localhost:{port}x"]
)
async def test_another_host_is_refused_even_with_the_cookie(served: Served, friend: ClientSession, host: str) -> None:
    async with friend.get(served.base, headers={"Host": host.format(port=served.guard.port)}) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{port}", ""]
)
async def test_another_origin_gets_no_websocket_even_with_the_cookie(
    served: Served, friend: ClientSession, origin: str
) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await friend.ws_connect(served.base + "/ws", headers={"Origin": origin.format(port=served.guard.port)})
    assert refused.value.status == 403


async def test_a_websocket_without_an_origin_is_refused(served: Served, friend: ClientSession) -> None:
    with pytest.raises(WSServerHandshakeError):
        await friend.ws_connect(served.base + "/ws")


async def test_a_part_of_the_page_is_not_given_to_another_site(served: Served, friend: ClientSession) -> None:
    headers = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
    async with friend.get(served.base + "/static/js/textual.js", headers=headers) as answer:
        assert answer.status == 403


async def test_what_is_served_can_not_be_framed_or_kept(served: Served, friend: ClientSession) -> None:
    async with friend.get(served.base) as page:
        policy = page.headers["Content-Security-Policy"]
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe-eval" not in policy


async def frames_until(socket: object, words: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(20):
        async for message in socket:  # type: ignore[attr-defined]
            assert message.type == WSMsgType.BINARY, message
            seen += message.data
            if words in seen:
                break
    return seen


async def test_a_tab_shows_the_program_and_takes_keys(served: Served, friend: ClientSession) -> None:
    url = served.base + "/ws?width=60&height=10"
    async with friend.ws_connect(url, headers={"Origin": served.base}) as socket:
        assert b"it runs in" in await frames_until(socket, b"it runs in")
        await socket.send_json(["stdin", "j"])
        assert b"pressed j" in await frames_until(socket, b"pressed j")


async def test_what_is_no_message_of_the_page_ends_the_tab_only(served: Served, friend: ClientSession) -> None:
    async with friend.ws_connect(served.base + "/ws?width=-5&height=x", headers={"Origin": served.base}) as socket:
        await socket.send_str('{"not": "a list"}')
        async with asyncio.timeout(20):
            async for _ in socket:
                pass
        assert socket.close_code == 1008
    async with friend.get(served.base) as page:
        assert page.status == 200


async def test_a_program_that_does_not_start_closes_its_tab() -> None:
    jar = CookieJar(unsafe=True)
    async with (
        serving(sys.executable, "-c", "raise SystemExit(3)") as running,
        ClientSession(cookie_jar=jar) as session,
    ):
        async with session.get(running.guard.address) as page:
            assert page.status == 200
        async with session.ws_connect(running.base + "/ws", headers={"Origin": running.base}) as socket:
            async with asyncio.timeout(20):
                closed = await socket.receive()
    assert closed.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("no-such-host.invalid", 0, "is no address here"),
        ("a" * 300, 0, "is no address"),
        ("127.0.0.1", 70000, "0 .a free one. to 65535"),
    ],
)
def test_a_host_that_is_none_is_said_in_one_line(host: str, port: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        listening(host, port)


def test_a_taken_port_is_said_in_one_line() -> None:
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match="is taken; name another"):
        listening("127.0.0.1", taken.getsockname()[1])


def test_who_listens_everywhere_answers_to_addresses_but_not_to_any_name() -> None:
    guard = Guard("0.0.0.0", 8000)
    assert not guard.refusal(Asked(path="/", host="192.168.1.7:8000"))
    assert guard.refusal(Asked(path="/", host="evil.example:8000"))
    assert guard.address.startswith("http://127.0.0.1:8000/?token=")


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("localhost:80", ("localhost", 80)),
        ("LocalHost", ("localhost", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::1]", ("::1", 80)),
        ("a:b", ("a", None)),
        ("a:²", ("a", None)),
    ],
)
def test_a_host_header_is_taken_apart(header: str, parts: tuple[str, int | None]) -> None:
    assert split_host(header) == parts


@pytest.mark.parametrize(
    ("host", "here"), [("127.8.9.1", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False)]
)
def test_loopback_is_known(host: str, here: bool) -> None:
    assert is_loopback(host) is here
