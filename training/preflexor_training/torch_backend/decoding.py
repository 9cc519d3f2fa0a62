"""Several replies written at once by a model in memory: one forward a token for all, a draw of its own for each."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import DynamicCache

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.hf_tokens import HfVocabulary
from preflexor_agents.backends.model_text import ModelText, Prompt
from preflexor_agents.backends.writing import Writing
from preflexor_agents.config import Sampling

PENALTY_TOK = 64
"""Latest generated tokens that the repeat penalty looks at; as in the other backends."""


@dataclass(slots=True)
class Job:
    """A request on its way."""

    request: Request
    prompt: Prompt
    emit: Callable[[Delta], None]
    cancelled: Callable[[], bool]
    reply: "Future[Completion]" = field(default_factory=Future)
    began: float = field(default_factory=time.monotonic)


class _Line:
    """One reply of a batch."""

    def __init__(self, job: Job, text: ModelText[HfVocabulary], context_tok: int) -> None:
        self.job = job
        self._writing = Writing(
            job.prompt,
            text.vocabulary,
            tags=text.spelt_tags,
            context_tok=context_tok,
            max_tok=job.request.sampling.max_tok,
            stop=job.request.stop,
            emit=job.emit,
        )
        self._generator = torch.Generator().manual_seed(job.request.seed)

    def take(self, logits: Tensor) -> int | None:
        """Draw the next token, (V,) logits; None when the reply is at its end."""
        if self.job.cancelled():
            self.job.reply.cancel()
            return None
        token = draw(logits, self._writing.tokens, self.job.request.sampling, self._generator)
        if not self._writing.take(token):
            return token
        written = self._writing.finish(cached=0)
        sections = written.sections
        self.job.reply.set_result(
            Completion(
                thinking=sections.thinking,
                reflection=sections.reflection,
                answer=sections.answer,
                finish_reason=written.finish_reason,
                usage=written.usage,
                seconds=time.monotonic() - self.job.began,
                notes=written.notes,
            )
        )
        return None


def decode(model: Module, text: ModelText[HfVocabulary], jobs: Sequence[Job], *, context_tok: int) -> None:
    """Write all replies to their ends; each job has its reply as soon as it is whole, or is cancelled.

    Jobs with the same prompt share its forward.

    Args:
        model: in evaluation mode; the caller has switched gradients off.
        text: of the model.
        jobs: at least one.
        context_tok: tokens of prompt and reply that fit.
    """
    device = next(model.parameters()).device
    lines = [_Line(job, text, context_tok) for job in jobs]
    prompts = list(dict.fromkeys(tuple(job.prompt.tokens) for job in jobs))
    asks = torch.tensor([prompts.index(tuple(job.prompt.tokens)) for job in jobs], device=device)
    width = max(map(len, prompts))
    ids = _left(prompts, width, device)
    mask = _left([[1] * len(prompt) for prompt in prompts], width, device)
    config: Any = model.config
    cache = DynamicCache(config=config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    while True:
        found = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = found.logits[:, -1].float()
        if len(logits) < len(lines):  # the first forward, of each prompt once
            logits, mask, positions = logits[asks], mask[asks], positions[asks]
            cache.batch_select_indices(asks)
        drawn = [(n, line.take(logits[n])) for n, line in enumerate(lines)]
        going = [(n, token) for n, token in drawn if token is not None]
        if not going:
            return
        if len(going) < len(lines):
            lines = [lines[n] for n, _ in going]
            kept = torch.tensor([n for n, _ in going], device=device)
            cache.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
        ids = torch.tensor([[token] for _, token in going], device=device)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions[:, -1:] + 1


def draw(logits: Tensor, written: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """The next token of one reply: penalty, rank, mass, temperature, in llama.cpp's order.

    Args:
        logits: (V,) float32.
        written: tokens of the reply so far.
        sampling: how to draw.
        generator: on the CPU, the reply's own.
    """
    if sampling.repeat_penalty != 1.0 and written:
        seen = torch.tensor(sorted(set(written[-PENALTY_TOK:])), device=logits.device)
        values = logits[seen]
        logits = logits.index_copy(
            0, seen, torch.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
        )
    if sampling.temperature == 0:
        return int(logits.argmax())
    values, tokens = logits.topk(min(sampling.top_k or len(logits), len(logits)))
    values, tokens = values.cpu(), tokens.cpu()
    if sampling.top_p < 1:
        mass = torch.softmax(values, 0).cumsum(0)
        kept = int((mass < sampling.top_p).sum()) + 1
        values, tokens = values[:kept], tokens[:kept]
    chances = torch.softmax(values / sampling.temperature, 0)
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])


def _left(rows: Iterable[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Rows of one width, (B, T), padded with 0 at their beginning."""
    return torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
