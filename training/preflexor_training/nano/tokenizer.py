"""nano's tokenizer: byte-level BPE with single digits, turn markers that are special and reasoning tags that are not.

The split pattern is the one of Qwen2, since llama.cpp knows it by name and so splits the same way. The tags stay
visible when text is decoded, so that reasoning can be told from the answer in any engine.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from preflexor_agents.prompts import Message

BOS, START, END, PAD = "<|bos|>", "<|start|>", "<|end|>", "<|pad|>"
CONTROL = (BOS, START, END, PAD)
TAGS = ("<|thinking|>", "<|/thinking|>", "<|reflect|>", "<|/reflect|>")

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ '" + BOS + "' }}{% for message in messages %}"
    "{{ '" + START + "' + message['role'] + '\\n' + message['content'] + '" + END + "\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + START + "assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """Learn the merges from `texts`; turn markers get the first ids, the tags the last ones."""
    bpe = _split(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return _wrapped(bpe, context)


def assemble(tokens: Sequence[str], merges: Sequence[tuple[str, str]], *, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer again from what a GGUF file keeps of it: its tokens by id, the tags last, and its merges."""
    vocabulary = {token: n for n, token in enumerate(tokens[: -len(TAGS)])}
    bpe = _split(models.BPE(vocab=vocabulary, merges=list(merges)))
    bpe.add_special_tokens(list(CONTROL))
    return _wrapped(bpe, context)


def _split(model: models.BPE) -> Tokenizer:
    bpe = Tokenizer(model)
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _wrapped(bpe: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    make: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    return make(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        add_bos_token=False,
        chat_template=CHAT_TEMPLATE,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that was saved in a model folder."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    return tokenizer


def chat_text(messages: Sequence[Message], *, given: str = "") -> str:
    """The prompt as the chat template renders it, with the reply opened and begun by `given`."""
    turns = "".join(f"{START}{m.role}\n{m.content}{END}\n" for m in messages)
    return f"{BOS}{turns}{START}assistant\n{given}"
