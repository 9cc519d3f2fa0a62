"""Proof that a GGUF behaves like the folder it came from: vocabulary, tags, text, prompts, continuations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer

from preflexor_agents.backends.template import FAILURES, ChatTemplate
from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_agents.prompts import Message
from preflexor_quantize.agreement import Agreement
from preflexor_quantize.engine import Engine
from preflexor_quantize.folder import read_folder
from preflexor_quantize.gguf_file import CONTROL, UNKNOWN, token_types
from preflexor_quantize.hf_model import load_model, precision
from preflexor_quantize.tags import stays_visible

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
    "What does the mineral do in bone?",
    "Why is a squid beak graded?",
    "Which material would you take for a helmet?",
    "How is silk spun?",
    "What makes mussel threads tough?",
    "Is wool stronger when it is wet?",
    "Explain crack deflection.",
    "What would happen without the protein?",
)
WINDOWS, GREEDY_TOK, CONTEXT_TOK = 100, 64, 512
TIE, TIE_16_BIT = 0.01, 0.1
"""How much less likely than the folder's likeliest token counts as a tie, over the standard deviation of the logits:
llama.cpp multiplies and keeps in 16 bits. The second is for a folder that is itself computed in 16 bits."""


def verify(hf_folder: Path, file: Path, *, exact: bool) -> Agreement:
    """Compare; with `exact` the greedy continuations have to be equal too, but for ties.

    One pass of the folder's model over the file's tokens shows whether each was the folder's choice as well.

    Raises:
        PreflexorError: naming the first thing that differs.
        ModelError: the folder cannot be loaded.
    """
    folder = read_folder(hf_folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(hf_folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelError(
            f"{hf_folder} has a tokenizer that cannot be loaded: {' '.join(str(e).split())[:200]}"
        ) from None
    with Engine(file, context_tok=CONTEXT_TOK) as engine:
        _check_vocabulary(tokenizer, engine, file, rows=folder.vocabulary)
        tags = _check_tags(tokenizer, engine, file)
        windows = _check_windows(tokenizer, engine, file, tags)
        prompts = _check_prompts(tokenizer, engine, file)
        starts = prompts or _plain_prompts(engine)
        replies = [engine.greedy(ids, _count(engine, ids)) for ids in starts]
    model = load_model(hf_folder, dtype=precision(folder.parameters))
    reference = str(model.dtype).removeprefix("torch.")
    partings = [p for ids, reply in zip(starts, replies, strict=True) for p in _partings(model, ids, reply)]
    tie = TIE if reference == "float32" else TIE_16_BIT
    wrong = [p for p in partings if p.gap > tie]
    if exact and wrong:
        raise PreflexorError(
            f"{file.name} parts from {hf_folder} at token {wrong[0].at} of a reply ({len(wrong)} such): its token "
            f"is less likely there than the folder's, by {wrong[0].gap:.2f} of the logits' spread"
        )
    total = sum(map(len, replies))
    return Agreement(
        vocabulary=engine.n_vocab,
        tags=tags,
        windows=windows,
        chat_prompts=len(prompts),
        greedy_prompts=len(starts),
        greedy_tok=total,
        greedy_equal_tok=total - len(partings),
        ties=len(partings) - len(wrong),
        reference=reference,
    )


class _Parting(NamedTuple):
    """Where a token is not the folder's likeliest, and how much less likely it is, over the logits' spread."""

    at: int
    gap: float


def _check_vocabulary(tokenizer: Any, engine: Engine, file: Path, *, rows: int) -> None:
    known = tokenizer.get_vocab()
    wanted = max(rows, max(known.values()) + 1)
    if engine.n_vocab not in (wanted, max(known.values()) + 1):
        raise PreflexorError(f"{file.name} has {engine.n_vocab} tokens, its folder has {wanted}")
    texts = engine.token_texts()
    added = tokenizer.added_tokens_decoder
    for text, number in known.items():
        if number not in added and texts[number] != text:
            raise PreflexorError(f"{file.name} writes token {number} as {texts[number]!r}, its tokenizer as {text!r}")


def _check_tags(tokenizer: Any, engine: Engine, file: Path) -> tuple[str, ...]:
    added = tokenizer.added_tokens_decoder.items()
    types = token_types(file)
    visible = [(n, t.content) for n, t in added if stays_visible(t.content, special=t.special) and t.content.strip()]
    for number, content in visible:
        if engine.tokens_of(content, special=True) != [number] or engine.is_control(number):
            raise PreflexorError(f"{file.name}: the tag {content} is not one visible token")
    for number, token in added:
        hidden = not stays_visible(token.content, special=token.special)
        if hidden and types[number] not in (CONTROL, UNKNOWN):
            raise PreflexorError(f"{file.name}: {token.content} is not a control token")
    return tuple(content for _, content in visible)


def _check_windows(tokenizer: Any, engine: Engine, file: Path, tags: Sequence[str]) -> int:
    texts = [TEXT[n * 4 % len(TEXT) :][: 20 + n] for n in range(WINDOWS)]
    texts += [f"{tag}Silk is tough.{tag}\nIt is 4.5 {tag} so." for tag in tags]
    for text in texts:
        ours = engine.tokens_of(text, special=text[0] == "<")
        if ours != tokenizer.encode(text, add_special_tokens=False):
            raise PreflexorError(f"{file.name} splits {text!r} otherwise than its tokenizer")
    return len(texts)


def _check_prompts(tokenizer: Any, engine: Engine, file: Path) -> list[list[int]]:
    """The token ids of the chat prompts, as both make them; none without a chat template."""
    if not tokenizer.chat_template:
        return []
    if engine.chat_template != tokenizer.chat_template:
        raise PreflexorError(f"{file.name} does not hold the tokenizer's chat template")
    template = ChatTemplate(
        engine.chat_template, bos_token=tokenizer.bos_token or "", eos_token=tokenizer.eos_token or ""
    )
    prompts = []
    for question in QUESTIONS:
        spans = template.render([Message("system", "Answer."), Message("user", question)])
        ours = engine.tokens_of("".join(span.text for span in spans), special=True)
        theirs = _their_prompt(tokenizer, question)
        if ours != theirs:
            raise PreflexorError(f"{file.name} makes another chat prompt of {question!r}")
        prompts.append(ours)
    return prompts


def _their_prompt(tokenizer: Any, question: str) -> list[int]:
    turns = [{"role": "system", "content": "Answer."}, {"role": "user", "content": question}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except FAILURES as e:
        raise ModelError(f"the chat template cannot render a plain question: {e!r:.200}") from None
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _plain_prompts(engine: Engine) -> list[list[int]]:
    return [engine.tokens_of(question) for question in QUESTIONS]


def _count(engine: Engine, prompt: Sequence[int]) -> int:
    return max(1, min(GREEDY_TOK, engine.context_tok - len(prompt)))


@torch.no_grad()
def _partings(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> list[_Parting]:
    ids = torch.tensor([[*prompt, *reply]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()  # (len(reply), V)
    best, spread = logits.max(-1), logits.std(-1)
    return [
        _Parting(at, float((best.values[at] - logits[at, token]) / spread[at]))
        for at, token in enumerate(reply)
        if int(best.indices[at]) != token
    ]
