"""A model whose every other layer sees a window of the text only: what is shared stays what is computed alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.config import GREEDY
from preflexor_agents.prompts import Message
from tests.fakes.tiny_gguf import BOS, CHAT_TEMPLATE, CONTROL, END, TAGS, WORDS, vocabulary

WIDTH, INNER, HEADS, LAYERS, WINDOW = 64, 128, 4, 4, 32
TEXT = "silk is a protein of spiders and so it holds a fibre that is tough and light " * 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma(tmp_path_factory.mktemp("window") / "gemma.gguf")


@pytest.fixture
async def gemma(model: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = await LlamaCppBackend.open(model, threads=1)
    yield backend
    await backend.aclose()


def request(text: str) -> Request:
    return Request(messages=(Message("user", text),), sampling=replace(GREEDY, max_tok=40))


async def said(backend: LlamaCppBackend, asked: Request) -> Completion:
    async with aclosing(backend.generate(asked)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply


async def said_afresh(model: Path, asked: Request) -> str:
    backend = await LlamaCppBackend.open(model, threads=1)
    try:
        return (await said(backend, asked)).answer
    finally:
        await backend.aclose()


async def test_beginnings_far_longer_than_the_window_are_shared_and_change_no_reply(
    gemma: LlamaCppBackend, model: Path
):
    assert 0 < llama_cpp.llama_model_n_swa(gemma._model._file.pointer) <= WINDOW
    asked = [request(f"{TEXT} {n}") for n in range(4)]
    alone = [await said_afresh(model, one) for one in asked]
    one_by_one = [await said(gemma, one) for one in asked]
    assert [reply.answer for reply in one_by_one] == alone and len(set(alone)) > 1
    assert min(reply.usage.cached for reply in one_by_one[1:]) > 4 * WINDOW
    together = await asyncio.gather(*(said(gemma, one) for one in asked))
    assert [reply.answer for reply in together] == alone


async def test_a_shorter_beginning_is_cut_out_of_a_longer_one(gemma: LlamaCppBackend, model: Path):
    """What the window has passed is still needed when a sequence is cut."""
    await said(gemma, request(TEXT + TEXT))
    shorter = request(TEXT[: len(TEXT) // 2] + " what holds?")
    reply = await said(gemma, shorter)
    assert reply.usage.cached > 2 * WINDOW
    assert reply.answer == await said_afresh(model, shorter)


async def test_what_has_left_the_cache_is_computed_again(gemma: LlamaCppBackend, model: Path):
    """llama.cpp's state of a sequence lacks what the window has passed, so it could not be cut."""
    asked = request(TEXT + TEXT)
    before = await said(gemma, asked)
    prefixes = gemma._model.scheduler._prefixes
    room = gemma._model._context.cells
    await asyncio.get_running_loop().run_in_executor(gemma._worker, prefixes.make_room, room)
    again = await said(gemma, asked)
    assert again.usage.cached == 0
    assert again.answer == before.answer == await said_afresh(model, asked)


def write_gemma(path: Path) -> Path:
    """A random Gemma 2."""
    tokens = vocabulary(TAGS)
    types = [gguf.TokenType.CONTROL] * len(CONTROL)
    types += [gguf.TokenType.NORMAL] * (len(tokens) - len(CONTROL) - len(TAGS))
    types += [gguf.TokenType.USER_DEFINED] * len(TAGS)
    writer = gguf.GGUFWriter(path, "gemma2")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_sliding_window(WINDOW)
    writer.add_layer_norm_rms_eps(1e-6)
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
    rng = np.random.default_rng(1)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(shape[-1])

    embedding = rng.normal(size=(len(tokens), WIDTH))
    embedding[[token not in WORDS for token in tokens]] *= 0.05  # it is the output as well, and words are to be drawn
    found = {"token_embd.weight": embedding, "output_norm.weight": np.ones(WIDTH)}
    for n in range(LAYERS):
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            found[f"blk.{n}.{norm}.weight"] = np.ones(WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"blk.{n}.{part}.weight"] = random(WIDTH, WIDTH)
        found[f"blk.{n}.ffn_gate.weight"] = random(INNER, WIDTH)
        found[f"blk.{n}.ffn_up.weight"] = random(INNER, WIDTH)
        found[f"blk.{n}.ffn_down.weight"] = random(WIDTH, INNER)
    return found
