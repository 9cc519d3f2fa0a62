"""A model's vocabulary: prompts to token ids, where only the template's own text can become control tokens."""

import ctypes
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

import llama_cpp

from preflexor_agents.backends.template import Span
from preflexor_agents.markup import TAGS

_SPECIAL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
_SPACE = " \t\n\v\f\r"


class Vocabulary:
    """The tokens of a loaded model."""

    def __init__(self, pointer: int) -> None:
        """Read which tokens are special; `pointer` is llama.cpp's vocabulary and must outlive this object."""
        self._pointer = pointer
        self._pieces: dict[int, bytes] = {}
        """Of the tokens that were asked for."""
        self.size = llama_cpp.llama_vocab_n_tokens(pointer)
        attributes = {i: int(llama_cpp.llama_vocab_get_attr(pointer, i)) for i in range(self.size)}
        texts = {i: self._text(i) for i, attribute in attributes.items() if attribute & _SPECIAL}
        tags = {tag: self.tokenize(tag, special=True) for tag in TAGS}
        self.tags: dict[int, str] = {ids[0]: tag for tag, ids in tags.items() if len(ids) == 1}
        """Id -> tag, for the reasoning tags that are one token."""
        texts |= self.tags
        self.special: dict[str, int] = {text: i for i, text in texts.items() if text.strip()}
        """Text -> id of the tokens that mean something in a prompt; runs of white space do not count."""
        self._longest_first = sorted(self.special, key=lambda text: len(text.encode()), reverse=True)
        self._attributes = {i: attributes[i] for i in self.special.values()}
        guarded: dict[str, list[str]] = {}
        for text in self.special:
            if len(text) > 1:
                guarded.setdefault(text[0], []).append(text)
        self._guarded = {first: tuple(guarded[first]) for first in guarded}
        self._starts = re.compile(f"[{re.escape(''.join(self._guarded))}]" if self._guarded else r"(?!)")
        self._adds_space = b"".join(map(self.piece, self.tokenize("x"))) != b"x"

    def encode(self, spans: Iterable[Span]) -> list[int]:
        """Token ids of a prompt. They are those of the plain text, unless an untrusted span spells a special token.

        Such a spelling, also one that only forms across an edge, is tokenised in two parts: the model reads the
        same characters, none of them special.
        """
        ids: list[int] = []
        run, last = "", 0
        for part in self._parts(spans):
            if isinstance(part, str):
                run += part
                continue
            attribute = self._attributes[part]
            ids += self._plain(_trimmed(run, after=last, before=attribute))
            ids.append(part)
            run, last = "", attribute
        ids += self._plain(_trimmed(run, after=last, before=0))
        bos = llama_cpp.llama_vocab_bos(self._pointer)
        if llama_cpp.llama_vocab_get_add_bos(self._pointer) and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """llama.cpp's own tokenisation, without BOS; `special` also recognises control tokens."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        while True:
            out = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self._pointer, data, len(data), out, room, False, special)
            if count >= 0:
                return out[:count]
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; none for a control token."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token)
        return found

    def ends(self, token: int) -> bool:
        """Whether the token ends a reply."""
        return bool(llama_cpp.llama_vocab_is_eog(self._pointer, token))

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token; empty if there is no such token (-1)."""
        return self._text(token) if token >= 0 else ""

    @property
    def bos(self) -> int:
        """Id of the token that begins a text, -1 if there is none."""
        return int(llama_cpp.llama_vocab_bos(self._pointer))

    @property
    def eos(self) -> int:
        """Id of the token that ends a text, -1 if there is none."""
        return int(llama_cpp.llama_vocab_eos(self._pointer))

    def _read_piece(self, token: int) -> bytes:
        room = 64
        while True:
            out = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._pointer, token, out, room, 0, False)
            if count >= 0:
                return out.raw[:count]
            room = -count

    def _text(self, token: int) -> str:
        data: bytes = llama_cpp.llama_vocab_get_text(self._pointer, token)
        return data.decode("utf-8", errors="replace")

    def _parts(self, spans: Iterable[Span]) -> Iterator[str | int]:
        """The text of the spans, with the special tokens of trusted ones as ids."""
        for span in spans:
            parts: list[str | int] = [span.text]
            for text in self._longest_first if span.trusted else ():
                if text in span.text:
                    parts = [piece for part in parts for piece in _split(part, text, self.special[text])]
            yield from parts

    def _plain(self, text: str) -> list[int]:
        """Ids of text that must not hold a special token."""
        cuts = [m.end() for m in self._starts.finditer(text) if text.startswith(self._guarded[m[0]], m.start())]
        edges = [0, *cuts, len(text)]
        pieces = [text[a:b] for a, b in pairwise(edges)]
        ids = self.tokenize(pieces[0]) if pieces[0] else []
        for piece in pieces[1:]:
            ids += self._continued(piece)
        return ids

    def _continued(self, text: str) -> list[int]:
        """Ids of text in the middle of a line, where no space may be put before it."""
        if not self._adds_space:
            return self.tokenize(text)
        lead = self.tokenize("\n")
        ids = self.tokenize("\n" + text)
        return ids[len(lead) :] if ids[: len(lead)] == lead else self.tokenize(text)


def _split(part: str | int, text: str, token: int) -> list[str | int]:
    """The part cut at every occurrence of a special token."""
    if isinstance(part, int):
        return [part]
    pieces: list[str | int] = []
    for n, piece in enumerate(part.split(text)):
        pieces += [piece] if n == 0 else [token, piece]
    return [piece for piece in pieces if piece != ""]


def _trimmed(text: str, *, after: int, before: int) -> str:
    """Text between two special tokens, without the white space that these swallow."""
    if after & llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP:
        text = text.lstrip(_SPACE)
    return text.rstrip(_SPACE) if before & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP else text
