"""Opens a GGUF file with llama.cpp, or says in one line why it cannot be used."""

import ctypes
import os
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import llama_cpp

from preflexor_agents.backends.context import RECURRENT_SEQUENCES, SEQUENCES, Context
from preflexor_agents.backends.pieces import LONG_PIECE_TOK
from preflexor_agents.errors import ModelError

CACHE_BYTES = 1 << 30
"""Cache that replies written side by side may share; a single one gets its whole context in any case."""
MOST_CONTEXTS = 8
"""Most contexts' worth of cells in the cache."""
_LOG_ERROR, _LOG_CONTINUED = 4, 5
_ANOTHER = "use a file of an instruction-tuned model, or convert the model again with its chat template"


@dataclass(slots=True)
class ModelFile:
    """A loaded model; `close` frees it, after everything made from it."""

    path: Path
    pointer: int
    vocabulary: int
    """llama.cpp's vocabulary, part of the model."""
    trained_tok: int
    """Context that the model was trained with."""
    chat_template: str
    """Jinja source."""

    def context(self, *, context_tok: int, threads: int) -> Context:
        """A new context whose cache holds at least `context_tok` tokens, more where they are small.

        Raises:
            ModelError: there is not enough memory for it.
        """
        params = llama_cpp.llama_context_default_params()
        hybrid = bool(llama_cpp.llama_model_is_hybrid(self.pointer))
        recurrent = hybrid or bool(llama_cpp.llama_model_is_recurrent(self.pointer))
        affordable = 0 if hybrid else CACHE_BYTES // self._cell_bytes()  # which layers have a cache is not said
        cells = max(context_tok, min(MOST_CONTEXTS * context_tok, affordable))
        sequences = RECURRENT_SEQUENCES if recurrent else SEQUENCES
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = LONG_PIECE_TOK
        params.n_seq_max = sequences
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        if not llama_cpp.llama_supports_gpu_offload():
            # On CPUs it computes a row at a time: eight replies of nano take 1.5 times as long with it.
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        _log().errors.clear()
        context: int | None = llama_cpp.llama_init_from_model(self.pointer, params)
        if context is None:
            raise ModelError(f"no context of {context_tok} tokens{_reason()}; close other programs")
        whole = not recurrent and not llama_cpp.llama_model_n_swa(self.pointer)
        return Context(context, cells=cells, sequences=sequences, shares=not recurrent, saves=whole)

    def _cell_bytes(self) -> int:
        """What keys and values of one token take in the cache, in 16-bit floats.

        Head sizes from the metadata: with latent attention (MLA), or where the heads together are wider than the
        model, the width of the model says nothing about them.
        """
        model = self.pointer
        attention = f"{_metadata(model, 'general.architecture')}.attention"
        head = llama_cpp.llama_model_n_embd(model) // max(1, llama_cpp.llama_model_n_head(model))
        said = [_metadata(model, f"{attention}.{name}") for name in ("key_length", "value_length")]
        width = sum(int(length) if length.isdigit() else head for length in said)
        return max(1, int(2 * llama_cpp.llama_model_n_layer(model) * llama_cpp.llama_model_n_head_kv(model) * width))

    def close(self) -> None:
        """Free the model. Idempotent."""
        if self.pointer:
            llama_cpp.llama_model_free(self.pointer)
            self.pointer = 0


def load(path: Path, *, vocabulary_only: bool = False) -> ModelFile:
    """Load a model that can chat; layers go to a GPU where llama.cpp was built for one.

    Args:
        path: a GGUF file.
        vocabulary_only: leave out the weights: quick and small, but it has no decoder.

    Raises:
        ModelError: the file is missing, damaged, no GGUF, no text generator, or has no chat template.
    """
    _check_magic(path)
    _log().errors.clear()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = vocabulary_only
    pointer: int | None = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if pointer is None:
        raise ModelError(f"{path} cannot be loaded{_reason()}; download or convert it again")
    try:
        template = _chat_template(path, pointer)
    except ModelError:
        llama_cpp.llama_model_free(pointer)
        raise
    return ModelFile(
        path=path,
        pointer=pointer,
        vocabulary=llama_cpp.llama_model_get_vocab(pointer),
        trained_tok=_trained_tok(pointer),
        chat_template=template,
    )


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise ModelError(f"model file {path} does not exist; give the path of a GGUF file") from None
    except OSError as e:
        raise ModelError(f"model file {path} cannot be read: {e.strerror or e}; give the path of a GGUF file") from None
    if magic != b"GGUF":
        raise ModelError(f"{path} is not a GGUF file; convert the model to GGUF, or give another file")


def _chat_template(path: Path, pointer: int) -> str:
    architecture = _metadata(pointer, "general.architecture")
    pools = _metadata(pointer, f"{architecture}.pooling_type") not in ("", "0")
    causal = _metadata(pointer, f"{architecture}.attention.causal") != "false"
    if pools or not causal or llama_cpp.llama_model_has_encoder(pointer):
        raise ModelError(f"{path} ({architecture or 'unknown'}) is no text generator but makes embeddings; {_ANOTHER}")
    template: bytes | None = llama_cpp.llama_model_chat_template(pointer, None)
    if not template:
        raise ModelError(f"{path} has no chat template; {_ANOTHER}")
    return template.decode("utf-8", errors="replace")


def _trained_tok(pointer: int) -> int:
    """From the metadata: a model without weights is not asked for it."""
    said = _metadata(pointer, f"{_metadata(pointer, 'general.architecture')}.context_length")
    return int(said) if said.isdigit() else int(llama_cpp.llama_model_n_ctx_train(pointer))


def _metadata(pointer: int, key: str) -> str:
    """A metadata value as text, cut at 255 bytes; empty if it is not there."""
    out = ctypes.create_string_buffer(256)
    found = llama_cpp.llama_model_meta_val_str(pointer, key.encode(), out, len(out))
    return out.value.decode("utf-8", errors="replace") if found >= 0 else ""


class _Log(NamedTuple):
    errors: deque[str]
    callback: object
    """llama.cpp holds a bare pointer to it, so it must stay alive."""


@cache
def _log() -> _Log:
    """llama.cpp's latest errors; the first call makes it ready, and silent on stderr."""
    errors: deque[str] = deque(maxlen=8)
    level_of_line = _LOG_ERROR

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(level: int, text: bytes, _: object) -> None:
        nonlocal level_of_line
        level_of_line = level_of_line if level == _LOG_CONTINUED else level
        if level_of_line == _LOG_ERROR:
            errors.append(" ".join(text.decode("utf-8", errors="replace").split()))

    llama_cpp.llama_log_set(keep, None)
    llama_cpp.llama_backend_init()
    return _Log(errors, keep)


def _reason() -> str:
    """llama.cpp's error in words, to be put behind what failed."""
    lines = [line.split("error loading model: ")[-1] for line in _log().errors if line]
    return f": {lines[0]}" if lines else ""
