"""How many tokens a pair has: by a tokenizer or a GGUF file's vocabulary, or an estimate that says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.errors import ConfigError, InputError, ModelError
from preflexor_agents.prompts import Message
from preflexor_training.damage import Damaged
from preflexor_training.pairs import Pair, Reply

BYTES_PER_TOK = 4
"""Of English text in a large vocabulary."""
TURN_TOK = 4
"""What a chat template adds to a turn."""


class Lengths(NamedTuple):
    """Tokens of a pair."""

    prompt: int
    thinking: int
    """Of the chosen reply, its reflection included; part of `chosen`."""
    chosen: int
    rejected: int

    @property
    def row(self) -> int:
        """Prompt and longer reply, as the trainer's limit counts them."""
        return self.prompt + max(self.chosen, self.rejected)


class Measure(NamedTuple):
    """What counts tokens."""

    name: str
    """For whoever reads the numbers."""
    lengths: Callable[[Pair], Lengths]


@contextmanager
def measure(tokenizer: Path | None) -> Iterator[Measure]:
    """What counts tokens, for as long as it is needed.

    Args:
        tokenizer: a model's folder, with its tokenizer.json, or a GGUF file; None to estimate.

    Raises:
        InputError: there is no tokenizer in it, or a library is missing.
    """
    if tokenizer is None:
        yield Measure(f"estimated, {BYTES_PER_TOK} bytes a token", lambda pair: _counted(pair, _estimate))
    elif tokenizer.is_dir():
        yield _by_folder(tokenizer)
    else:
        with _by_gguf(tokenizer) as found:
            yield found


def _by_folder(folder: Path) -> Measure:
    """As training itself renders a pair, if the tokenizer has the tags and a chat template; else text by text."""
    try:
        from preflexor_agents.backends.hf_tokens import HfVocabulary, load_tokenizer
    except ImportError:
        raise InputError("a tokenizer's folder takes transformers: pip install 'preflexor-agents[train]'") from None
    from preflexor_training.recipe_parts import Mask, Tags
    from preflexor_training.rendering import renderer, tokenize

    tokenizer = load_tokenizer(folder)
    vocabulary = HfVocabulary(tokenizer)

    def count(text: str) -> int:
        return len(vocabulary.tokenize(text))

    for tags in (Tags(), Tags(mode="text", thinking="<think>")):
        try:
            rendering = renderer(tokenizer, tags)
            break
        except (ConfigError, ModelError):
            continue
    else:
        return Measure(f"{folder.name}, text by text", lambda pair: _counted(pair, count))

    def lengths(pair: Pair) -> Lengths:
        try:
            made = tokenize(pair, rendering, mask=Mask())
        except Damaged:
            return _counted(pair, count)
        thinking = sum(section.close - section.body for section in made.chosen.sections)
        return Lengths(len(made.prompt), thinking, len(made.chosen.ids), len(made.rejected.ids))

    return Measure(f"{folder.name}, as in training", lengths)


@contextmanager
def _by_gguf(path: Path) -> Iterator[Measure]:
    from preflexor_agents.backends import model_file
    from preflexor_agents.backends.tokens import Vocabulary

    file = model_file.load(path, vocabulary_only=True)
    try:
        vocabulary = Vocabulary(file.vocabulary)
        yield Measure(
            f"{path.name}, text by text", lambda pair: _counted(pair, lambda text: len(vocabulary.tokenize(text)))
        )
    finally:
        file.close()


def _counted(pair: Pair, count: Callable[[str], int]) -> Lengths:
    """Text by text; tags and the end of a turn are a token each."""

    def sections(reply: Reply) -> list[int]:
        return [count(text) for text in (reply.thinking, reply.reflection) if text is not None]

    def whole(reply: Reply) -> int:
        found = sections(reply)
        return sum(found) + 2 * len(found) + count(reply.answer) + 1

    def turn(message: Message) -> int:
        return TURN_TOK + count(message.content)

    prompt = sum(map(turn, pair.prompt))
    return Lengths(prompt, sum(sections(pair.chosen)), whole(pair.chosen), whole(pair.rejected))


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOK)
