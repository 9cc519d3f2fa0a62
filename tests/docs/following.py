"""A reader who types what a page says, in an empty home, and compares what is printed with what the page shows.

`python -m tests.docs.following docs/papers.md` prints each command of a page and what it said, to be shown there.

Of a page, ```sh blocks are typed line by line. A ```text block right behind one shows what its last line printed,
some of it left out. Blocks with a title, as ```toml title="my.toml", are files that the reader makes.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from click.testing import CliRunner

from preflexor_agents.backends.base import Request
from preflexor_agents.cli.main import cli
from preflexor_agents.prompts import Message
from tests.fakes.ollama_stub import OllamaStub, StubModel
from tests.store.files import pdf
from tests.training.teaching import facts, teach

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LIBRARY = ROOT / "preflexor_agents" / "data" / "library"
BLOCK = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?")
_NEAR = 0.5
"""Part of the lines that a page shows which must be printed again, numbers aside; the rest is a model's words."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str
    shown: str
    """The ```text block right behind it."""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    made = []
    for match, following in zip_longest(found, found[1:]):
        behind = following is not None and following[2] == "text" and not following[3]
        behind = behind and not text[match.end() : following.start()].strip()
        made.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, match.start()) + 1,
                language=match[2],
                title=match[3] or "",
                text=textwrap.dedent(match[4]),
                shown=textwrap.dedent(following[4]) if behind and following is not None else "",
            )
        )
    return made


def papers(folder: Path, *names: str) -> None:
    """PDF files of two pages each, made of the bundled notes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("nacre", "bamboo", "squid-beak"):
        note = (LIBRARY / f"{name}.md").read_text(encoding="utf-8")
        lines = [part for line in note.splitlines() for part in (textwrap.wrap(line.lstrip("# "), 90) or [""])]
        half = lines.index("", len(lines) // 2)
        title = name.replace("-", " ").capitalize()
        (folder / f"{name}.pdf").write_bytes(pdf([lines[:half], lines[half:]], info={"Title": title}))


@dataclass(slots=True)
class Reader:
    """Types commands in a folder of their own; a fake Ollama server answers."""

    stub: OllamaStub
    """Says what follows from the prompt; teaches where it is asked to."""
    also: Callable[[list[str]], list[str]] = lambda words: []
    """Options to add, so that what takes hours takes seconds."""
    typed: list[tuple[str, str]] = field(default_factory=list)
    """Commands, and what they printed."""

    def follow(self, page: Path) -> None:
        """Do what a page says. Fails where a command does, or prints something else than is shown."""
        for block in blocks(page):
            place = f"{block.page}:{block.line}"
            if block.title and block.language != "text":
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.text, encoding="utf-8")
            if block.language != "sh":
                continue
            printed = ""
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    printed = self.type(words, place=place)
            if block.shown:
                assert near(block.shown, printed), f"{place} shows something else than was printed:\n{printed}"

    def type(self, words: list[str], *, place: str = "") -> str:
        """What a command prints."""
        program, *rest = words
        match program:
            case "preflexor":
                done = CliRunner().invoke(cli, [*rest, *self.also(rest)])
                assert done.exit_code == 0, f"{place}: {shlex.join(words)}\n{done.output[-3000:]}\n{done.exception!r}"
                printed = done.output
            case "python":
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "argv", rest)
                    patch.setattr(subprocess, "run", self._in_this_process(subprocess.run))
                    printed = _run(Path(rest[0]))
            case "ollama":
                assert rest[0] == "pull" and len(rest) == 2, f"{place}: {words}"
                name = rest[1] if ":" in rest[1] else f"{rest[1]}:latest"
                self.stub.models[name] = StubModel(name=name, embeds="embed" in name)
                printed = ""
            case "pip":
                _check_extras(rest, place)
                printed = ""
            case "make":
                assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), place
                printed = ""
            case "mkdir":
                Path(rest[-1]).mkdir(parents=True, exist_ok=True)
                printed = ""
            case "cp":
                shutil.copytree(rest[-2], rest[-1]) if Path(rest[-2]).is_dir() else shutil.copy(rest[-2], rest[-1])
                printed = ""
            case _:
                raise AssertionError(f"{place}: nobody tries {program}")
        self.typed.append((shlex.join(words), printed))
        return printed

    def _in_this_process(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`subprocess.run` which does what a program runs of preflexor here, with the options to add."""

        def here(command: list[str], **options: Any) -> Any:
            if command[1:3] != ["-m", "preflexor_agents"]:
                return run(command, **options)
            sys.stdout.write(self.type(["preflexor", *command[3:]]))
            return subprocess.CompletedProcess(command, 0)

        return here


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """A reader with an empty home in a folder, next to a folder `papers`, in sight of the repository's own folders."""
    fetched = Path(platformdirs.user_cache_dir("preflexor")).glob("converter-*")
    with pytest.MonkeyPatch.context() as patch, OllamaStub() as stub:
        stub.speaks = _speak
        (folder / "home" / "preflexor").mkdir(parents=True)
        for converter in fetched:
            (folder / "home" / "preflexor" / converter.name).symlink_to(converter)
        for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(folder / "home"))
        for name in [n for n in os.environ if n.startswith("PREFLEXOR_")]:
            patch.delenv(name)
        patch.setenv("OLLAMA_HOST", stub.host)
        (folder / "here").mkdir()
        patch.chdir(folder / "here")
        papers(Path("papers"))
        for name in ("preflexor_agents", "examples", "training"):
            Path(name).symlink_to(ROOT / name)
        yield Reader(stub)


def _speak(model: StubModel, prompt: str, options: dict[str, Any]) -> str:
    """What a teacher says to its tasks; else a thought and the last sentence of the first passage."""
    request = Request(messages=(Message("user", prompt),), seed=options.get("seed", 0))
    if "list the facts of the text" in prompt:
        return '{"facts": []}'
    try:
        return str(teach(request))
    except (StopIteration, IndexError):
        said = (facts(request) or [f"The passages do not say, try {request.seed % 97}."])[0]
        opened, closed = model.tags or ("", "")
        return said if closed in prompt.rpartition("assistant")[2] else f"{opened}Look at passage 1.{closed}{said}"


def near(shown: str, printed: str) -> bool:
    """Whether enough of the lines that are shown were printed, whatever numbers and paths are in them."""
    real = {_masked(line) for line in printed.splitlines()}
    lines = [_masked(line) for line in shown.splitlines() if line.strip() and line.strip() != "…"]
    return bool(lines) and sum(line in real for line in lines) >= _NEAR * len(lines)


def _masked(line: str) -> str:
    line = re.sub(r"(?:[~/.\w-]*/)+[\w.-]+", "PATH", line)
    return re.sub(r"\s+", " ", _NUMBER.sub("0", line)).strip()


def _run(script: Path) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue()


def _check_extras(words: list[str], place: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(known), f"{place}: {extras}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, reader(Path(temporary)) as someone:
        source = (ROOT / sys.argv[1]).resolve()
        try:
            someone.follow(source)
        finally:
            for command, said in someone.typed:
                sys.stdout.write(f"$ {command}\n{said}\n")
