"""Pairs to token ids, as the same model is asked and replies at inference.

The prompt is what the tokenizer's own chat template makes of the turns, up to where the reply begins. The reply is
thinking, reflection and answer between their tags, and what ends a turn. Texts of a row never become control tokens.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from preflexor_agents.backends.hf_tokens import HfVocabulary, Located, template_source
from preflexor_agents.backends.model_text import Marks
from preflexor_agents.backends.template import FAILURES, ChatTemplate, Span, hide, spans_of
from preflexor_agents.errors import ConfigError, ModelError
from preflexor_agents.markup import TAGS, neutralise
from preflexor_agents.prompts import Message
from preflexor_training import tags as tagging
from preflexor_training.damage import Damaged
from preflexor_training.pairs import Pair, Reply
from preflexor_training.recipe_parts import Mask, Tags
from preflexor_training.tokenized import Section, TokenizedPair, TokenizedReply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPEC_DAY = datetime(2024, 7, 26)
"""Date that templates are told which write today's: rows must not change overnight. It is the one that Llama's
templates fall back to."""
_LEADS = ("\n", ".", "x")
"""Text to put before a piece that must not be tokenised as the beginning of a line."""
_PROBE = (Message("user", "q"), Message("assistant", "a"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """A tokenizer made ready: what all rows of a run are rendered with."""

    vocabulary: HfVocabulary
    template: ChatTemplate
    marks: Marks
    """Around the thinking."""
    lead: str
    """White space that the template puts before a reply that begins with words."""
    end: str
    """What ends a turn."""
    spelt: tuple[str, ...]
    """Reasoning tags that are no tokens here; broken up where a row's texts spell them."""
    tags: Tags
    pad: int
    """Token that fills the pauses."""
    widest: int
    """Characters of the longest token."""


def renderer(tokenizer: "PreTrainedTokenizerFast", tags: Tags) -> Renderer:
    """Make a tokenizer ready.

    Raises:
        ConfigError: it splits a tag that is to be one token, or would be asked with other tags; names the remedy.
        ModelError: its chat template is missing or broken.
    """
    missing = tagging.plan(tokenizer, tags).missing
    if missing:
        pieces = len(tokenizer.encode(missing[0], add_special_tokens=False))
        raise ConfigError(
            f"the tokenizer splits {missing[0]} into {pieces} tokens; let training add the tags to it, or set"
            ' tags.mode = "text" and tags.thinking = "<think>"'
        )
    source = template_source(tokenizer)
    if not source:
        raise ModelError("the tokenizer has no chat template; let training add the tags to it, which gives it one")
    vocabulary = HfVocabulary(tokenizer)
    bos, eos = vocabulary.text_of(vocabulary.bos), vocabulary.text_of(vocabulary.eos)
    template = ChatTemplate(source, bos_token=bos, eos_token=eos, now=lambda: SPEC_DAY)
    lead, end = _around_reply(template, vocabulary, eos=eos)
    pad = tokenizer.pad_token_id
    return Renderer(
        vocabulary=vocabulary,
        template=template,
        marks=tagging.marks(tags),
        lead=lead,
        end=end,
        spelt=tuple(tag for tag in TAGS if tag not in vocabulary.special),
        tags=tags,
        pad=int(vocabulary.eos if pad is None else pad),
        widest=max(map(len, tokenizer.get_vocab())),
    )


def tokenize(pair: Pair, renderer: Renderer, *, mask: Mask) -> TokenizedPair:
    """The pair as ids. `mask` only matters for its pauses, which are put into the chosen reply.

    Raises:
        Damaged: the row cannot be trained on.
    """
    if not any(message.role == "user" and message.content.strip() for message in pair.prompt):
        raise Damaged("no_question", "the row has no user turn")
    if pair.chosen == pair.rejected:
        raise Damaged("equal", "chosen and rejected are the same")
    try:
        spans = renderer.template.render([_disarmed(message, renderer) for message in pair.prompt])
    except ModelError as error:
        raise Damaged("unrenderable", str(error)) from None
    prompt = renderer.vocabulary.locate(spans)
    chosen, rejected = (_reply(reply, renderer, spans=spans, prompt=prompt) for reply in (pair.chosen, pair.rejected))
    if mask.kind == "pauses":
        chosen = paused(chosen, renderer, pads=mask.pads)
    return TokenizedPair(id=pair.id, round=pair.round, prompt=_ids(prompt), chosen=chosen, rejected=rejected)


