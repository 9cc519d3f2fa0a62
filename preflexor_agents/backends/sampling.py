"""Chains of llama.cpp's samplers: how the next token of one reply is drawn."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import llama_cpp
from llama_cpp.llama_grammar import LlamaGrammar

from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError

PENALTY_TOK = 64
"""Latest generated tokens that the repeat penalty looks at; llama.cpp's default."""


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
