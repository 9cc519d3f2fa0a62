"""A GGUF file in llama.cpp as a function from tokens to logits: what checks and measurements need, and no more."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from preflexor_agents.backends.tokens import Vocabulary
from preflexor_agents.errors import BackendError, ModelError
from preflexor_quantize.llama_log import log_lines, reason


def threads() -> int:
    """Threads to compute with: what OMP_NUM_THREADS says, else one for each usable processor."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Engine:
    """A loaded model with a context of one sequence. `close` frees both."""

    def __init__(self, file: Path, *, context_tok: int = 512, adapter: Path | None = None, on_node: Any = None) -> None:
        """Load.

        Args:
            file: a GGUF file.
            context_tok: most tokens at once; fewer if the model was trained with fewer.
            adapter: a GGUF adapter to apply, at full strength.
            on_node: llama.cpp's callback for each node that it computes; must outlive this object.

        Raises:
            ModelError: the file or the adapter cannot be used.
        """
        self._context: int | None = None
        with log_lines() as lines:
            params = llama_cpp.llama_model_default_params()
            self._model: int | None = llama_cpp.llama_model_load_from_file(os.fsencode(file), params)
            if self._model is None:
                raise ModelError(f"{file} cannot be loaded: {reason(lines)}")
            self.context_tok = min(context_tok, int(llama_cpp.llama_model_n_ctx_train(self._model)))
            self._context = self._new_context(on_node)
            if self._context is None:
                self.close()
                raise ModelError(f"no context for {file}: {reason(lines)}")
            if adapter is not None and not self._apply(adapter):
                self.close()
                raise ModelError(f"{adapter} does not fit {file.name}: {reason(lines)}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.vocabulary = Vocabulary(self._vocab)

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> np.ndarray:
        """Logits after each token from number `first` on, float32, (len(tokens) - first, V).

        Raises:
            BackendError: llama.cpp could not evaluate them.
        """
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for at, token in enumerate(tokens):
                batch.token[at], batch.pos[at] = token, at
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
                batch.logits[at] = at >= first
            self._decode(batch, len(tokens))
        finally:
            llama_cpp.llama_batch_free(batch)
        return self._rows(len(tokens) - first)

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest next tokens, one after the other; end tokens do not end it. Raises as `logits`."""
        written = [int(self.logits(prompt, first=len(prompt) - 1)[0].argmax())]
        while len(written) < count:
            one = (llama_cpp.llama_token * 1)(written[-1])
            self._decode(llama_cpp.llama_batch_get_one(one, 1), 1)
            written.append(int(self._rows(1)[0].argmax()))
        return written

    def tokens_of(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text without BOS; `special` also recognises control tokens."""
        return self.vocabulary.tokenize(text, special=special)

    def token_texts(self) -> list[str]:
        """How the vocabulary writes each token."""
        return [self.vocabulary.text_of(n) for n in range(self.n_vocab)]

    def token_kinds(self) -> list[tuple[str, int]]:
        """Text and attributes of each token."""
        attributes = (int(llama_cpp.llama_vocab_get_attr(self._vocab, n)) for n in range(self.n_vocab))
        return list(zip(self.token_texts(), attributes, strict=True))

    def is_control(self, token: int) -> bool:
        """Whether llama.cpp shows the token as nothing."""
        return bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL)

    def cache_bytes(self, context_tok: int) -> int:
        """Memory of the keys and values of so many tokens, in 16 bits."""
        model = self._model
        heads = int(llama_cpp.llama_model_n_head(model)) or 1
        width = int(llama_cpp.llama_model_n_embd(model)) // heads
        numbers = int(llama_cpp.llama_model_n_layer(model)) * int(llama_cpp.llama_model_n_head_kv(model)) * width
        return 2 * 2 * numbers * min(context_tok, int(llama_cpp.llama_model_n_ctx_train(model)))

    @property
    def chat_template(self) -> str:
        """Jinja source; empty if there is none."""
        found: bytes | None = llama_cpp.llama_model_chat_template(self._model, None)
        return found.decode("utf-8", errors="replace") if found else ""

    @property
    def parameters(self) -> int:
        """How many numbers the model consists of."""
        return int(llama_cpp.llama_model_n_params(self._model))

    def close(self) -> None:
        """Free context and model. Idempotent."""
        with log_lines():
            if self._context:
                llama_cpp.llama_free(self._context)
                self._context = None
            if self._model:
                llama_cpp.llama_model_free(self._model)
                self._model = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_context(self, on_node: Any) -> int | None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.context_tok
        params.n_threads = params.n_threads_batch = threads()
        if on_node is not None:
            params.cb_eval = on_node
        context: int | None = llama_cpp.llama_init_from_model(self._model, params)
        return context

    def _apply(self, adapter: Path) -> bool:
        """The adapter belongs to the model, which frees it."""
        loaded = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter))
        if loaded is None:
            return False
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded)
        scales = (ctypes.c_float * 1)(1.0)
        return int(llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, scales)) == 0

    def _decode(self, batch: Any, count: int) -> None:
        with log_lines() as lines:
            code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise BackendError(f"llama.cpp could not evaluate {count} tokens (code {code}): {reason(lines)}")

    def _rows(self, count: int) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits(self._context)
        if not pointer:
            raise ModelError("the model writes no text; give one that continues a text, no embedder")
        return np.ctypeslib.as_array(pointer, shape=(count, self.n_vocab)).copy()
