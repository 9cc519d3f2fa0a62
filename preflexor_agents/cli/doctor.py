"""`preflexor doctor`: what is installed, what runs, and the command that fixes what does not."""

import asyncio
import importlib.metadata
import importlib.util
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

import preflexor_agents
from preflexor_agents.errors import ConfigError, InputError

Status = Literal["ok", "absent", "warning", "broken"]
COLOURS: dict[Status, str] = {"ok": "green", "absent": "cyan", "warning": "yellow", "broken": "red"}

PACKAGE = Path(preflexor_agents.__file__).parent
SAFE_SQLITE = (3, 51, 3)
"""Older versions (from 3.7.0) can damage a database when two processes reset its write-ahead log."""
EXTRAS = {
    "tui": ("textual", "tomlkit"),
    "web": ("textual_serve", "aiohttp"),
    "graph": ("rustworkx",),
    "train": ("torch", "transformers", "trl", "peft", "datasets", "accelerate"),
    "mlx": ("mlx", "mlx_lm"),
    "quantize": ("torch", "transformers", "peft", "gguf", "safetensors", "sentencepiece"),
}
"""Extra -> the modules that tell whether it is installed."""
LLAMA_PROBE = (
    "import json, llama_cpp; llama_cpp.llama_backend_init(); "
    "print(json.dumps([llama_cpp.__version__, llama_cpp.llama_print_system_info().decode()]))"
)
OLLAMA_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found out about one part."""

    name: str
    status: Status
    """`broken` stops preflexor from working, `warning` can bite, `absent` is only needed for some things."""
    detail: str
    fix: str = ""
    """A command, or what to do in words."""


@click.command(short_help="Check what is installed and how to fix what is not.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """Check what is installed, and show the command that fixes what is missing.

    Ends with exit code 1 if something that preflexor cannot do without is broken.
    """
    checks = list(examine())
    working = all(check.status != "broken" for check in checks)
    if as_json:
        found = {"version": preflexor_agents.__version__, "ok": working, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps(found, indent=2))
    else:
        for check in checks:
            status = click.style(f"{check.status:8}", fg=COLOURS[check.status])
            click.echo(f"{status} {check.name:14} {check.detail}")
            if check.fix:
                click.echo(f"{'':8} {'':14} fix: {check.fix}")
    ctx.exit(0 if working else 1)


def examine() -> Iterator[Check]:
    """All checks, one after the other; those that stop everything come first."""
    yield Check(name="preflexor", status="ok", detail=f"{preflexor_agents.__version__} in {PACKAGE}")
    yield Check(name="Python", status="ok", detail=f"{platform.python_version()}, {platform.platform(terse=True)}")
    yield sqlite()
    yield llama()
    yield bundled_model()
    yield library()
    yield settings()
    yield ollama()
    for extra, modules in EXTRAS.items():
        yield installed_extra(extra, modules)


def sqlite() -> Check:
    """The SQLite that the store uses, and whether sqlite-vec loads into it."""
    from preflexor_agents.store import driver

    detail = f"{driver.sqlite3.sqlite_version} through {driver.sqlite3.__name__}"
    reinstall = pip_install("pysqlite3", "sqlite-vec")
    if driver.sqlite3.sqlite_version_info < SAFE_SQLITE:
        detail += "; older than 3.51.3: two programs writing one store at once can damage it"
        return Check(name="SQLite", status="warning", detail=detail, fix=reinstall)
    with closing(driver.sqlite3.connect(":memory:")) as connection:
        if not driver.load_vec(connection):
            detail += "; sqlite-vec does not load, so searches read every vector"
            return Check(name="SQLite", status="warning", detail=detail, fix=reinstall)
        vec_version = connection.execute("SELECT vec_version()").fetchone()[0]
    return Check(name="SQLite", status="ok", detail=f"{detail}, sqlite-vec {vec_version}")


def llama() -> Check:
    """Whether llama.cpp starts; in a process of its own, because a build for another CPU kills the process."""
    probe = subprocess.run([sys.executable, "-c", LLAMA_PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        if importlib.util.find_spec("llama_cpp") is None:
            detail = "llama-cpp-python is not installed"
        else:
            last = (probe.stderr.strip().splitlines() or ["no message"])[-1]
            detail = f"llama-cpp-python does not start (exit code {probe.returncode}): {last}"
        remedy = f"{pip_install('llama-cpp-python')} --force-reinstall --no-cache-dir --no-deps"
        return Check(name="llama.cpp", status="broken", detail=detail, fix=remedy)
    version, system = json.loads(probe.stdout)
    features = " ".join(
        part.split("=")[0].split(":")[-1].strip() for part in system.split("|") if part.strip().endswith("= 1")
    )
    return Check(name="llama.cpp", status="ok", detail=f"llama-cpp-python {version}; {features or system.strip()}")


def bundled_model() -> Check:
    """The model file that ships in the package."""
    file = PACKAGE / "data" / "nano" / "nano.gguf"
    fix = "restore it: " + (f"git -C {PACKAGE.parent} checkout -- {file}" if is_checkout() else reinstall_self())
    try:
        with file.open("rb") as head:
            magic = head.read(4)
        size = file.stat().st_size
    except OSError as e:
        return Check(name="nano", status="broken", detail=f"bundled model {file}: {e.strerror}", fix=fix)
    if magic != b"GGUF":
        return Check(name="nano", status="broken", detail=f"bundled model {file} is not a GGUF file", fix=fix)
    return Check(name="nano", status="ok", detail=f"bundled model, {size / 1e6:.1f} MB; it knows its library only")


def library() -> Check:
    """The notes that ship in the package."""
    folder = PACKAGE / "data" / "library"
    notes = len(list(folder.glob("*.md")))
    if notes == 0:
        fix = f"git -C {PACKAGE.parent} checkout -- {folder}" if is_checkout() else reinstall_self()
        return Check(name="library", status="broken", detail=f"no notes in {folder}", fix=fix)
    return Check(name="library", status="ok", detail=f"{notes} bundled notes")


def settings() -> Check:
    """What a command without options would use."""
    from preflexor_agents.settings import load

    try:
        found = load()
    except ConfigError as e:
        return Check(name="settings", status="broken", detail=str(e), fix="correct or remove that setting")
    if not found.store.exists():
        detail = f"model {found.model}; no store yet at {found.store}"
        return Check(name="settings", status="ok", detail=detail, fix="preflexor ingest PATH… makes it")
    size = found.store.stat().st_size / 1e6
    return Check(name="settings", status="ok", detail=f"model {found.model}; store {found.store}, {size:.1f} MB")


def ollama() -> Check:
    """Whether an Ollama server answers, and the models it has."""
    from preflexor_agents.backends.ollama_server import FAILURES, server_url

    try:
        url = server_url()
    except ConfigError as e:
        return Check(name="Ollama", status="warning", detail=str(e), fix="correct or unset OLLAMA_HOST")
    try:
        models = asyncio.run(ollama_models(url))
    except (TimeoutError, *FAILURES) as e:
        why = " ".join(str(e).split()).split(". ")[0] or "it does not answer"
        fix = "install it from https://ollama.com/download, then: ollama serve"
        return Check(name="Ollama", status="absent", detail=f"no server at {url}: {why}", fix=fix)
    if not models:
        return Check(name="Ollama", status="absent", detail=f"at {url}, without a model", fix="ollama pull qwen3:4b")
    return Check(name="Ollama", status="ok", detail=f"at {url}: {', '.join(models)}")


async def ollama_models(url: str) -> list[str]:
    """Names of the models that the server has."""
    from preflexor_agents.backends.ollama_server import connect

    async with connect(url) as client, asyncio.timeout(OLLAMA_TIMEOUT_S):
        return sorted(model.model or "" for model in (await client.list()).models)


def installed_extra(extra: str, modules: tuple[str, ...]) -> Check:
    """Whether all of an extra can be imported; nothing is imported."""
    name = f"extra {extra}"
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        fix = pip_install(f".[{extra}]" if is_checkout() else f"preflexor-agents[{extra}]")
        if "torch" in missing:
            fix = f"{pip_install('torch==2.13.0')} && {fix}"
        return Check(name=name, status="absent", detail=f"without {', '.join(missing)}", fix=fix)
    versions = ", ".join(f"{m} {importlib.metadata.version(m.replace('_', '-'))}" for m in modules)
    return Check(name=name, status="ok", detail=versions)


def need_extra(extra: str, purpose: str) -> None:
    """See that an extra is installed.

    Args:
        extra: its name in `EXTRAS`.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        InputError: it is not; with the command that installs it.
    """
    check = installed_extra(extra, EXTRAS[extra])
    if check.status != "ok":
        missing = check.detail.removeprefix("without ")
        raise InputError(f"{purpose} needs {missing}; install with: {check.fix}")


def is_checkout() -> bool:
    """Whether the package runs from a source tree."""
    return (PACKAGE.parent / "pyproject.toml").is_file()


def pip_install(*requirements: str) -> str:
    """The shell command that installs into this Python, with the known good versions where they are at hand."""
    command = [sys.executable, "-m", "pip", "install"]
    if not is_checkout():
        return shlex.join([*command, *requirements])
    root = PACKAGE.parent
    wanted = [f"{root}{r[1:]}" if r.startswith(".[") else r for r in requirements]
    editable = ["--editable"] if wanted != list(requirements) else []
    return shlex.join([*command, "--constraint", str(root / "constraints.txt"), *editable, *wanted])


def reinstall_self() -> str:
    """The command that puts the package's own files back."""
    return pip_install("preflexor-agents") + " --force-reinstall --no-deps"
