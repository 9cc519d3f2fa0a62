"""Model folders to convert: small ones with tokenizers of five families, a pretrained one, and a large random one."""

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preflexor_quantize.hf_to_gguf import SPLITS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TAGS = ("<|thinking|>", "<|/thinking|>", "<|reflect|>", "<|/reflect|>")
CHAT = "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}"
CHAT += "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
MARKS = ("<|bos|>", "<|start|>", "<|end|>")
LLAMA3_MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def split_named(name: str) -> str:
    return next(split for split, known in SPLITS.items() if known == name)


def byte_level(split: str, marks: tuple[str, ...] = MARKS) -> Tokenizer:
    """A BPE of bytes, trained on a few words, with this split."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(marks),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["the toughness of the shell is 4.5 and 1234"] * 9, trainer)
    return bpe


def wrapped(bpe: Tokenizer, **special: Any) -> PreTrainedTokenizerFast:
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **special)


def own_tokenizer() -> PreTrainedTokenizerFast:
    marks = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "additional_special_tokens": ["<|start|>"]}
    return wrapped(byte_level(split_named("qwen2")), chat_template=CHAT, **marks)


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    bpe = byte_level(split_named("llama-bpe"), LLAMA3_MARKS)
    marks = {"bos_token": LLAMA3_MARKS[0], "eos_token": "<|eot_id|>", "additional_special_tokens": [*LLAMA3_MARKS[1:4]]}
    return wrapped(bpe, chat_template=LLAMA3_CHAT, **marks)


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """The real one, from its two files."""
    found = next((DATA / "tokenizer-gpt2").rglob("encoder.json"))
    bpe = Tokenizer(models.BPE.from_file(str(found), str(found.with_name("vocab.bpe"))))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<|endoftext|>"])
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    return wrapped(bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>", chat_template=template)


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """SmolLM2's, with our tags."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DATA / "tokenizer-smollm2")
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """stories260K's 512 pieces, with the merges that their scores stand for."""
    raw = (DATA / "lm-stories260k" / "tokenizer.bin").read_bytes()
    at, pieces = 4, []
    while at < len(raw):
        score, length = struct.unpack_from("<fi", raw, at)
        pieces.append((raw[at + 8 : at + 8 + length].decode("utf-8"), score))
        at += 8 + length
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    texts += [text.replace(" ", "▁") for text, _ in pieces[259:]]
    vocabulary = {text: number for number, text in enumerate(texts)}
    merges = []
    for number in sorted(range(259, len(texts)), key=lambda n: -pieces[n][1]):
        text = texts[number]
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [p for p in pairs if p[0] in vocabulary and p[1] in vocabulary]
        merges += sorted(known, key=lambda p: (vocabulary[p[0]], vocabulary[p[1]]))
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens(["<unk>", "<s>", "</s>"])
    return wrapped(bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def random_model(
    out: Path, tokenizer: PreTrainedTokenizerFast, *, hidden: int = 64, ffn: int = 96, layers: int = 2, seed: int = 3
) -> Path:
    """A folder with a random Llama whose likeliest tokens are well apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def stories260k(out: Path) -> Path:
    """The pretrained model of 260 thousand weights, with tags added to its vocabulary."""
    raw = (DATA / "lm-stories260k" / "checkpoint_legacy.bin").read_bytes()
    dim, ffn, layers, heads, kv_heads, rows, context = struct.unpack_from("<7i", raw)
    numbers = torch.from_numpy(np.frombuffer(raw, dtype="<f4", offset=28).copy())
    tokenizer = sentencepiece_tokenizer()
    config = LlamaConfig(
        vocab_size=abs(rows),
        hidden_size=dim,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=rows > 0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    at, width = 0, dim // heads

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return numbers[at - count : at].reshape(shape)

    def halves(weight: torch.Tensor) -> torch.Tensor:
        """The checkpoint turns neighbouring pairs, Transformers turns halves."""
        return weight.view(layers, -1, width // 2, 2, dim).transpose(2, 3).reshape(layers, -1, dim)

    kv = kv_heads * width
    embedding, first_norm = take(abs(rows), dim), take(layers, dim)
    q, k, v, o = (
        halves(take(layers, dim, dim)),
        halves(take(layers, kv, dim)),
        take(layers, kv, dim),
        take(layers, dim, dim),
    )
    second_norm, gate, down, up = (
        take(layers, dim),
        take(layers, ffn, dim),
        take(layers, dim, ffn),
        take(layers, ffn, dim),
    )
    state = {"model.embed_tokens.weight": embedding, "model.norm.weight": take(dim)}
    names = {
        "input_layernorm": first_norm,
        "self_attn.q_proj": q,
        "self_attn.k_proj": k,
        "self_attn.v_proj": v,
        "self_attn.o_proj": o,
        "post_attention_layernorm": second_norm,
        "mlp.gate_proj": gate,
        "mlp.down_proj": down,
        "mlp.up_proj": up,
    }
    for layer in range(layers):
        state |= {f"model.layers.{layer}.{name}.weight": stack[layer] for name, stack in names.items()}
    model.load_state_dict(state, strict=False)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def large_random(out: Path) -> Path:
    """170 million random weights with Llama 3.2's vocabulary size, tied, in float16."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in alphabet for b in alphabet]
    merges += [(a + b, c) for a, b in merges[: len(merges) // 2] for c in alphabet[:2]]
    pieces = dict.fromkeys([*alphabet, *map("".join, merges)])
    texts = [*LLAMA3_MARKS, *list(pieces)[: 128_256 - len(LLAMA3_MARKS) - len(TAGS)]]
    known = {text: n for n, text in enumerate(texts)}
    bpe = Tokenizer(models.BPE(known, [pair for pair in merges if "".join(pair) in known]))
    trained = byte_level(split_named("llama-bpe"))
    bpe.pre_tokenizer, bpe.decoder = trained.pre_tokenizer, trained.decoder
    bpe.add_special_tokens(list(LLAMA3_MARKS))
    marks = {"bos_token": LLAMA3_MARKS[0], "eos_token": "<|eot_id|>", "additional_special_tokens": [*LLAMA3_MARKS[1:4]]}
    tokenizer = wrapped(bpe, chat_template=LLAMA3_CHAT, **marks)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=4,
    )
    LlamaForCausalLM(config).half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def added_tokens(folder: Path) -> dict[str, int]:
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in found}


def nano(out: Path) -> Path:
    """The folder that the bundled model was converted from, rebuilt from its file."""
    from preflexor_agents.backends.llamacpp import nano_path

    reader = gguf.GGUFReader(nano_path())
    about = {name: field.contents() for name, field in reader.fields.items()}
    tokens, kinds = about["tokenizer.ggml.tokens"], about["tokenizer.ggml.token_type"]
    assert about["tokenizer.ggml.pre"] == "qwen2"
    marked = [n for n, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    visible = [n for n, kind in enumerate(kinds) if kind == gguf.TokenType.USER_DEFINED]
    vocabulary = {text: n for n, text in enumerate(tokens) if n not in visible}
    bpe = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]))
    split = byte_level(split_named("qwen2"))
    bpe.pre_tokenizer, bpe.decoder = split.pre_tokenizer, split.decoder
    bpe.add_special_tokens([tokens[n] for n in marked])
    bpe.add_tokens([AddedToken(tokens[n], special=False, normalized=False) for n in visible])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tokens[about["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[about["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[about["tokenizer.ggml.padding_token_id"]],
        clean_up_tokenization_spaces=False,
        chat_template=about["tokenizer.chat_template"],
    )
    heads = about["llama.attention.head_count"]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=about["llama.embedding_length"],
        intermediate_size=about["llama.feed_forward_length"],
        num_hidden_layers=about["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=about["llama.context_length"],
        rms_norm_eps=float(np.float32(about["llama.attention.layer_norm_rms_epsilon"])),
        rope_parameters={"rope_type": "default", "rope_theta": about["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(np.array(tensor.data)).float()
        kind, _, layer = tensor.name.removesuffix(".weight").rpartition(".")[::-1]
        if kind in ("attn_q", "attn_k"):
            weight = weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        place = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}.get(kind)
        state[f"{place or f'model.layers.{layer[4:]}.{names[kind]}'}.weight"] = weight
    model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=False)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
