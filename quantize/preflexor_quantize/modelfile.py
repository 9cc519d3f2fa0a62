"""What Ollama has to be told about a GGUF file: its template in Go's form, where a turn ends, context and sampling.

Ollama takes the tags around thinking from the TEMPLATE: they must be text on both sides of `.Thinking` in a range over
`.Messages`, and the fields must be those of the dot. A last assistant message is left open, so that it is continued.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp

from preflexor_agents.backends import model_file
from preflexor_agents.backends.gguf_header import read_header
from preflexor_agents.backends.model_file import ModelFile
from preflexor_agents.backends.model_text import COMMON_MARKS, OWN_MARKS, Marks, ModelText
from preflexor_agents.backends.ollama_model import CONTEXT_TOK
from preflexor_agents.backends.template import ChatTemplate
from preflexor_agents.backends.tokens import Vocabulary
from preflexor_agents.config import Sampling
from preflexor_agents.errors import ConfigError, InputError, ModelError
from preflexor_agents.markup import TAGS
from preflexor_agents.prompts import SYSTEM
from preflexor_quantize.tags import stays_visible
from preflexor_quantize.turns import TurnFormat, turn_format

FROZEN_DATE = "the chat template writes today's date: in Ollama it stays the date of this call"
NO_TAGS = "the model has no reasoning tags: Ollama will not tell thinking apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """The settings of one Ollama model."""

    template: str
    """Go template."""
    system: str
    stops: tuple[str, ...]
    """Strings that end a turn; never a reasoning tag."""
    context_tok: int
    sampling: Sampling = field(default_factory=Sampling)
    marks: Marks | None
    """How the model writes its thinking; None if it has no tags."""
    notes: tuple[str, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """The settings by Ollama's names."""
        return {
            "num_ctx": self.context_tok,
            "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k,
            "top_p": self.sampling.top_p,
            "repeat_penalty": self.sampling.repeat_penalty,
            "stop": list(self.stops),
        }

    def text(self, source: str) -> str:
        """The Modelfile for the GGUF file at `source`."""
        lines = [f"FROM {source}", f'TEMPLATE """{self.template}"""']
        for name, value in self.parameters().items():
            values = [_quoted(v) for v in value] if isinstance(value, list) else [str(value)]
            lines += [f"PARAMETER {name} {v}" for v in values]
        if self.system:
            lines.append(f'SYSTEM """{self.system}"""')
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A GGUF file opened for its vocabulary and its chat template, without weights."""

    file: ModelFile
    text: ModelText[Vocabulary]

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self.text.vocabulary

    @property
    def adds_bos(self) -> bool:
        """Whether engines put the token that begins a text before a prompt by themselves."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self.file.vocabulary))


@contextmanager
def opened(path: Path) -> Iterator[OpenModel]:
    """Open a file that can be served.

    Raises:
        ModelError: it is missing, damaged or no GGUF, has no chat template, or hides its reasoning tags.
    """
    _check_whole(path)
    file = model_file.load(path, vocabulary_only=True)
    try:
        model = OpenModel(file, ModelText(file, Vocabulary(file.vocabulary)))
        for tag, token in model.vocabulary.special.items():
            if not stays_visible(tag, special=True):
                continue
            if llama_cpp.llama_vocab_get_attr(file.vocabulary, token) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL:
                raise ModelError(
                    f"{path}: {tag} is typed as a control token, which llama.cpp and Ollama show as nothing, so"
                    " thinking would run into the answer; convert the model again with: preflexor quantize FOLDER"
                )
        yield model
    except ModelError as e:
        raise e if str(e).startswith(str(path)) else ModelError(f"{path}: {e}") from None
    finally:
        file.close()


def _check_whole(path: Path) -> None:
    """Raises ModelError for a file that is no model by itself."""
    values = read_header(path).values
    if values.get("general.type") == "adapter":
        raise ModelError(f"{path} is an adapter without its base; merge it first: preflexor quantize BASE --adapter")
    if isinstance(parts := values.get("split.count"), int) and parts > 1:
        raise ModelError(f"{path} is one of {parts} files; join them first: llama-gguf-split --merge FIRST OUT")


