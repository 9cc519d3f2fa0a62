"""A GGUF model in this process: request to prompt, prompt to reply. Belongs to one thread."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preflexor_agents.backends import model_file, widths
from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.context import Context
from preflexor_agents.backends.model_file import ModelFile
from preflexor_agents.backends.model_text import ModelText, Prompt
from preflexor_agents.backends.sampling import sampler
from preflexor_agents.backends.scheduler import Job, Prefill, Scheduler
from preflexor_agents.backends.tokens import Vocabulary
from preflexor_agents.backends.writing import Writing, Written
from preflexor_agents.config import Sampling
from preflexor_agents.errors import ModelError
from preflexor_agents.prompts import Message

_CACHED = 8192
"""Tokens whose bytes are remembered."""


class LocalModel:
    """A loaded model with its context."""

    def __init__(self, path: Path, *, context_tok: int, threads: int) -> None:
        """Load.

        Args:
            path: a GGUF file.
            context_tok: most tokens of prompt and reply; fewer if the model was trained with fewer.
            threads: to compute with.

        Raises:
            ModelError: the file cannot be used.
        """
        self._file: ModelFile = model_file.load(path)
        try:
            self.text = ModelText(self._file, Vocabulary(self._file.vocabulary))
            self.context_tok = min(context_tok, self._file.trained_tok)
            self._context: Context = self._file.context(context_tok=self.context_tok, threads=threads)
        except ModelError as e:
            self._file.close()
            raise ModelError(f"{path}: {e}") from None
        self.native_tags = self.text.native_tags
        self._piece = lru_cache(_CACHED)(self.text.vocabulary.piece)
        self._ends = lru_cache(_CACHED)(self.text.vocabulary.ends)
        self.scheduler = Scheduler(self._context, widths.key(path, threads=threads))
        self.interrupt = self._context.interrupt
        """Set together with the flag of a job, so that it is looked at without delay."""

    def prompt(self, request: Request) -> Prompt:
        """Render and tokenise; raises as `ModelText.prompt`."""
        return self.text.prompt(request, context_tok=self.context_tok)

    def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt. Raises ModelError if the chat template cannot render such turns."""
        return self.text.count_tok(messages)

    def answer(self, request: Request, *, emit: Callable[[Delta], None]) -> Job[Completion]:
        """The job of generating one reply, handing out its text as it is written.

        Raises:
            BackendError: the prompt does not fit, or llama.cpp failed.
            ModelError: the chat template cannot render such turns.
        """
        began = time.monotonic()
        written = yield from self.write(
            self.prompt(request),
            sampling=request.sampling,
            seed=request.seed,
            stop=request.stop,
            schema=request.json_schema,
            emit=emit,
        )
        return written.completion(seconds=time.monotonic() - began)

    def write(
        self,
        prompt: Prompt,
        *,
        sampling: Sampling,
        seed: int,
        stop: tuple[str, ...],
        schema: Mapping[str, Any] | None,
        emit: Callable[[Delta], None],
        shown: Mapping[int, bytes] = MappingProxyType({}),
    ) -> Job[Written]:
        """The job of continuing a prompt.

        Args:
            prompt: made by `text`.
            sampling: how tokens are drawn.
            seed: same seed, same draw.
            stop: strings that end the reply and are no part of it.
            schema: JSON schema that the reply follows from its first character.
            emit: takes the text as it is written.
            shown: control tokens that are to be seen in the text, with their spelling.

        Raises:
            BackendError: llama.cpp failed, or the schema cannot be made a grammar.
        """
        tags = self.text.spelt_tags if schema is None else ()
        writing = Writing(
            prompt,
            self.text.vocabulary,
            tags=tags,
            context_tok=self.context_tok,
            max_tok=sampling.max_tok,
            stop=stop,
            emit=emit,
            shown=shown,
        )
        with sampler(self._file.vocabulary, sampling, seed, schema) as chain:
            cached = yield Prefill(prompt.tokens, writing.most, chain)
            while True:
                token = yield None
                if writing.take(token):
                    break
        return writing.finish(cached=cached)

    def close(self) -> None:
        """Free context and model. Idempotent."""
        self._context.close()
        self._file.close()
