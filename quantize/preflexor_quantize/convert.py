"""A Hugging Face model folder as a GGUF file that is proven to behave like it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize.converter import converter_folder
from preflexor_quantize.verify import Agreement, verify

Dtype = Literal["f32", "f16", "bf16", "q8_0"]


def convert(hf_folder: Path, out: Path, *, dtype: Dtype = "f16") -> Agreement:
    """Convert, verify against the folder, and only then put the file in place.

    Raises:
        ModelError: the folder is not a model, or its tokenizer is one that llama.cpp has no name for.
        PreflexorError: the file does not behave like the folder.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (hf_folder / name).is_file():
            raise ModelError(f"{hf_folder} has no {name}; give the folder that save_pretrained wrote")
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(out.name + ".partial")
    try:
        _run_converter(hf_folder, fresh, dtype=dtype)
        agreement = verify(hf_folder, fresh, exact=dtype in ("f32", "f16"))
        os.replace(fresh, out)
    finally:
        fresh.unlink(missing_ok=True)
    return agreement


def _run_converter(hf_folder: Path, out: Path, *, dtype: Dtype) -> None:
    command = [sys.executable, "-m", "preflexor_quantize.hf_to_gguf", str(converter_folder())]
    command += [str(hf_folder), "--outfile", str(out), "--outtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and out.is_file():
        return
    lines = done.stderr.strip().splitlines() or ["it gave no reason"]
    if "pre-tokenizer was not recognized" in done.stderr:
        raise ModelError(f"{hf_folder}: llama.cpp has no name for how this tokenizer splits text")
    raise PreflexorError(f"the converter failed on {hf_folder}: {lines[-1]}")
