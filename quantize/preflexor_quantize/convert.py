"""A Hugging Face or MLX model folder as a GGUF file that is proven to behave like it."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize.agreement import Agreement
from preflexor_quantize.converter import converter_folder
from preflexor_quantize.files import Watch, Written, check_room, ignore, replacing, size_of
from preflexor_quantize.folder import ModelFolder, read_folder

Dtype = Literal["f32", "f16", "bf16", "q8_0"]
BYTES_PER_WEIGHT = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
_POLL_S = 0.2
_ERROR = re.compile(r"(?:[\w.]+(?:Error|Exception)|ERROR)\b.*:")
_FULL = re.compile(r"No space left|File too large|quota exceeded|\d+ requested and \d+ written")
_UNKNOWN = re.compile(r"Model (\S+) is not supported")


def convert(
    hf_folder: Path, out: Path, *, dtype: Dtype = "f16", converter: Path | None = None, watch: Watch = ignore
) -> Agreement:
    """Convert, verify against the folder, and only then put the file in place.

    Args:
        hf_folder: a whole model.
        out: the GGUF file.
        dtype: of the weights.
        converter: folder of a llama.cpp checkout to use instead of the cached converter.
        watch: takes the progress.

    Raises:
        ModelError: the folder is not a model, or its tokenizer is one that llama.cpp has no name for.
        PreflexorError: the file does not behave like the folder, or there is no room for it.
    """
    from preflexor_quantize.verify import verify

    folder = read_folder(hf_folder)
    check_room(out.parent, int(folder.parameters * BYTES_PER_WEIGHT[dtype]))
    with replacing(out) as fresh:
        run_converter(folder, fresh, dtype=dtype, converter=converter, watch=watch)
        return verify(hf_folder, fresh, exact=dtype in ("f32", "f16"))


def run_converter(
    folder: ModelFolder,
    out: Path,
    *,
    dtype: Dtype,
    converter: Path | None = None,
    outline: bool = False,
    watch: Watch = ignore,
) -> None:
    """Convert without a check; with `outline` the file has a header and its length, but no weights.

    Raises:
        ModelError: as `convert`.
        PreflexorError: the converter failed, with its last line.
    """
    arguments = ["--outline"] if outline else []
    arguments += ["--outfile", str(out), "--outtype", dtype, str(folder.path.absolute())]
    total = int(folder.parameters * BYTES_PER_WEIGHT[dtype])
    said = run_script("convert_hf_to_gguf.py", arguments, out, total, converter=converter, watch=watch)
    if said is None:
        return
    if _FULL.search(said):
        raise PreflexorError(f"{out.parent} is full; free some of the disk, or give another folder")
    if "pre-tokenizer was not recognized" in said:
        raise ModelError(
            f"{folder.path}: llama.cpp has no name for how this tokenizer splits text; "
            "use the split of Llama 3, Qwen 2 or GPT-2"
        )
    if found := _UNKNOWN.search(said):
        raise ModelError(f"{folder.path} is a {found[1]}, which llama.cpp's converter does not know")
    raise PreflexorError(f"the converter failed on {folder.path}: {last_error(said)}")


def run_script(
    name: str, arguments: list[str], out: Path, total: int, *, converter: Path | None, watch: Watch
) -> str | None:
    """Run one of the converter's scripts; what it said if it failed, else None. It never reaches the network."""
    command = [sys.executable, "-m", "preflexor_quantize.hf_to_gguf", str(converter_folder(converter).absolute())]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, name, *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env
        )
        try:
            while True:
                try:
                    process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    watch(Written("convert", size_of(out), total))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode == 0 and out.is_file():
            return None
        said.seek(0)
        return said.read().decode("utf-8", errors="replace") or f"it ended with code {process.returncode}"


def last_error(said: str) -> str:
    """The line that names the error, else the last one; progress bars may follow either."""
    lines = [line.strip() for line in re.split(r"[\r\n]", said) if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    return [*lines, *named][-1][:300] if lines else "it gave no reason"
