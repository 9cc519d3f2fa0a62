"""llama.cpp's own converter, taken from the source archive of the llama-cpp-python that runs the models.

No package ships the converter; the archive that pip builds the runtime from holds it, so the two always match. It is
unpacked once per user, and only after its hash has been checked: against the one below for the version that we pin,
by pip against the package index for any other, as when that version itself was installed.
"""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import platformdirs

from preflexor_agents.errors import InputError, PreflexorError

PINNED = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}
"""Version of llama-cpp-python -> sha256 of its source archive."""
ENTRIES = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py")


def installed_version() -> str:
    """Of llama-cpp-python."""
    return importlib.metadata.version("llama-cpp-python")


def cached_converter() -> Path:
    """Where the converter of the installed version is, or will be."""
    version = installed_version()
    return Path(platformdirs.user_cache_dir("preflexor")) / f"converter-{version}-{PINNED.get(version, 'index')[:12]}"


def converter_folder(own: Path | None = None) -> Path:
    """The user's own converter, else the unpacked one; fetched with pip the first time (77 MB).

    Raises:
        InputError: the folder is no llama.cpp that we can drive.
        PreflexorError: the archive cannot be fetched, or is not the one it should be.
    """
    if own is not None:
        _check(own)
        return own
    folder = cached_converter()
    if (folder / ENTRIES[0]).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        unpacked = Path(work) / "unpacked"
        version = installed_version()
        _unpack(_fetch(Path(work), version), into=unpacked, version=version)
        _check(unpacked)
        try:
            unpacked.rename(folder)
        except OSError:  # another process was first
            if not (folder / ENTRIES[0]).is_file():
                raise
    return folder


def _check(folder: Path) -> None:
    missing = [name for name in ENTRIES if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"{folder} has no {', '.join(missing)}; give --converter the folder of a llama.cpp checkout from 2026"
        )


def _fetch(folder: Path, version: str) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise PreflexorError(
            "the converter is fetched with pip, which this environment lacks; run `python -m ensurepip`, "
            "or give --converter the folder of a llama.cpp checkout"
        )
    wanted = folder / "requirements.txt"
    known = PINNED.get(version)
    wanted.write_text(
        f"llama-cpp-python=={version}" + (f" --hash=sha256:{known}" if known else "") + "\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    command += [*(["--require-hashes"] if known else []), "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    archive = folder / f"llama_cpp_python-{version}.tar.gz"
    if done.returncode or not archive.is_file():
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise PreflexorError(
            f"could not fetch the source of llama-cpp-python {version}, which holds the converter: {reason}; "
            "connect to the network once, or give --converter the folder of a llama.cpp checkout"
        )
    return archive


def _unpack(archive: Path, *, into: Path, version: str) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != PINNED.get(version, digest):
        raise PreflexorError(f"{archive.name} has sha256 {digest}, not {PINNED[version]}; delete it and try again")
    root = PurePosixPath(f"llama_cpp_python-{version}/vendor/llama.cpp")
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not (member.isfile() and path.is_relative_to(root) and path.relative_to(root).parts[0] in ENTRIES):
                continue
            if ".." in path.parts:
                continue
            target = into.joinpath(*path.relative_to(root).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())
