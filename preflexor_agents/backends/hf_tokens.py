"""The vocabulary of a Hugging Face tokenizer: prompts to ids, where only the template's own text can be control tokens.

A second tokenizer is made in which every added token has a name that no text can hold. The template's tokens are
written with these names, everything else is plain text to it; all that a tokenizer does at the edges of its added
tokens (normalising, prefix spaces, stripping) stays what it is.
"""

import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from preflexor_agents.backends.template import Span
from preflexor_agents.errors import ModelError
from preflexor_agents.markup import TAGS

ENDINGS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|eom_id|>", "<|end_of_text|>", "</s>")
"""Tokens that end a turn wherever a vocabulary has them as special ones, besides those that the model names."""


class Located(NamedTuple):
    """A token and where it comes from."""

    id: int
    first: int
    """Number of the span that it begins in."""
    last: int
    """Number of the span that it ends in."""


class HfVocabulary:
    """The tokens of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, ends: Iterable[int] = ()) -> None:
        """Learn which tokens are special.

        Args:
            tokenizer: with its added tokens.
            ends: ids that end a reply, besides its own end token and ENDINGS.
        """
        told = json.loads(tokenizer.backend_tokenizer.to_str())
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        self._added = {token["id"]: token for token in told["added_tokens"]}
        self.special: dict[str, int] = {t["content"]: i for i, t in self._added.items() if t["content"].strip()}
        """Text -> id of the added tokens; runs of white space do not count."""
        self._hidden = {i: f"\ue0f8{secrets.token_hex(8)}{i}\ue0f9" for i in self.special.values()}
        self._plain, self._ids = _renamed(told, self._hidden)
        self._control = re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or r"(?!)")
        spelt = {tag: self._plain.encode(tag, add_special_tokens=False).ids for tag in TAGS if tag not in self.special}
        self.tags: dict[int, str] = {self.special[tag]: tag for tag in TAGS if tag in self.special}
        """Id -> tag, for the reasoning tags that are one token."""
        self.tags |= {ids[0]: tag for tag, ids in spelt.items() if len(ids) == 1 and tokenizer.decode(ids) == tag}
        known = (self.special[text] for text in ENDINGS if text in self.special)
        self._ends = frozenset((*ends, *known, *((self.eos,) if self.eos >= 0 else ())))

    def encode(self, spans: Iterable[Span]) -> list[int]:
        """Token ids of a prompt, as the tokenizer would make them of the whole text, but for untrusted spellings."""
        return [found.id for found in self.locate(spans)]

    def locate(self, spans: Iterable[Span]) -> list[Located]:
        """The same, with the span that each token comes from, by its number."""
        texts = [self._marked(span.text) if span.trusted else span.text for span in spans]
        ends = list(accumulate(map(len, texts)))
        most = max(len(ends) - 1, 0)
        found = [
            Located(token, min(bisect_right(ends, start), most), min(bisect_right(ends, max(start, end - 1)), most))
            for token, start, end in self._tokens("".join(texts))
        ]
        if self._adds_bos and [token.id for token in found[:1]] != [self.bos]:
            found.insert(0, Located(self.bos, 0, 0))
        return found

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text, with no special token among them."""
        return [token for token, _, _ in self._tokens(text)]

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; none for a control token."""
        if token in self._added:
            return b"" if self._added[token]["special"] else str(self._added[token]["content"]).encode()
        text = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(text, str):
            return b""
        if self._byte_level:
            return bytes(_BYTES[c] for c in text) if all(c in _BYTES for c in text) else text.encode()
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        return text.replace("\u2581", " ").encode()

    def ends(self, token: int) -> bool:
        """Whether the token ends a reply."""
        return token in self._ends

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token; empty if there is no such token (-1)."""
        text = self._tokenizer.convert_ids_to_tokens(token) if token >= 0 else ""
        return text if isinstance(text, str) else ""

    @property
    def bos(self) -> int:
        """Id of the token that begins a text, -1 if there is none."""
        found = self._tokenizer.bos_token_id
        return -1 if found is None else int(found)

    @property
    def eos(self) -> int:
        """Id of the token that ends a text, -1 if there is none."""
        found = self._tokenizer.eos_token_id
        return -1 if found is None else int(found)

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer begins every text with its first token, also one that does not name it."""
        return self.bos >= 0 and self._tokenizer.backend_tokenizer.encode("x").ids[:1] == [self.bos]

    @cached_property
    def _byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._plain.to_str())["decoder"])

    def _marked(self, text: str) -> str:
        """The template's text with its control tokens under their other names."""
        return self._control.sub(lambda found: self._hidden[self.special[found[0]]], text)

    def _tokens(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Ids, each with the characters that it stands for: from, to."""
        made = self._plain.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(made.ids, made.offsets, strict=True):
            if token in self._ids:
                yield self._ids[token], start, end
            elif token in self._hidden:  # a piece of the model's own vocabulary that is spelt in the text
                yield from ((letter, start, end) for letter in self._spelt(str(self._added[token]["content"])))
            else:
                yield token, start, end

    def _spelt(self, text: str) -> list[int]:
        """A text letter by letter."""
        ids: list[int] = []
        for letter in text:
            token = self._plain.token_to_id(letter)
            ids += self._plain.encode(letter, add_special_tokens=False).ids if token is None else [token]
        return ids


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder. Raises ModelError if it has none that can be used."""
    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as e:
        raise ModelError(f"{folder} has no tokenizer that can be read: {_line(e)}; copy its files again") from None
    if not isinstance(found, PreTrainedTokenizerFast):
        raise ModelError(f"{folder} has no tokenizer.json; save its tokenizer again with a current transformers")
    return found


def template_source(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's chat template; empty if it has none."""
    found: Any = tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default") or next(iter(found.values()), None)
    return found if isinstance(found, str) else ""


def _renamed(told: dict[str, Any], names: dict[int, str]) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer with other names for its added tokens, and its ids of them -> the real ones."""
    bare = {**told, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(bare))
    ids: dict[int, int] = {}
    for token in told["added_tokens"]:
        name = names.get(token["id"], token["content"])
        flags = {flag: token[flag] for flag in ("lstrip", "rstrip", "normalized", "special")}
        tokenizer.add_tokens([AddedToken(name, **flags)])
        if (found := tokenizer.token_to_id(name)) is not None:
            ids[found] = token["id"]
    return tokenizer, ids


def _byte_letters() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as they are, the others from U+0100 on."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(0x100 + n): b for n, b in enumerate(others)}


_BYTES = _byte_letters()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
