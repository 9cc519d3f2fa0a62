"""`preflexor chat --serve`: the terminal UI in a browser, by textual-serve behind a guard.

Textual-serve itself asks nobody who they are and loads a font from elsewhere; the page here does neither. Each tab of
the browser is a process of its own.
"""

import asyncio
import errno
import os
import secrets
import shlex
import socket
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp_jinja2
from aiohttp import WSCloseCode, web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from preflexor_agents.errors import InputError
from preflexor_tui.serve_guard import Asked, Guard, is_loopback

STOP_S = 3.0
"""How long a tab's process has to end by itself when its tab is gone."""
MOST_TABS = 16
MOST_CELLS = 1000
"""Longest side of a terminal that a browser may ask for."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Say = Callable[[str], None]


def serve(command: Sequence[str], *, host: str, port: int, say: Say) -> None:
    """Serve a terminal program until ctrl-c.

    Args:
        command: The program, started once for each tab.
        host: Where to listen.
        port: 0 takes a free one.
        say: Told the address, and a new one whenever one was used.

    Raises:
        InputError: host or port cannot be listened at.
    """
    sock = listening(host, port)
    guard = Guard(host, sock.getsockname()[1])
    if not is_loopback(host):
        say(
            f"warning: {host} can be reached from other machines, and the connection is not encrypted: who reads it "
            "can use this program and your files; on a network that you do not trust use an SSH tunnel instead"
        )
    pages = GuardedServer(command, guard, say=say)
    say(f"open {guard.address}")
    say("the address works once; ctrl-c ends")
    web.run_app(pages.application(), sock=sock, print=None, access_log=None, shutdown_timeout=STOP_S)


def listening(host: str, port: int) -> socket.socket:
    """A socket that waits for connections. Raises InputError."""
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}; it must be 0 (a free one) to 65535")
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server((str(place[0]), port), family=family)
    except (socket.gaierror, UnicodeError):
        raise InputError(f"--host {host!r} with --port {port} is no address here; try --host 127.0.0.1") from None
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port} is taken; name another, or 0 for a free one") from None
        raise InputError(
            f"cannot listen at --host {host} --port {port}: {os.strerror(e.errno or 0)}; try --host 127.0.0.1"
        ) from None


class TabProcess(AppService):
    """The program behind one tab, started without a shell and ended for sure."""

    argv: Sequence[str] = ()

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        environment = self._build_environment(width=width, height=height)
        process = await create_subprocess_exec(*self.argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment)
        self._process, self._stdin = process, process.stdin
        return process

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Tell the program about the new size, within reason."""
        await super().set_terminal_size(_cells(width, 80), _cells(height, 24))

    async def run(self) -> None:
        """Hand over what the program says until it ends, then tell the tab."""
        await super().run()
        await self.remote_close()

    async def stop(self) -> None:
        """End the program; kill it if it does not go."""
        try:
            async with asyncio.timeout(STOP_S):
                await super().stop()
        except TimeoutError:
            pass
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


class GuardedServer(Server):
    """Textual-serve's pages, for those whom the guard lets in."""

    def __init__(self, command: Sequence[str], guard: Guard, *, say: Say) -> None:
        super().__init__(
            shlex.join(command),
            guard.host,
            guard.port,
            title="preflexor",
            templates_path=Path(__file__).with_name("web"),
        )
        self._argv = tuple(command)
        self._guard = guard
        self._say = say
        self._tabs: set[web.WebSocketResponse] = set()

    async def application(self) -> web.Application:
        """The guarded application."""
        app = await self._make_app()
        app.middlewares.append(self._checked)
        app.on_response_prepare.append(_harden)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Nothing to say here: the address was told."""

    async def on_shutdown(self, app: web.Application) -> None:
        """Close the tabs, which ends their programs."""
        await asyncio.gather(*(tab.close(code=WSCloseCode.GOING_AWAY) for tab in list(self._tabs)))

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = Asked(
            path=request.path,
            host=request.headers.get("Host", ""),
            origin=request.headers.get("Origin"),
            fetch_site=request.headers.get("Sec-Fetch-Site"),
            navigates=request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate",
            prefetches="prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", "")),
        )
        refused = self._guard.refusal(asked)
        if refused:
            return _forbidden(refused)
        if self._guard.knows(request.cookies.get(self._guard.cookie_name, "")):
            return await handler(request)
        token = request.query.get("token", "")
        cookie = self._guard.enter(token) if request.method == "GET" and request.path == "/" else None
        if cookie is None:
            return _forbidden(
                "this address was used already, or was never printed; take the newest one from the terminal"
                if token
                else "open the address that `preflexor chat --serve` printed"
            )
        self._say(f"opened in a browser; for another one: {self._guard.address}")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(self._guard.cookie_name, cookie, httponly=True, samesite="Lax", path="/")
        return response

    async def handle_index(self, request: web.Request) -> web.Response:
        """The page, with addresses of its own host only."""
        nonce = secrets.token_urlsafe(16)
        context: dict[str, Any] = {
            "font_size": max(6, min(to_int(request.query.get("fontsize", ""), 16), 64)),
            "websocket": f"ws://{request.host}/ws",
            "nonce": nonce,
        }
        response: web.Response = aiohttp_jinja2.render_template("page.html", request, context)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
            f"font-src 'self'; img-src 'self' data:; connect-src 'self' ws://{request.host}; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Start a program and connect it with the tab until one of them ends."""
        if len(self._tabs) >= MOST_TABS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_TABS} tabs are open; close one")
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)
        self._tabs.add(websocket)
        program = TabProcess(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=_closing(websocket),
            download_manager=self.download_manager,
        )
        program.argv = self._argv
        try:
            width, height = (_cells(request.query.get(side), least) for side, least in (("width", 80), ("height", 24)))
            await program.start(width, height)
            await self._process_messages(websocket, program)
        except (ValueError, LookupError, TypeError, AssertionError):
            await websocket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a message of this page")
        finally:
            self._tabs.discard(websocket)
            await program.stop()
        return websocket


def _closing(websocket: web.WebSocketResponse) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await websocket.close()

    return close


def _cells(wanted: object, default: int) -> int:
    return max(1, min(to_int(str(wanted), default), MOST_CELLS))


def _forbidden(reason: str) -> web.Response:
    return web.Response(status=403, text=f"403: {reason}\n")


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    """No other page may frame, read or keep what is served; a download runs nothing."""
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "no-referrer"
    if not request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-store"