def modelfile(
    model: OpenModel, *, context_tok: int | None = None, system: str | None = None, template: str | None = None
) -> Modelfile:
    """What to tell Ollama about a model.

    Args:
        model: the opened file.
        context_tok: most tokens of prompt and reply; by default CONTEXT_TOK, or fewer if it was trained with fewer.
        system: text of the system turn where a chat brings none; by default the one that our models are trained with
            for models with our tags, else nothing.
        template: in Go's form; derived from the file's chat template if not given.

    Raises:
        ConfigError: the context is longer than what the model was trained with.
        InputError: a text cannot be written into a Modelfile.
        ModelError: no template can be derived.
    """
    trained = model.text.trained_tok
    if context_tok is not None and not 0 < context_tok <= trained:
        raise ConfigError(f"--context is {context_tok}; the model takes from 1 to {trained} tokens")
    marks = thinking_marks(model)
    source = model.file.chat_template
    bos, eos = (model.vocabulary.text_of(token) for token in (model.vocabulary.bos, model.vocabulary.eos))
    notes: tuple[str, ...] = () if marks else (NO_TAGS,)
    stops: tuple[str, ...] = (eos,)
    if template is None:
        turns = turn_format(ChatTemplate(source, bos_token=bos, eos_token=eos), bos=bos, eos=eos)
        template = go_template(turns, marks, adds_bos=model.adds_bos)
        stops = (_marker(turns.assistant.close, model.vocabulary), eos)
        notes += (FROZEN_DATE,) if "strftime_now" in source else ()
    if system is None:
        system = SYSTEM if marks == OWN_MARKS else ""
    for what, text in (("the system text", system), ("the template", template)):
        if '"""' in text:
            raise InputError(f'{what} holds """, which ends a text in a Modelfile; leave it out')
    return Modelfile(
        template=template,
        system=system,
        stops=tuple(dict.fromkeys(s for s in stops if s and s not in TAGS)),
        context_tok=context_tok or min(CONTEXT_TOK, trained),
        marks=marks,
        notes=notes,
    )


def thinking_marks(model: OpenModel) -> Marks | None:
    """How the model writes its thinking, by its tokens and its chat template."""
    known = {*model.vocabulary.tags.values()}
    for marks in (OWN_MARKS, COMMON_MARKS):
        if marks.open.strip() in known or marks.open.strip() in model.file.chat_template:
            return marks
    return None


def go_template(turns: TurnFormat, marks: Marks | None, *, adds_bos: bool) -> str:
    """The chat template in Go's form.

    Args:
        turns: the texts around contents.
        marks: the texts around thinking, if there is any.
        adds_bos: whether the engine writes the token that begins a text itself; it must not stand there twice.

    Raises:
        ModelError: a text holds what Go would take for an instruction.
    """
    if any("{{" in text for text in (*turns.system, *turns.user, *turns.assistant, turns.reply, turns.without_system)):
        raise ModelError("the chat template writes '{{', which Ollama cannot; give its template with --template FILE")
    shown = ".Thinking" if turns.keeps_thinking else "and $last .Thinking"
    thinking = f"{{{{ if {shown} }}}}{marks.open}{{{{ .Thinking }}}}{marks.close}{{{{ end }}}}" if marks else ""
    folds = turns.folds_system != "no"
    system, held = f"{turns.system.open}{{{{ .Content }}}}{turns.system.close}", ""
    if folds:
        here = "$system" if turns.folds_system == "next" else "and $system (le (len (slice $.Messages $i)) 2)"
        held = f"{{{{ if {here} }}}}{turns.system.open}{{{{ $system }}}}{turns.system.close}"
        held += '{{ $system = "" }}{{ end }}'
        system = "{{ $system = .Content }}"
    without = f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{turns.without_system}{{{{ end }}}}'
    reply = turns.reply
    if turns.quiet_reply != turns.reply:
        reply = (
            f"{{{{ if and $.IsThinkSet (not $.Think) }}}}{turns.quiet_reply}{{{{ else }}}}{turns.reply}{{{{ end }}}}"
        )
    return "".join(
        (
            "" if adds_bos else turns.bos,
            '{{ $system := "" }}' if folds else "",
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}",
            without if turns.without_system else "",
            f'{{{{ if eq .Role "system" }}}}{system}',
            f'{{{{ else if eq .Role "assistant" }}}}{turns.assistant.open}{thinking}{{{{ .Content }}}}',
            f"{{{{ if not $last }}}}{turns.assistant.close}{{{{ end }}}}",
            f"{{{{ else }}}}{turns.user.open}{held}{{{{ .Content }}}}{turns.user.close}{{{{ end }}}}",
            f'{{{{ if and $last (ne .Role "assistant") }}}}{reply}{{{{ end }}}}{{{{ end }}}}',
        )
    )


def _quoted(text: str) -> str:
    """A text as a Modelfile takes it; it knows no escapes."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _marker(close: str, vocabulary: Vocabulary) -> str:
    """The token that the end of a turn starts with."""
    text = close.strip()
    found = [special for special in vocabulary.special if text.startswith(special)]
    return max(found, key=len, default=text)