def paused(reply: TokenizedReply, renderer: Renderer, *, pads: int) -> TokenizedReply:
    """The reply with a pause after every token but the last: opening tag, pads, closing tag (published, "pauses").

    The pads are no labels. The end of the turn stays the end; the published form puts a pause after it too.

    Raises:
        ConfigError: the tags are no tokens.
    """
    special = renderer.vocabulary.special
    opens, closes = (special.get(tag.strip()) for tag in renderer.marks)
    if opens is None or closes is None:
        raise ConfigError('mask.kind is "pauses", which needs tags.mode = "tokens"')
    width = pads + 3
    grid = np.full((len(reply.ids), width), renderer.pad, dtype=np.int32)
    grid[:, 0], grid[:, 1], grid[:, -1] = reply.ids, opens, closes
    labels = np.ones(grid.shape, dtype=np.bool_)
    labels[:, 2:-1] = False
    last = grid.size - width + 1
    return TokenizedReply(
        ids=grid.reshape(-1)[:last],
        sections=tuple(
            Section(s.channel, s.start * width, s.body * width, s.close * width, s.end * width) for s in reply.sections
        ),
        labels=labels.reshape(-1)[:last],
    )


Channel = Literal["thinking", "reflection"]


class _Piece(NamedTuple):
    """A span of a reply and what it is."""

    span: Span
    what: Literal["open", "close", "text"]
    channel: Channel | None = None


def _reply(reply: Reply, renderer: Renderer, *, spans: Sequence[Span], prompt: Sequence[Located]) -> TokenizedReply:
    if not reply.answer.strip():
        raise Damaged("unanswered", "a reply has no answer")
    opened = _opens_thinking(spans, renderer.marks)
    thought, rest = _pieces(reply, renderer, opened=opened)
    before: list[Span] = list(spans)
    made = list(prompt)
    for pieces in (thought, rest):
        added = [piece.span for piece in pieces]
        made += _continued(renderer.vocabulary, before, made, added)
        before += added
    first = len(spans)
    return TokenizedReply(
        ids=_ids(made[len(prompt) :]),
        sections=tuple(_sections([*thought, *rest], [(t.first - first, t.last - first) for t in made[len(prompt) :]])),
    )


def _pieces(reply: Reply, renderer: Renderer, *, opened: bool) -> tuple[list[_Piece], list[_Piece]]:
    """The thinking with its tags, and what follows it.

    They are apart because the thinking may be put before the model, which then goes on; its ids must not depend on
    what follows.
    """
    thought: list[_Piece] = []
    if reply.thinking is not None:
        thought = list(_tagged(reply.thinking, renderer, renderer.marks, "thinking"))[2 if opened else 0 :]
    elif opened:
        thought = [_Piece(Span(renderer.marks.close, trusted=True), "text")]
    rest: list[_Piece] = []
    if reply.reflection is not None:
        rest += _tagged(reply.reflection, renderer, tagging.REFLECT, "reflection")
    lead = renderer.lead if not thought and not rest else ""
    rest.append(_Piece(Span(lead + neutralise(reply.answer, renderer.spelt), trusted=False), "text"))
    rest.append(_Piece(Span(renderer.end, trusted=True), "text"))
    return thought, rest


def _tagged(text: str, renderer: Renderer, marks: Marks, channel: Channel) -> Iterator[_Piece]:
    """A section: two pieces that open it, the words, three that close it. A mark's white space is not in its tag."""
    opens, closes = marks.open.strip(), marks.close.strip()
    before, _, after = marks.close.partition(closes)
    yield _Piece(Span(opens, trusted=True), "open", channel)
    yield _Piece(Span(marks.open.removeprefix(opens), trusted=True), "text")
    yield _Piece(Span(neutralise(text, renderer.spelt), trusted=False), "text")
    yield _Piece(Span(before, trusted=True), "text")
    yield _Piece(Span(closes, trusted=True), "close", channel)
    yield _Piece(Span(after, trusted=True), "text")


