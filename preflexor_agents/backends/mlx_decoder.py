"""Writes replies with mlx-lm, one at a time; prompts that begin alike share what was computed.

Belongs to one thread: MLX ties what is not evaluated yet to the thread that began it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import KVCache, make_prompt_cache

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.hf_tokens import HfVocabulary
from preflexor_agents.backends.model_text import ModelText
from preflexor_agents.backends.pieces import PIECE_TOK, shared_tok
from preflexor_agents.backends.writing import Writing
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError

KEPT_TOK = 16_384
"""Tokens whose keys and values are kept for prompts that begin alike: 2 GB for a model of 3B parameters."""
PENALTY_TOK = 64
"""Latest generated tokens that the repeat penalty looks at; llama.cpp's default."""


class Cancelled(BackendError):
    """Nobody waits for the reply any more."""


class _Kept(NamedTuple):
    tokens: list[int]
    layers: list[Any]


class MlxDecoder:
    """A model that replies."""

    def __init__(self, model: Any, text: ModelText[HfVocabulary], *, context_tok: int, name: str) -> None:
        """Take a model as it is; `name` is what errors call it."""
        self._model, self.text, self.context_tok, self._name = model, text, context_tok, name
        self._kept: list[_Kept] = []
        """Latest last."""

    @property
    def native_tags(self) -> bool:
        """Whether the model opens its thinking by itself."""
        return self.text.native_tags

    def answer(self, request: Request, *, emit: Callable[[Delta], None], cancelled: Callable[[], bool]) -> Completion:
        """Write one reply.

        Raises:
            BackendError: the prompt does not fit, a JSON schema is asked for, or MLX failed.
            ModelError: the chat template cannot render such turns.
            Cancelled: `cancelled` says so.
        """
        if request.json_schema is not None:
            raise BackendError(
                f"model {self._name} cannot be held to a JSON schema by mlx-lm; use it as GGUF (preflexor quantize) "
                "or another model for this"
            )
        began = time.monotonic()
        prompt = self.text.prompt(request, context_tok=self.context_tok)
        writing = Writing(
            prompt,
            self.text.vocabulary,
            tags=self.text.spelt_tags,
            context_tok=self.context_tok,
            max_tok=request.sampling.max_tok,
            stop=request.stop,
            emit=emit,
        )
        cached = 0
        with self._begun(prompt.tokens) as kept:
            cached = len(kept.tokens)
            try:
                for token in self._drawn(prompt.tokens, kept, request, writing.most, cancelled):
                    if writing.take(token):
                        break
            except (RuntimeError, ValueError, MemoryError) as e:
                raise BackendError(f"mlx-lm failed with model {self._name}: {' '.join(str(e).split())[:200]}") from None
            kept.tokens[:] = [*prompt.tokens, *writing.tokens]
        written = writing.finish(cached=cached)
        return written.completion(seconds=time.monotonic() - began)

    def _drawn(
        self, prompt: list[int], kept: _Kept, request: Request, most: int, cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        def watch(_done: int, _of: int) -> None:
            if cancelled():
                raise Cancelled(f"the reply of {self._name} was cancelled")

        penalty = request.sampling.repeat_penalty
        steps = generate_step(
            mx.array(prompt[len(kept.tokens) :], dtype=mx.int32),
            self._model,
            max_tokens=most,
            sampler=_Drawing(request.sampling, request.seed),
            logits_processors=[] if penalty == 1.0 else [_Penalty(penalty, len(prompt) - len(kept.tokens))],
            prompt_cache=kept.layers,
            prefill_step_size=PIECE_TOK,
            prompt_progress_callback=watch,
        )
        try:
            for token, _ in steps:
                watch(0, 0)
                yield int(token)
        finally:
            steps.close()

    @contextmanager
    def _begun(self, prompt: Sequence[int]) -> Iterator[_Kept]:
        """A cache that holds as much of the prompt's beginning as is kept; itself kept if all goes well."""
        donor = max(self._kept, key=lambda kept: shared_tok(kept.tokens, prompt), default=None)
        length = 0 if donor is None else shared_tok(donor.tokens, prompt)
        layers = make_prompt_cache(self._model)
        simple = all(type(layer) is KVCache for layer in layers)
        if simple and donor is not None and length:
            for layer, old in zip(layers, donor.layers, strict=True):
                layer.state = old.keys[..., :length, :], old.values[..., :length, :], length
            mx.eval([(layer.keys, layer.values) for layer in layers])
        begun = _Kept(list(prompt[:length]) if simple else [], layers)
        yield begun
        if simple:  # what slides or is recurrent cannot be cut to a beginning
            self._kept.append(begun)
            while sum(len(kept.tokens) for kept in self._kept) > KEPT_TOK and len(self._kept) > 1:
                self._kept.pop(0)


class _Drawing:
    """Draws tokens as llama.cpp does: best k, then the mass of p, then the temperature. Same seed, same draws."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self._sampling = sampling
        self._key = mx.random.key(seed)

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Log-probs, (1, V), to a token, (1,)."""
        how = self._sampling
        if how.temperature == 0:
            return mx.argmax(logprobs, axis=-1)
        logprobs = logprobs.astype(mx.float32)
        if 0 < how.top_k < logprobs.shape[-1]:
            least = mx.topk(logprobs, how.top_k, axis=-1).min(axis=-1, keepdims=True)
            logprobs = mx.where(logprobs < least, -mx.inf, logprobs)
        if how.top_p < 1:
            falling = -mx.sort(-logprobs, axis=-1)
            mass = mx.cumsum(mx.softmax(falling, axis=-1), axis=-1, inclusive=False)
            wanted = mx.maximum((mass < how.top_p).sum(axis=-1, keepdims=True), 1)
            least = mx.take_along_axis(falling, wanted - 1, axis=-1)
            logprobs = mx.where(logprobs < least, -mx.inf, logprobs)
        self._key, now = mx.random.split(self._key)
        return mx.random.categorical(logprobs / how.temperature, key=now)


class _Penalty:
    """Lowers the chance of tokens that were just written; those of the prompt do not count."""

    def __init__(self, penalty: float, prompt_tok: int) -> None:
        self._penalty, self._prompt_tok = penalty, prompt_tok

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Tokens so far, (T,), and logits, (1, V), to logits."""
        latest = tokens[self._prompt_tok :][-PENALTY_TOK:]
        if latest.size:
            found = logits[:, latest]
            logits[:, latest] = mx.where(found < 0, found * self._penalty, found / self._penalty)
        return logits
