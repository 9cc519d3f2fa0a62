"""How quick the terminal UI is: first picture, keys and stopping while a model streams, a long session.

A scripted model streams through the whole engine into the real app, drawn without a terminal; the first picture is
timed in a real one (a pseudo-terminal), from the start of the process. Ends with exit code 1 if a contract is broken.
"""

import argparse
import asyncio
import fcntl
import os
import re
import resource
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import NamedTuple

from textual.events import Key
from textual.pilot import Pilot

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.events import Role, Usage
from preflexor_agents.prompts import Message
from preflexor_agents.session import MODEL_ROLES
from preflexor_agents.settings import Settings
from preflexor_tui.app import PreflexorApp
from preflexor_tui.engine import Engine
from preflexor_tui.setup import Setup
from preflexor_tui.widgets.composer import Composer

SIZE = (120, 40)
TOKENS_PER_S = 60
CHARACTERS_ABOVE = 60_000
WORDS = (
    "Nacre",
    "is",
    "**tough**",
    "because",
    "its",
    "tablets",
    "slide",
    "and",
    "deflect",
    "a",
    "crack",
    "as",
    "it",
    "grows",
)
PARAGRAPH_TOK = 60
KEYS = "the quick brown fox"


class Row(NamedTuple):
    """A line of the table."""

    name: str
    measured: str
    contract: str
    is_kept: bool


class Voice:
    """A model that writes Markdown at a pace; `pace` 0 is as fast as it is read."""

    spec, context_tok, native_tags = "scripted", 1 << 20, True

    def __init__(self) -> None:
        self.pace = 0.0
        self.tokens = 100
        self.written = 0
        self.ended = 0.0
        """When the last reply ended, whole or not."""

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Write `tokens` words."""
        said: list[str] = []
        began = time.perf_counter()
        try:
            for n in range(self.tokens):
                await asyncio.sleep(max(0.0, began + n / self.pace - time.perf_counter()) if self.pace else 0)
                said.append(WORDS[n % len(WORDS)] + (".\n\n" if n % PARAGRAPH_TOK == PARAGRAPH_TOK - 1 else " "))
                self.written += 1
                yield Delta("answer", said[-1])
        finally:
            self.ended = time.perf_counter()
        yield Completion(answer="".join(said), usage=Usage(generated=self.tokens))

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Nothing is too long."""
        return 1

    async def aclose(self) -> None:
        """Nothing to close."""


def make_app(voice: Voice) -> PreflexorApp:
    """The app on that model, without a store."""

    async def open_cast(_: str, __: Mapping[Role, str]) -> dict[Role, Voice]:
        return dict.fromkeys(MODEL_ROLES, voice)

    setup = Setup(
        settings=Settings(model="scripted", rounds=1, budget_tokens=10**9, budget_seconds=1e6), searches=False
    )
    return PreflexorApp(setup=setup, engine=Engine(open_cast=open_cast))


async def until(holds: Callable[[], bool]) -> None:
    """Let the app work until something holds."""
    while not holds():
        await asyncio.sleep(0.005)


async def ask(app: PreflexorApp, pilot: Pilot[None]) -> None:
    """Begin a run."""
    before = len(app.chat.conversation.turns)
    app.chat.query_one(Composer).load("Why is nacre tough?")
    await pilot.press("enter")
    await until(lambda: len(app.chat.conversation.turns) > before)


async def over(app: PreflexorApp, pilot: Pilot[None]) -> None:
    """Wait for the end of the run."""
    await until(lambda: app.chat.active is None)
    await pilot.pause()