def _continued(
    vocabulary: HfVocabulary, before: Sequence[Span], made: Sequence[Located], added: Sequence[Span]
) -> list[Located]:
    """Tokens of text that follows other text whose tokens are settled; nothing is merged over the border."""
    if not added:
        return []
    whole = vocabulary.locate([*before, *added])
    if [t.id for t in whole[: len(made)]] == [t.id for t in made]:
        return whole[len(made) :]
    for lead in _LEADS:
        alone = vocabulary.locate([Span(lead, trusted=True)])
        both = vocabulary.locate([Span(lead, trusted=True), *added])
        if [t.id for t in both[: len(alone)]] == [t.id for t in alone]:
            shift = len(before) - 1
            return [Located(t.id, t.first + shift, t.last + shift) for t in both[len(alone) :]]
    raise Damaged("unrenderable", "a reply merges with whatever stands before it")


def _sections(pieces: Sequence[_Piece], places: Sequence[tuple[int, int]]) -> Iterator[Section]:
    """Where the sections lie. A token that a tag shares with its neighbour is the tag's."""
    open_tokens: list[int] = []
    for number, piece in enumerate(pieces):
        if piece.channel is None:
            continue
        tokens = [n for n, (first, last) in enumerate(places) if first <= number <= last]
        if piece.what == "open":
            open_tokens = tokens
            continue
        start, body = (open_tokens[0], open_tokens[-1] + 1) if open_tokens else (0, 0)
        yield Section(piece.channel, start, min(body, tokens[0]), tokens[0], tokens[-1] + 1)
        open_tokens = []


def _around_reply(template: ChatTemplate, vocabulary: HfVocabulary, *, eos: str) -> tuple[str, str]:
    """What the template writes before the words of a reply, if that is white space, and what ends the turn."""
    turns = [{"role": m.role, "content": hide(n, m.content)} for n, m in enumerate(_PROBE)]
    opened = "".join(span.text for span in template.render(_PROBE[:1]))
    before = after = ""
    for content in (turns, [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]):
        try:
            text = template.fill(content, tools=None, thinking=True, open_reply=False)
        except FAILURES:
            continue
        spans = spans_of(text, [m.content for m in _PROBE])
        if spans is not None:
            said = next(n for n, span in enumerate(spans) if not span.trusted and span.text == "a")
            before, after = "".join(s.text for s in spans[:said]), "".join(s.text for s in spans[said + 1 :])
            break
    lead = before.removeprefix(opened) if before.startswith(opened) else ""
    end = _end_of_turn(after, vocabulary) or eos
    if not end:
        raise ModelError("neither the chat template nor the tokenizer says what ends a turn; name its eos_token")
    return lead if lead.isspace() and "\n" not in lead else "", end


def _end_of_turn(after: str, vocabulary: HfVocabulary) -> str:
    """The text behind a reply up to the token that a reply is over at; empty if no control token stands there."""
    control = re.compile("|".join(map(re.escape, sorted(vocabulary.special, key=len, reverse=True))) or r"(?!)")
    first = control.search(after)
    if first is None:
        return ""
    token = first
    while not vocabulary.ends(vocabulary.special[token[0]]):
        following = control.match(after, token.end())
        if following is None:
            return after[: first.end()]
        token = following
    return after[: token.end()]


def _opens_thinking(spans: Sequence[Span], marks: Marks) -> bool:
    """Whether the template itself has begun the thinking."""
    return bool(spans) and spans[-1].trusted and spans[-1].text.rstrip().endswith(marks.open.strip())


def _disarmed(message: Message, renderer: Renderer) -> Message:
    """The turn as the agents send it: reasoning tags broken up that the model can only spell."""
    if message.role == "system":
        return message
    return replace(message, content=neutralise(message.content, renderer.spelt))


def _ids(tokens: Sequence[Located]) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    return np.array([token.id for token in tokens], dtype=np.int32)
