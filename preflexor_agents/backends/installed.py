"""The models that are on this machine: bundled, in our own folder, in the cache of Hugging Face, and in Ollama.

Nothing is loaded, and no place can spoil the others: what is wrong with one is said beside it.
"""

import asyncio
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from preflexor_agents.backends.gguf_header import read_header
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_agents.markup import TAGS

OLLAMA_WAIT_S = 5.0
"""Longest wait for a server that should answer at once."""
_AT_ONCE = 8
_LONGEST_JSON = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model that is here."""

    spec: str
    """What `--model` takes; empty for weights that have to be converted first."""
    name: str
    format: str
    """GGUF, MLX or safetensors."""
    size_bytes: int
    level: str = ""
    """Quantisation or number format, as `Q4_K_M` or `4-bit`."""
    context_tok: int = 0
    """Trained context; 0 if not known."""
    can: tuple[str, ...] = ()
    """`thinking`: it marks its thinking by tags of its own; `tools`; and what else Ollama says."""
    loaded: bool = False
    path: str = ""
    problem: str = ""
    """Why it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where models are, and those that are there."""

    name: str
    where: str
    ours: bool = False
    """Whether `models rm` may remove what is there."""
    models: tuple[Installed, ...] = ()
    problem: str = ""
    """Why nothing can be said about it."""


def models_folder() -> Path:
    """Where the models are that this program made."""
    return Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "models"


def hub_folder() -> Path:
    """The cache that Hugging Face's and Apple's tools share."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


async def installed() -> tuple[Place, ...]:
    """All places with their models."""
    return (bundled(), own(), hub(), await ollama())


def bundled() -> Place:
    """The model in the package."""
    try:
        path = nano_path()
    except ModelError as e:
        return Place(name="bundled", where="the package", problem=str(e))
    return Place(name="bundled", where=str(path.parent), models=(gguf_file(path, spec="nano"),))


def own() -> Place:
    """The folder of this program's own models."""
    folder = models_folder()
    try:
        models = tuple(_in_folder(folder))
    except OSError as e:
        return Place(name="models folder", where=str(folder), ours=True, problem=e.strerror or str(e))
    return Place(name="models folder", where=str(folder), ours=True, models=models)


def hub() -> Place:
    """The cache of Hugging Face, where MLX models are as well; read only."""
    folder = hub_folder()
    found: list[Installed] = []
    try:
        for repository in sorted(folder.glob("models--*")):
            snapshot = _snapshot(repository)
            name = repository.name.removeprefix("models--").replace("--", "/")
            found += [] if snapshot is None else _in_folder(snapshot, name=name)
    except OSError as e:
        return Place(name="Hugging Face cache", where=str(folder), problem=e.strerror or str(e))
    return Place(name="Hugging Face cache", where=str(folder), models=tuple(found))


async def ollama(url: str | None = None) -> Place:
    """The models of the Ollama server."""
    from preflexor_agents.backends.ollama_server import FAILURES, connect, failure, server_url

    try:
        url = url or server_url()
    except PreflexorError as e:
        return Place(name="Ollama", where="OLLAMA_HOST", ours=True, problem=str(e))
    try:
        async with connect(url) as client, asyncio.timeout(OLLAMA_WAIT_S):
            listed = [m for m in (await client.list()).models if m.model]
            loaded = {m.model for m in (await client.ps()).models}
            turn = asyncio.Semaphore(_AT_ONCE)

            async def told(name: str) -> Any:
                async with turn:
                    try:
                        return await client.show(name)
                    except (*FAILURES, TypeError, AttributeError):  # it was removed meanwhile, or is broken
                        return None

            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(told(m.model or "")) for m in listed]
            shown = [task.result() for task in asked]
    except TimeoutError:
        problem = f"no answer within {OLLAMA_WAIT_S:.0f} s; is it starting?"
        return Place(name="Ollama", where=url, ours=True, problem=problem)
    except (*FAILURES, TypeError, AttributeError) as e:
        return Place(name="Ollama", where=url, ours=True, problem=str(failure(e, url=url, name="the list")))
    models = tuple(_served(m, about, loaded) for m, about in zip(listed, shown, strict=True))
    return Place(name="Ollama", where=url, ours=True, models=models)


