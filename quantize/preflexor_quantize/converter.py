"""llama.cpp's own converter, taken from the source archive of the llama-cpp-python that runs the models.

No package ships the converter; the archive that pip builds the runtime from holds it, so the two always match. It is
unpacked once per user, and only after its hash has been checked.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import platformdirs

from preflexor_agents.errors import PreflexorError

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
ENTRIES = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py")


def converter_folder() -> Path:
    """The unpacked converter in the user's cache; fetched with pip the first time (77 MB)."""
    folder = Path(platformdirs.user_cache_dir("preflexor")) / f"converter-{VERSION}-{SHA256[:12]}"
    if (folder / ENTRIES[0]).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        unpacked = Path(work) / "unpacked"
        _unpack(_fetch(Path(work)), into=unpacked)
        try:
            unpacked.rename(folder)
        except OSError:  # another process was first
            if not (folder / ENTRIES[0]).is_file():
                raise
    return folder


def _fetch(folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / f"llama_cpp_python-{VERSION}.tar.gz"
    if done.returncode or not archive.is_file():
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise PreflexorError(
            f"could not fetch the source of llama-cpp-python {VERSION}, which holds the converter: {reason}"
        )
    return archive


def _unpack(archive: Path, *, into: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise PreflexorError(f"{archive.name} has sha256 {digest}, not {SHA256}; delete it and try again")
    root = PurePosixPath(f"llama_cpp_python-{VERSION}/vendor/llama.cpp")
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not (member.isfile() and path.is_relative_to(root) and path.relative_to(root).parts[0] in ENTRIES):
                continue
            target = into.joinpath(*path.relative_to(root).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())
