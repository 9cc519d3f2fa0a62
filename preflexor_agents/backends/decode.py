"""Runs one sequence through llama.cpp: a prompt goes in, sampled tokens come out.

What a prompt shares with the one before stays in the cache. Prompts are evaluated in pieces at fixed places and only
whole pieces are kept, so a reply does not depend, not even in the last bit, on what was asked before it.
"""

import ctypes
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import llama_cpp
from llama_cpp.llama_grammar import LlamaGrammar

from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError

PIECE_TOK = 64
"""Prompt tokens per call of llama.cpp: within 4 % of the speed of 512 on CPU, and short enough to cancel on a GPU."""
PENALTY_TOK = 64
"""Latest generated tokens that the repeat penalty looks at; llama.cpp's default."""

_strlen = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
"""Tells llama.cpp, hundreds of times a token, whether a CancelFlag is set. A Python function would have to wait for the
interpreter each time while another thread draws the screen."""


class Cancelled(Exception):
    """The flag was set."""


class Decoder:
    """A llama.cpp context with one sequence. Not thread-safe: one thread makes, uses and closes it."""

    def __init__(self, context: int) -> None:
        """Take over a context of llama.cpp that was made with batches of PIECE_TOK."""
        self._context = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._evaluated: list[int] = []

    def prefill(self, prompt: Sequence[int], cancel: CancelFlag) -> int:
        """Evaluate a prompt of at least one token; returns how many tokens of it were in the cache.

        Raises:
            Cancelled: the flag was set.
            BackendError: llama.cpp could not.
        """
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self._evaluated, prompt, strict=False))
        kept = min(sum(1 for _ in same), len(prompt) - 1) // PIECE_TOK * PIECE_TOK
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1):
            llama_cpp.llama_memory_clear(self._memory, True)
            kept = 0
        self._evaluated = list(prompt[:kept])
        for start in range(kept, len(prompt), PIECE_TOK):
            piece = prompt[start : start + PIECE_TOK]
            self._evaluate(piece, cancel)
            self._evaluated += piece
        return kept

    def tokens(self, sampler: int, cancel: CancelFlag) -> Iterator[int]:
        """Tokens after the prompt, as they are drawn, end tokens too; takes no more room than the tokens taken.

        Raises:
            Cancelled: the flag was set.
            BackendError: llama.cpp could not.
        """
        while True:
            token = int(llama_cpp.llama_sampler_sample(sampler, self._context, -1))
            yield token
            self._evaluate([token], cancel)

    def close(self) -> None:
        """Free the context. Idempotent."""
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = 0

    def _evaluate(self, tokens: Sequence[int], cancel: CancelFlag) -> None:
        if cancel.is_set():
            raise Cancelled
        llama_cpp.llama_set_abort_callback(self._context, _strlen, cancel.address)
        batch = (llama_cpp.llama_token * len(tokens))(*tokens)
        code = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(batch, len(tokens)))
        if cancel.is_set():
            raise Cancelled
        if code != 0:
            raise BackendError(f"llama.cpp could not evaluate {len(tokens)} tokens (code {code}); open the model again")


@contextmanager
def sampler(vocabulary: int, sampling: Sampling, seed: int, schema: Mapping[str, Any] | None) -> Iterator[int]:
    """A chain of llama.cpp's samplers.

    Args:
        vocabulary: llama.cpp's vocabulary.
        sampling: temperature and limits; the penalty sees generated tokens only.
        seed: same seed, same draw.
        schema: JSON schema that the text must follow.

    Raises:
        BackendError: the schema cannot be made a grammar.
    """
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    try:
        for link in _links(vocabulary, sampling, seed, schema):
            llama_cpp.llama_sampler_chain_add(chain, link)
        yield chain
    finally:
        llama_cpp.llama_sampler_free(chain)


def _links(vocabulary: int, sampling: Sampling, seed: int, schema: Mapping[str, Any] | None) -> Iterator[int]:
    if sampling.repeat_penalty != 1.0:
        size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        yield llama_cpp.llama_sampler_init_penalties(size, PENALTY_TOK, sampling.repeat_penalty, 0.0, 0.0)
    if schema is not None:
        yield _grammar(vocabulary, schema)
    if sampling.temperature == 0:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    if sampling.top_k:
        yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
    if sampling.top_p < 1:
        yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1)
    yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
    yield llama_cpp.llama_sampler_init_dist(seed % llama_cpp.LLAMA_DEFAULT_SEED)


def _grammar(vocabulary: int, schema: Mapping[str, Any]) -> int:
    try:
        grammar = LlamaGrammar.from_json_schema(json.dumps(schema))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as e:
        raise BackendError(f"the JSON schema cannot be made a grammar: {e!r:.200}; use a simpler schema") from None
    text, root = grammar._grammar.encode("utf-8"), grammar._root.encode("utf-8")
    link: int | None = llama_cpp.llama_sampler_init_grammar(vocabulary, text, root)
    if link is None:
        raise BackendError("llama.cpp rejects the grammar made from the JSON schema; use a simpler schema")
    return link