def gguf_file(path: Path, *, spec: str | None = None) -> Installed:
    """A GGUF file."""
    spec = f"gguf:{path}" if spec is None else spec
    size = path.stat().st_size
    try:
        head = read_header(path)
    except ModelError as e:
        return Installed(spec=spec, name=path.name, format="GGUF", size_bytes=size, path=str(path), problem=str(e))
    return Installed(
        spec=spec,
        name="nano" if spec == "nano" else path.name,
        format="GGUF",
        size_bytes=size,
        level=head.level,
        context_tok=head.context_tok,
        can=("thinking",) if head.tags else (),
        path=str(path),
        problem="" if head.chats else "it has no chat template",
    )


def _in_folder(folder: Path, *, name: str = "") -> Iterator[Installed]:
    """Models in a folder and the folders in it. One that cannot be read raises OSError."""
    if not folder.is_dir():
        return
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        yield _weights(folder, name or folder.name)
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() == ".gguf" and file.is_file():
            yield gguf_file(file)
        elif file.is_dir() and not file.is_symlink() and not file.name.startswith("."):
            yield from _in_folder(file, name=name and f"{name}/{file.name}")


def _weights(folder: Path, name: str) -> Installed:
    """A folder with safetensors: for MLX, or as they are trained."""
    files = sorted(folder.glob("*.safetensors"))
    config = _json(folder / "config.json")
    mlx, level = _mlx(config, files[0])
    context = config.get("max_position_embeddings")
    template = _template(folder)
    can = {"thinking": any(tag in template for tag in TAGS), "tools": "tools" in template}
    return Installed(
        spec=f"mlx:{folder}" if mlx else "",
        name=name,
        format="MLX" if mlx else "safetensors",
        size_bytes=sum(f.stat().st_size for f in files),
        level=level,
        context_tok=context if isinstance(context, int) else 0,
        can=tuple(word for word, there in can.items() if there),
        path=str(folder),
        problem="" if mlx else "to be converted first: preflexor quantize",
    )


def _mlx(config: dict[str, Any], file: Path) -> tuple[bool, str]:
    """Whether the weights are written for MLX, and in which numbers."""
    quantized = config.get("quantization")
    if isinstance(quantized, dict) and "bits" in quantized:
        return True, f"{quantized['bits']}-bit"
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "")
    return _made_for_mlx(file), dtype


def _made_for_mlx(file: Path) -> bool:
    try:
        with file.open("rb") as data:
            size = int.from_bytes(data.read(8), "little")
            head = json.loads(data.read(size)) if size <= _LONGEST_JSON else {}
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and (head.get("__metadata__") or {}).get("format") == "mlx"


def _template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    return str(_json(folder / "tokenizer_config.json").get("chat_template", ""))


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LONGEST_JSON:
            return {}
        found = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _snapshot(repository: Path) -> Path | None:
    """The newest version of a repository in the cache."""
    snapshots = repository / "snapshots"
    head = repository / "refs" / "main"
    if head.is_file() and (snapshots / (named := head.read_text(encoding="utf-8").strip())).is_dir() and named:
        return snapshots / named
    there = [folder for folder in snapshots.glob("*") if folder.is_dir()]
    return max(there, key=lambda folder: folder.stat().st_mtime, default=None)


def _served(model: Any, about: Any, loaded: Collection[str | None]) -> Installed:
    """A model of Ollama, with what /api/show says of it, None if that failed."""
    details = model.details
    info = {} if about is None else about.modelinfo or {}
    context = info.get(f"{info.get('general.architecture')}.context_length")
    return Installed(
        spec=f"ollama:{model.model}",
        name=str(model.model),
        format=((details.format if details else "") or "GGUF").upper(),
        size_bytes=int(model.size or 0),
        level=(details.quantization_level if details else "") or "",
        context_tok=context if isinstance(context, int) else 0,
        can=() if about is None else tuple(about.capabilities or ()),
        loaded=model.model in loaded,
        problem="Ollama tells nothing about it" if about is None else "",
    )