async def streaming(seconds: float) -> list[Row]:
    """Share of a core, echo of keys, and stopping, while the answer streams with much above it."""
    voice = Voice()
    app = make_app(voice)
    async with app.run_test(size=SIZE) as pilot:
        voice.pace, voice.tokens = 0.0, 1500
        while sum(len(turn.run.answer) for turn in app.chat.conversation.turns) < CHARACTERS_ABOVE:
            await ask(app, pilot)
            await over(app, pilot)
        voice.pace, voice.tokens = TOKENS_PER_S, 10**6
        await ask(app, pilot)
        written, cpu, began = voice.written, time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        wall = time.perf_counter() - began
        share, rate = (time.process_time() - cpu) / wall, (voice.written - written) / wall
        echoes = [await echo(app, c) for c in KEYS.replace(" ", "")]
        began = time.perf_counter()
        for _ in range(2):
            app.post_message(Key("escape", None))
        await until(lambda: app.chat.active is None)
        idle, stopped = time.perf_counter() - began, voice.ended - began
        kept = app.chat.conversation.turns[-1].run
    worst = max(echoes)
    return [
        Row(f"{rate:.0f} tokens/s, 60k characters above", f"{share:.1%} of a core", "< 25%", share < 0.25),
        Row(
            "key to echo while streaming",
            f"{statistics.median(echoes) * 1e3:.0f} ms, worst {worst * 1e3:.0f}",
            "< 50 ms",
            worst < 0.05,
        ),
        Row("escape twice to a silent model", f"{stopped * 1e3:.0f} ms", "< 100 ms", stopped < 0.1),
        Row("escape twice to all of it drawn", f"{idle * 1e3:.0f} ms", "", True),
        Row("text kept of the stopped run", f"{len(kept.rounds)} round", "1", len(kept.rounds) == 1),
    ]


async def echo(app: PreflexorApp, character: str) -> float:
    """Seconds from a key to the picture with it."""
    composer = app.chat.query_one(Composer)
    before, drawn = composer.text, asyncio.Event()
    began = time.perf_counter()
    app.post_message(Key(character, character))
    while composer.text == before:
        await asyncio.sleep(0.001)
    composer.call_after_refresh(drawn.set)
    await drawn.wait()
    return time.perf_counter() - began


async def soak(tokens: int) -> list[Row]:
    """A long session at full speed: what is mounted and what it holds of memory."""
    voice = Voice()
    app = make_app(voice)
    counts, sizes = [], []
    voice.tokens = 500
    async with app.run_test(size=SIZE) as pilot:
        while voice.written < tokens:
            await ask(app, pilot)
            await over(app, pilot)
            counts.append(sum(1 for _ in app.screen.walk_children()))
            sizes.append(memory_mb())
    grown, first = sizes[-1] - sizes[0], counts[0]
    per_run = (counts[-1] - first) / max(1, len(counts) - 1)
    return [
        Row(
            f"{voice.written} tokens: widgets",
            f"{first} to {counts[-1]}, {per_run:.1f} a run",
            "< 1500",
            counts[-1] < 1500,
        ),
        Row(f"{voice.written} tokens: memory", f"{sizes[0]:.0f} to {sizes[-1]:.0f} MB", "< +100 MB", grown < 100),
    ]


def memory_mb() -> float:
    """Memory of this process at present."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def first_picture(runs: int) -> Row:
    """From the start of the process to words on the screen of a terminal."""
    times = [time_to_words(b"Ask a question") for _ in range(runs)]
    median = statistics.median(times)
    return Row("first picture", f"{median:.2f} s, best {min(times):.2f}", "< 1 s", median < 1.0)


def time_to_words(words: bytes) -> float:
    """Start the program in a pseudo-terminal and read until it shows the words."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "TERM": "xterm-256color", "HOME": home}
        env |= {f"XDG_{name}_HOME": home for name in ("DATA", "CONFIG", "STATE")}
        began = time.perf_counter()
        command = [sys.executable, "-m", "preflexor_agents", "chat"]
        program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
        os.close(theirs)
        seen, taken = b"", 60.0
        while time.perf_counter() - began < taken:
            if select.select([ours], [], [], 1.0)[0]:
                seen += os.read(ours, 1 << 16)
                if words in re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen):
                    taken = time.perf_counter() - began
                    break
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    os.close(ours)
    return taken


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="starts of the program")
    parser.add_argument("--seconds", type=float, default=10.0, help="of streaming")
    parser.add_argument("--soak-tokens", type=int, default=20_000)
    given = parser.parse_args()
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    rows = [first_picture(given.runs)]
    rows += asyncio.run(streaming(given.seconds))
    rows += asyncio.run(soak(given.soak_tokens))
    for row in rows:
        print(f"{row.name:38} {row.measured:32} {row.contract:10} {'kept' if row.is_kept else 'BROKEN'}")
    sys.exit(not all(row.is_kept for row in rows))


if __name__ == "__main__":
    main()
