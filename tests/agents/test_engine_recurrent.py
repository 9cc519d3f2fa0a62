"""A model with a recurrent state: sequences that can be neither copied nor cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.context import RECURRENT_SEQUENCES
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.config import GREEDY
from preflexor_agents.prompts import Message
from tests.fakes.tiny_gguf import BOS, CHAT_TEMPLATE, CONTROL, END, TAGS, WORDS, vocabulary

WIDTH, INNER, STATE, KERNEL, RANK = 64, 128, 8, 4, 4


@pytest.fixture
async def mamba(tmp_path: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = await LlamaCppBackend.open(write_mamba(tmp_path / "mamba.gguf"), threads=1)
    yield backend
    await backend.aclose()


def request(text: str, *, max_tok: int = 20) -> Request:
    return Request(messages=(Message("user", text),), sampling=replace(GREEDY, max_tok=max_tok))


async def said(backend: LlamaCppBackend, asked: Request) -> Completion:
    async with aclosing(backend.generate(asked)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply


async def test_replies_side_by_side_are_those_written_alone(mamba: LlamaCppBackend):
    assert not mamba._model._context.shares
    asked = [request(f"{n} silk is a protein {n}") for n in range(3 * RECURRENT_SEQUENCES)]
    alone = [(await said(mamba, one)).answer for one in asked]
    together = [reply.answer for reply in await asyncio.gather(*(said(mamba, one) for one in asked))]
    assert together == alone and len(set(alone)) > 1


async def test_readers_that_leave_do_not_change_the_other_replies(mamba: LlamaCppBackend):
    asked = [request(f"{n} silk is a fibre", max_tok=60) for n in range(3)]
    alone = [(await said(mamba, one)).answer for one in asked]
    running = [asyncio.create_task(said(mamba, one)) for one in asked]
    for n in range(20):
        async with aclosing(mamba.generate(request(f"{n} so it holds " * 20, max_tok=100))) as leaving:
            if n % 2:
                await anext(leaving)
    assert [reply.answer for reply in await asyncio.gather(*running)] == alone
    assert mamba._model.scheduler._prefixes.live_cells() == 0


def write_mamba(path: Path) -> Path:
    """A random model of two layers."""
    tokens = vocabulary(TAGS)
    types = [gguf.TokenType.CONTROL] * len(CONTROL)
    types += [gguf.TokenType.NORMAL] * (len(tokens) - len(CONTROL) - len(TAGS))
    types += [gguf.TokenType.USER_DEFINED] * len(TAGS)
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(2)
    writer.add_ssm_conv_kernel(KERNEL)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{t[:-1]} {t[-1]}" for t in tokens[len(CONTROL) + 256 : len(tokens) - len(TAGS)]])
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weights in tensors(tokens).items():
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(tokens: list[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(shape[-1])

    output = np.zeros((len(tokens), WIDTH))
    words = [n for n, token in enumerate(tokens) if token in WORDS]
    output[words] = random(len(words), WIDTH) * 4
    found = {"token_embd.weight": rng.normal(size=(len(tokens), WIDTH)), "output.weight": output}
    found["output_norm.weight"] = np.ones(WIDTH)
    for n in range(2):
        found |= {
            f"blk.{n}.attn_norm.weight": np.ones(WIDTH),
            f"blk.{n}.ssm_in.weight": random(2 * INNER, WIDTH),
            f"blk.{n}.ssm_conv1d.weight": random(INNER, KERNEL),
            f"blk.{n}.ssm_conv1d.bias": np.zeros(INNER),
            f"blk.{n}.ssm_x.weight": random(RANK + 2 * STATE, INNER),
            f"blk.{n}.ssm_dt.weight": random(INNER, RANK),
            f"blk.{n}.ssm_dt.bias": np.zeros(INNER),
            f"blk.{n}.ssm_a": -np.exp(rng.normal(size=(INNER, STATE))),
            f"blk.{n}.ssm_d": np.ones(INNER),
            f"blk.{n}.ssm_out.weight": random(WIDTH, INNER),
        }
    return found
