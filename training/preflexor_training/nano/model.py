"""nano's network: a small Llama whose first two layers start as an induction circuit.

An induction circuit finds the earlier place where the recent token stood and copies what followed it. Hand-set at
the start it gives the model copying on the first step, which is most of what answering from passages needs; nothing is
added to the architecture, so every engine that runs Llama runs it.
"""

import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

ROPE_THETA = 5e5


def new_model(
    tokenizer: PreTrainedTokenizerBase, *, layers: int, hidden: int, heads: int, ffn: int, context: int
) -> LlamaForCausalLM:
    """A fresh model for this tokenizer, from torch's global seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    induction_init(model)
    return model


def load_model(folder: Path) -> LlamaForCausalLM:
    """The model that was saved in a folder, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, LlamaForCausalLM)
    return model


@torch.no_grad()
def induction_init(
    model: LlamaForCausalLM,
    *,
    embedding_std: float = 0.05,
    common_share: float = 0.5,
    distance_gain: float = 0.75,
    previous_gain: float = 0.3,
    match_gain: float = 3.0,
    copy_gain: float = 1.0,
) -> None:
    """Write previous-token heads into layer 0 and match-and-copy heads into layer 1.

    The residual stream is cut into three orthogonal parts: one direction u that all tokens share (`common_share` of an
    embedding's norm), by which layer 0 attends to distance alone; a half P; and the rest R. Layer 0 writes the
    previous token's P half into R. Layer 1 compares its own P half with the keys' R half and copies the P half of
    what it finds. As the halves do not mix, the match stays clear among many hundred keys.
    """
    config = model.config
    hidden, heads = config.hidden_size, config.num_attention_heads
    width = hidden // heads
    half = width // 2
    u = torch.nn.functional.normalize(torch.randn(hidden), dim=0)
    start = torch.randn(hidden, hidden)
    start[:, 0] = u
    basis = torch.linalg.qr(start).Q.T  # orthonormal rows, the first along u
    match = half // 2 * 2  # dimensions that each head compares
    p_half = basis[1 : 1 + match * heads]
    r_half = torch.zeros_like(p_half)
    rest = basis[1 + match * heads :]
    r_half[: len(rest)] = rest[: len(r_half)]

    embedding = model.model.embed_tokens.weight  # (V, H)
    embedding.normal_(0, embedding_std)
    common = embedding_std * math.sqrt(hidden) * common_share / math.sqrt(1 - common_share**2)
    embedding.sub_((embedding @ u)[:, None] * u).add_(common * u)

    turn = ROPE_THETA ** (-torch.arange(half) / half)  # radians per position of each RoPE pair, falling
    slow = [*range(half - match // 2, half), *range(width - match // 2, width)]
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    for part in (first.v_proj, first.o_proj, second.v_proj, second.o_proj):
        part.weight.zero_()
    for head in range(heads):
        rows = slice(head * width, (head + 1) * width)
        mine = slice(head * match, (head + 1) * match)
        carried = slice(head * width, head * width + match)
        q, k = 0.01 * torch.randn(width, hidden), 0.01 * torch.randn(width, hidden)
        for i in range(half):
            if turn[i] >= 0.1:  # fast pairs: the score peaks at distance 1
                k[i] += distance_gain * u
                q[i] += distance_gain * turn[i].cos() * u
                q[i + half] -= distance_gain * turn[i].sin() * u
        first.q_proj.weight[rows], first.k_proj.weight[rows] = q, k
        q, k = 0.02 * torch.randn(width, hidden), 0.02 * torch.randn(width, hidden)
        q[slow], k[slow] = match_gain * p_half[mine], match_gain * r_half[mine]  # slow pairs: contents alone
        second.q_proj.weight[rows], second.k_proj.weight[rows] = q, k
        first.v_proj.weight[carried] = previous_gain * p_half[mine]
        first.o_proj.weight[:, carried] = previous_gain * r_half[mine].T
        second.v_proj.weight[carried] = copy_gain * p_half[mine]
        second.o_proj.weight[:, carried] = copy_gain * p_half[mine].T


@torch.no_grad()
def copy_accuracy(model: LlamaForCausalLM, *, length: int = 64, rows: int = 16, seed: int = 0) -> float:
    """Share of right next tokens in the second half of random tokens that are repeated once."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(8, model.config.vocab_size, (rows, length), generator=generator)
    ids = torch.cat([once, once], dim=1)  # (B, 2L)
    logits = model(input_ids=ids).logits[:, length:-1]  # (B, L-1, V)
    return float((logits.argmax(-1) == once[:, 1:]).float().mean())
