"""Proof that a GGUF behaves like the folder it came from: vocabulary, tags, text, prompts, continuations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import llama_cpp
import torch
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflexor_agents.errors import PreflexorError

TEXT = """Nacre is 95 % aragonite by volume; its toughness, 4.5 MPa m^0.5, is far above that of the mineral.
# Heading with  two spaces
\tA tab, "quotes", it's they're I'LL, naïve café, μm, 10⁻⁶, 3.14159e-2, 1,000,000 and x_y[3] = {a: 'b'};

ends;   spaces before a word and at the end   
Größe, 日本語のテキスト, emoji 🦪🧬, https://example.org/a?b=c&d=%20 -- A/B (see [12], [3]).
"""
QUESTIONS = (
    "How tough is nacre?",
    "What is the stiffness of spider silk?",
    "Which is harder, enamel or bone?",
    "Why do tablets slide?",
    "Name one use.",
    "What limits the strength of wood?",
    "Compare chitin and keratin.",
    "How does a gecko stick?",
)
WINDOWS, GREEDY_TOK, TIE = 100, 32, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was compared, all of it equal unless counted otherwise."""

    vocabulary: int
    tags: tuple[str, ...]
    windows: int
    chat_prompts: int
    greedy_tok: int
    """Greedy tokens compared."""
    greedy_equal_tok: int
    """Tokens before the first difference, summed over the prompts."""
    ties: int
    """Prompts that part where the folder's two likeliest tokens are as good as equal."""


def verify(hf_folder: Path, file: Path, *, exact: bool) -> Agreement:
    """Compare; with `exact` the greedy continuations have to be equal too, but for ties.

    One pass of the folder's model over the file's tokens shows whether each was the folder's choice as well.

    Raises:
        PreflexorError: naming the first thing that differs.
    """
    tokenizer = AutoTokenizer.from_pretrained(hf_folder)
    engine = llama_cpp.Llama(str(file), n_ctx=512, n_threads=1, verbose=False)
    try:
        if engine.n_vocab() != len(tokenizer):
            raise PreflexorError(f"{file.name} has {engine.n_vocab()} tokens, {hf_folder} has {len(tokenizer)}")
        tags = _check_tags(tokenizer, engine, file)
        windows = _check_windows(tokenizer, engine, file)
        prompts = _check_prompts(tokenizer, engine, file)
        model = AutoModelForCausalLM.from_pretrained(hf_folder, dtype=torch.float32)
        parted = [p for p in (_parting(model, engine, ids) for ids in prompts) if p]
    finally:
        engine.close()
    wrong = [p for p in parted if p.gap > TIE]
    if exact and wrong:
        raise PreflexorError(
            f"{file.name} parts from {hf_folder} at token {wrong[0].at} of a reply, where the folder's "
            f"two likeliest tokens are {wrong[0].gap:.2f} apart"
        )
    return Agreement(
        vocabulary=len(tokenizer),
        tags=tags,
        windows=windows,
        chat_prompts=len(prompts),
        greedy_tok=len(prompts) * GREEDY_TOK,
        greedy_equal_tok=len(prompts) * GREEDY_TOK - sum(GREEDY_TOK - p.at for p in parted),
        ties=sum(p.gap <= TIE for p in parted),
    )


class _Parting(NamedTuple):
    """Where the two first differ, and how far apart the folder's two likeliest tokens are there, in nats."""

    at: int
    gap: float


def _check_tags(tokenizer: Any, engine: llama_cpp.Llama, file: Path) -> tuple[str, ...]:
    described = gguf.GGUFReader(file).fields["tokenizer.ggml.token_type"]
    types = [int(described.parts[i][0]) for i in described.data]
    added = [t for t in tokenizer.added_tokens_decoder.items() if not t[1].special]
    for number, token in added:
        ids = engine.tokenize(token.content.encode(), add_bos=False, special=True)
        if ids != [number] or types[number] != gguf.TokenType.USER_DEFINED:
            raise PreflexorError(f"{file.name}: the tag {token.content} is not one visible token")
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and types[number] != gguf.TokenType.CONTROL:
            raise PreflexorError(f"{file.name}: {token.content} is not a control token")
    return tuple(token.content for _, token in added)


def _check_windows(tokenizer: Any, engine: llama_cpp.Llama, file: Path) -> int:
    for n in range(WINDOWS):
        window = TEXT[n * 4 % len(TEXT) :][: 20 + n]
        ours = engine.tokenize(window.encode(), add_bos=False, special=False)
        if ours != tokenizer.encode(window, add_special_tokens=False):
            raise PreflexorError(f"{file.name} splits {window!r} otherwise than its tokenizer")
    return WINDOWS


def _check_prompts(tokenizer: Any, engine: llama_cpp.Llama, file: Path) -> list[list[int]]:
    """The token ids of the chat prompts, as both make them."""
    template = str(engine.metadata.get("tokenizer.chat_template", ""))
    if template != tokenizer.chat_template:
        raise PreflexorError(f"{file.name} does not hold the tokenizer's chat template")
    prompts = []
    for question in QUESTIONS:
        turns: list[Any] = [{"role": "system", "content": "Answer."}, {"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(text, add_special_tokens=False)
        formatter = Jinja2ChatFormatter(
            template, eos_token=tokenizer.eos_token or "", bos_token=tokenizer.bos_token or ""
        )
        rendered = formatter(messages=turns).prompt
        if engine.tokenize(rendered.encode(), add_bos=False, special=True) != ids:
            raise PreflexorError(f"{file.name} makes another chat prompt of {question!r}")
        prompts.append(ids)
    return prompts


@torch.no_grad()
def _parting(model: Any, engine: llama_cpp.Llama, prompt: Sequence[int]) -> _Parting | None:
    theirs: list[int] = []
    for token in engine.generate(list(prompt), temp=0.0, repeat_penalty=1.0):
        theirs.append(token)
        if len(theirs) == GREEDY_TOK:
            break
    ids = torch.tensor([[*prompt, *theirs]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]  # (GREEDY_TOK, V)
    for at, (row, token) in enumerate(zip(logits.log_softmax(-1), theirs, strict=True)):
        best = row.topk(2).values
        if int(row.argmax()) != token:
            return _Parting(at, float(best[0] - best[1]))
    return None
