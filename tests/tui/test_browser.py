"""The served page in a real browser: a question by keys, nano's answer read from the terminal on the page."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="needs the web extra")
from aiohttp import ClientSession, ClientWebSocketResponse

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--window-size=1300,900",
]
LOOK_INTO_TERMINAL = """
Object.defineProperty(Object.prototype, "fitAddon", {
  configurable: true,
  set(value) {
    window.shownTerminal = this.terminal;
    Object.defineProperty(this, "fitAddon", {value, writable: true, configurable: true});
  },
});
"""
"""The page keeps its terminal to itself and draws it on a canvas; this catches it while the page makes it."""
READ_TERMINAL = """
(() => {
  const buffer = window.shownTerminal && window.shownTerminal.buffer.active;
  if (!buffer) return "";
  return Array.from({length: buffer.length}, (_, n) => buffer.getLine(n).translateToString(true)).join("\\n");
})()
"""
WAIT_S = 25
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"), pytest.mark.slow]


class Tab:
    """A tab of the browser, spoken to over its debugging port."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def open(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded."""
        await self.call("Page.enable")
        await self._socket.send_json({"id": 0, "method": "Page.navigate", "params": {"url": url}})
        async with asyncio.timeout(WAIT_S):
            while (await self._socket.receive_json()).get("method") != "Page.loadEventFired":
                pass

    async def value(self, expression: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=expression))["result"].get("value")

    async def text_with(self, words: str) -> str:
        """What the terminal shows, once it shows the words; looks again whenever the page has drawn."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while words not in " ".join((text := str(await self.value(READ_TERMINAL))).split()):
            assert asyncio.get_running_loop().time() < deadline, f"{words!r} did not come:\n{text.strip()}"
            await self.call("Runtime.evaluate", expression="new Promise(r => setTimeout(r, 50))", awaitPromise=True)
        return text

    async def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if kind == "char" else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def type(self, text: str) -> None:
        for c in text:
            await self.call("Input.dispatchKeyEvent", type="char", text=c)


@asynccontextmanager
async def ended(process: Process, how: int = signal.SIGTERM) -> AsyncIterator[Process]:
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(how)
        await process.communicate()


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """What `preflexor chat --serve` prints."""
    folders = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("DATA", "CONFIG", "STATE")}
    env = {**os.environ, **folders, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "preflexor_agents", "chat", "--serve", "--port", "0", "--rounds", "2"]
    process = await create_subprocess_exec(*command, stdout=PIPE, env=env, cwd=tmp_path)
    async with ended(process, signal.SIGINT), asyncio.timeout(WAIT_S * 3):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        yield line.removeprefix("open ").strip()
    assert process.returncode == 0


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    folder = tmp_path / "browser"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = await create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    async with ended(process), ClientSession() as session, asyncio.timeout(WAIT_S * 3):
        assert process.stderr is not None
        listening = b""
        while b"DevTools listening on" not in listening:
            listening = await process.stderr.readline()
            assert listening, "the browser ended"
        base = re.sub(r".*ws://([^/]+)/.*", r"http://\1", listening.decode().strip())
        async with session.get(f"{base}/json/list") as pages:
            page = next(p for p in json.loads(await pages.text()) if p["type"] == "page")
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Tab(socket)


async def test_a_question_is_asked_and_answered_in_a_browser(address: str, tab: Tab) -> None:
    await tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    await tab.call("Page.addScriptToEvaluateOnNewDocument", source=LOOK_INTO_TERMINAL)
    await tab.open(address)
    await tab.text_with("Ask a question.")
    await tab.text_with("Sessions")
    assert "token" not in await tab.value("location.href")
    await tab.type("What are gecko setae made of?")
    await tab.text_with("What are gecko setae made of?")
    await tab.press("Enter", 13)
    text = await tab.text_with("calls ·")
    answer = text.partition("from round")[2].partition("calls ·")[0]
    assert "Round 1" in text and "beta-keratin" in answer


async def test_the_page_is_refused_without_the_token(address: str, tab: Tab) -> None:
    base = address.partition("/?")[0]
    await tab.open(base)
    assert str(await tab.value("document.body.innerText")).startswith("403: open the address")
    async with ClientSession() as session:
        for headers in ({}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            async with session.get(base, headers=headers) as answer:
                assert answer.status == 403
