"""A GGUF model in this process: request to prompt, prompt to reply. Belongs to one thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.backends import model_file
from preflexor_agents.backends.base import Completion, Delta, FinishReason, Request
from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.backends.decode import Decoder, sampler
from preflexor_agents.backends.loops import is_loop
from preflexor_agents.backends.model_file import ModelFile
from preflexor_agents.backends.reply import ReplyReader
from preflexor_agents.backends.template import ChatTemplate, Span
from preflexor_agents.backends.tokens import Vocabulary
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.events import Channel, Usage
from preflexor_agents.markup import TAGS, SectionParser, neutralise
from preflexor_agents.prompts import Message


class Marks(NamedTuple):
    """How a model writes its thinking."""

    open: str
    close: str


OWN_MARKS = Marks("<|thinking|>\n", "\n<|/thinking|>")
COMMON_MARKS = Marks("<think>\n", "\n</think>\n\n")
_PROBE = (Message("system", "a"), Message("user", "b"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, ready to be decoded."""

    tokens: list[int]
    opened: Channel | None
    """Section that the reply starts in, as SectionParser wants it."""
    notes: tuple[str, ...] = ()


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
            self._vocabulary = Vocabulary(self._file.vocabulary)
            self._template = ChatTemplate(
                self._file.chat_template,
                bos_token=self._vocabulary.text_of(self._vocabulary.bos),
                eos_token=self._vocabulary.text_of(self._vocabulary.eos),
            )
            ending = _ending(self._template.render(_PROBE))
            self.context_tok = min(context_tok, self._file.trained_tok)
            self._decoder: Decoder = self._file.decoder(context_tok=self.context_tok, threads=threads)
        except ModelError as e:
            self._file.close()
            raise ModelError(f"{path}: {e}") from None
        tokens = set(self._vocabulary.tags.values())
        own = "<|thinking|>" in tokens or "<|thinking|>" in self._file.chat_template
        self.native_tags = own or ("<think>" in self._file.chat_template and not ending.endswith("</think>"))
        self._marks = OWN_MARKS if own else COMMON_MARKS
        self._spelt_tags = tuple(tag for tag in TAGS if tag not in tokens)

    def prompt(self, request: Request) -> Prompt:
        """Render and tokenise.

        Raises:
            BackendError: the prompt leaves no room in the context for a reply.
            ModelError: the chat template cannot render such turns.
        """
        constrained = request.json_schema is not None
        messages = tuple(self._disarmed(message) for message in request.messages)
        spans = list(self._template.render(messages, thinking=not constrained))
        inside = _ending(spans).endswith(self._marks.open.strip())
        opened: Channel | None = "thinking" if inside else None
        if request.thinking is not None:
            thinking = neutralise(request.thinking, self._spelt_tags)
            spans += [] if inside else [Span(self._marks.open, trusted=True)]
            spans += [Span(thinking, trusted=False), Span(self._marks.close, trusted=True)]
            opened = "answer"
        elif constrained:
            spans += [Span(self._marks.close, trusted=True)] if inside else []
            opened = "answer"
        tokens = self._vocabulary.encode(spans)
        if len(tokens) >= self.context_tok:
            raise BackendError(
                f"the prompt has {len(tokens)} tokens, the context of {self._file.path.name} holds {self.context_tok}; "
                "shorten the question, or use fewer passages or a model with a larger context"
            )
        broken = messages != request.messages or (request.thinking is not None and thinking != request.thinking)
        return Prompt(tokens, opened, ("reasoning tags in the input were broken up",) if broken else ())

    def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt. Raises ModelError like `prompt`."""
        return len(self._vocabulary.encode(self._template.render(tuple(map(self._disarmed, messages)))))

    def answer(self, request: Request, *, cancel: CancelFlag, emit: Callable[[Delta], None]) -> Completion:
        """Generate one reply, handing out its text as it is written.

        Raises:
            BackendError: the prompt does not fit, or llama.cpp failed.
            Cancelled: the flag was set.
        """
        began = time.monotonic()
        prompt = self.prompt(request)
        cached = self._decoder.prefill(prompt.tokens, cancel)
        room = self.context_tok - len(prompt.tokens)
        tags = self._spelt_tags if request.json_schema is None else ()
        reader = ReplyReader(SectionParser(opened=prompt.opened, tags=tags), request.stop)
        written: list[int] = []
        finish: FinishReason = "length"
        loops = False
        with sampler(self._file.vocabulary, request.sampling, request.seed, request.json_schema) as chain:
            for token in self._decoder.tokens(chain, cancel):
                written.append(token)
                if self._vocabulary.ends(token):
                    finish = "stop"
                    break
                tag = self._vocabulary.tags.get(token)
                for delta in reader.tag(tag) if tag else reader.piece(self._vocabulary.piece(token)):
                    emit(delta)
                if reader.stopped:
                    finish = "stop"
                    break
                loops = is_loop(written)
                if loops or len(written) == min(room, request.sampling.max_tok):
                    break
        last, sections = reader.finish()
        for delta in last:
            emit(delta)
        notes: tuple[str, ...] = ()
        if loops:
            notes = ("the reply was cut: it only repeated itself",)
        elif finish == "length" and room < request.sampling.max_tok:
            notes = (f"the reply was cut where the context of {self.context_tok} tokens was full",)
        return Completion(
            thinking=sections.thinking,
            reflection=sections.reflection,
            answer=sections.answer,
            finish_reason=finish,
            usage=Usage(prompt=len(prompt.tokens), cached=cached, generated=len(written)),
            seconds=time.monotonic() - began,
            notes=(*prompt.notes, *notes, *sections.problems),
        )

    def close(self) -> None:
        """Free context and model. Idempotent."""
        self._decoder.close()
        self._file.close()

    def _disarmed(self, message: Message) -> Message:
        """The message with tags broken up that this model can only spell, and would be taken for tags if quoted."""
        if message.role == "system":
            return message
        return replace(message, content=neutralise(message.content, self._spelt_tags))


def _ending(spans: tuple[Span, ...] | list[Span]) -> str:
    """The template's text just before the reply."""
    return spans[-1].text.rstrip() if spans and spans[-1].trusted else ""
