"""Who writes the replies in benchmarks/engine.py: our engine, what is installed beside it, and llama.cpp itself.

Each is asked for the seconds that N replies to one prompt take, cold. Those that write one reply after the other are
timed on the first call and on two that find their prompt in the cache; N calls take as long as so many of them.
"""

import asyncio
import json
import random
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import llama_cpp

from preflexor_agents.backends import model_file
from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.backends.local_model import LocalModel
from preflexor_agents.backends.pieces import LONG_PIECE_TOK, shared_tok
from preflexor_agents.backends.sampling import sampler
from preflexor_agents.backends.scheduler import Job, Prefill
from preflexor_agents.config import Sampling

SAMPLING = Sampling(temperature=0.8)
_TIMED_STEPS = 24
_OTHERS = 31
"""The sequence that stands for what the replies have written."""


class Opponent(Protocol):
    name: str

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        """By N: for N replies of `most` tokens to a prompt that it has not seen."""

    def close(self) -> None: ...


def prompt_of(length: int, *, seed: int) -> list[int]:
    """Tokens that every model here has, and that are neither control tokens nor repeated."""
    rng = random.Random(seed)
    return [rng.randrange(300, 1000) for _ in range(length)]


class Reply(NamedTuple):
    """What our engine wrote."""

    tokens: list[int]
    cached: int
    """Tokens of its prompt that were not evaluated again."""


class Ours:
    name = "preflexor"

    def __init__(self, path: Path, *, threads: int, context_tok: int = 4096) -> None:
        self._loop = asyncio.new_event_loop()
        opening = LlamaCppBackend.open(path, threads=threads, context_tok=context_tok)
        self.backend = self._loop.run_until_complete(opening)
        self._said: dict[int, Iterator[int]] = {}
        """By the id of a sampler chain: what its reply says, whatever is drawn."""
        context = self.backend._model._context
        draw = context.draw
        context.draw = lambda chain, row: next(self._said.get(id(chain), iter(())), draw(chain, row))  # type: ignore[method-assign]

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        found = {}
        for place, n in enumerate(widths):
            cold = [300 + place, *prompt[1:]]
            began = time.perf_counter()
            self.replies([cold] * n, [most] * n)
            found[n] = time.perf_counter() - began
        return found

    def replies(
        self, prompts: Sequence[Sequence[int]], most: Sequence[int], *, said: Sequence[Sequence[int]] = ()
    ) -> list[Reply]:
        """Ask all at once; the end of a text is not heeded, so each reply has its length.

        Where `said` has a text for each, the replies say that: as much can be guessed of it as of a trained model's.
        """
        return self._loop.run_until_complete(self._replies(prompts, most, said or [()] * len(prompts)))

    async def _replies(
        self, prompts: Sequence[Sequence[int]], most: Sequence[int], said: Sequence[Sequence[int]]
    ) -> list[Reply]:
        asked = enumerate(zip(prompts, most, said, strict=True))
        return list(await asyncio.gather(*(self._reply(list(p), m, s, seed=n) for n, (p, m, s) in asked)))

    async def _reply(self, prompt: list[int], most: int, said: Sequence[int], *, seed: int) -> Reply:
        def job(model: LocalModel, emit: Any) -> Job[Reply]:
            vocabulary = model.text.vocabulary
            with sampler(model._file.vocabulary, SAMPLING, seed, None) as chain:
                self._said[id(chain)] = iter(said)
                cached = yield Prefill(prompt, most, chain)
                written: list[int] = []
                while len(written) < most:
                    token = yield None
                    written.append(token)
                    emit(Delta("answer", vocabulary.piece(token).decode("utf-8", "replace")))
                return Reply(written, cached)

        async with aclosing(self.backend.run(job)) as items:
            found = [item async for item in items if isinstance(item, Reply)]
        return found[0]

    def close(self) -> None:
        self._loop.run_until_complete(self.backend.aclose())
        self._loop.close()


class HighLevel:
    """`llama_cpp.Llama`: its calls one after the other; it evaluates only what is new of a prompt."""

    name = "llama_cpp.Llama"

    def __init__(self, path: Path, *, threads: int, context_tok: int = 4096) -> None:
        self._llm = llama_cpp.Llama(
            str(path), n_ctx=context_tok, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def reply(self, prompt: Sequence[int], most: int, seed: int) -> list[int]:
        self._llm.set_seed(seed)
        tokens = []
        options = {"temp": SAMPLING.temperature, "top_k": SAMPLING.top_k, "top_p": SAMPLING.top_p, "min_p": 0.0}
        for token in self._llm.generate(list(prompt), **options):  # type: ignore[arg-type]
            tokens.append(token)
            self._llm.detokenize([token])
            if len(tokens) == most:
                break
        return tokens

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        return one_by_one(lambda n: self.reply(prompt, most, n), widths)

    def close(self) -> None:
        self._llm.close()


class AutoGen:
    """AutoGen's own llama.cpp client, asked for as much in words: its API takes no tokens."""

    name = "AutoGen client"

    def __init__(self, path: Path, *, threads: int, context_tok: int = 4096) -> None:
        from autogen_ext.models.llama_cpp import LlamaCppChatCompletionClient

        self._loop = asyncio.new_event_loop()
        options: dict[str, Any] = {"n_ctx": context_tok, "n_threads": threads, "verbose": False}
        self._client = LlamaCppChatCompletionClient(model_path=str(path), **options)

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        from autogen_core.models import UserMessage

        text = "".join(chr(97 + token % 19) for token in prompt)  # a token a letter, but for `th`
        message = UserMessage(content=text, source="user")

        def call(n: int) -> None:
            arguments = {"max_tokens": most, "temperature": 0.8, "seed": n}
            self._loop.run_until_complete(self._client.create([message], extra_create_args=arguments))

        return one_by_one(call, widths)

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


class Raw:
    """llama_decode with one batch a step and C samplers, nothing else, set as our engine sets it: the limit.

    Only a few steps are timed, with as many cells in use as there are in the middle of the replies. Where fewer replies
    at a time are quicker, they are written so.
    """

    name = "llama_decode"

    def __init__(self, path: Path, *, threads: int, context_tok: int = 4096) -> None:
        self._model = model_file.load(path)
        self._made = self._model.context(context_tok=context_tok, threads=threads)
        self._context = self._made._pointer
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(LONG_PIECE_TOK, 0, 1)
        self._held: dict[int, list[int]] = {}
        """Prompts by the sequence that they are in."""

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        self.keep([])
        began = time.perf_counter()
        asked = self.prefill(prompt)
        prefilled = time.perf_counter() - began
        found, others, least = {}, 0, float("inf")
        for n in sorted(widths):
            more = n * most // 2 - others
            self._evaluate([300] * more, start=others, sequence=_OTHERS)
            others += more
            steps = self.steps([asked] * n, [min(most, _TIMED_STEPS)] * n)
            least = min(least, statistics.median(steps) / n)
            found[n] = prefilled + most * n * least
        llama_cpp.llama_memory_seq_rm(self._memory, _OTHERS, -1, -1)
        return found

    def prefill(self, prompt: Sequence[int]) -> int:
        """Evaluate what is new of a prompt; returns the sequence that it is in from here on."""
        alike = {number: shared_tok(held, prompt, step=1) for number, held in self._held.items()}
        donor = max(alike, key=alike.__getitem__, default=None)
        same = alike[donor] if donor is not None else 0
        sequence = next(self._free())
        if donor is not None and same:
            llama_cpp.llama_memory_seq_cp(self._memory, donor, sequence, 0, same)
        self._evaluate(prompt[same:], start=same, sequence=sequence)
        self._held[sequence] = list(prompt)
        return sequence

    def keep(self, sequences: Collection[int]) -> None:
        """Forget all other prompts."""
        for number in [number for number in self._held if number not in sequences]:
            llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
            del self._held[number]

    def steps(self, prompts: Sequence[int], lengths: Sequence[int]) -> list[float]:
        """Seconds of each step of replies to prompts that are there, so many tokens each, written side by side."""
        writing = [number for number, _ in zip(self._free(), prompts, strict=False)]
        places = [len(self._held[prompt]) for prompt in prompts]
        for prompt, number, length in zip(prompts, writing, places, strict=True):
            llama_cpp.llama_memory_seq_cp(self._memory, prompt, number, 0, length)
        times = []
        with sampler(self._model.vocabulary, SAMPLING, 1, None) as chain:
            tokens = [300 + n for n in range(len(prompts))]
            for place in range(max(lengths)):
                began = time.perf_counter()
                live = [n for n, length in enumerate(lengths) if place < length]
                self._decode([(tokens[n], places[n] + place, writing[n], True) for n in live])
                for row, n in enumerate(live):
                    tokens[n] = llama_cpp.llama_sampler_sample(chain, self._context, row)
                times.append(time.perf_counter() - began)
        for number in writing:
            llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
        return times

    def _free(self) -> Iterator[int]:
        return (number for number in range(_OTHERS) if number not in self._held)

    def _evaluate(self, tokens: Sequence[int], *, start: int, sequence: int) -> None:
        for at in range(0, len(tokens), LONG_PIECE_TOK):
            piece = list(enumerate(tokens))[at : at + LONG_PIECE_TOK]
            self._decode([(token, start + n, sequence, n == len(tokens) - 1) for n, token in piece])

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        for n, (token, position, sequence, wanted) in enumerate(rows):
            self._batch.token[n] = token
            self._batch.pos[n] = position
            self._batch.n_seq_id[n] = 1
            self._batch.seq_id[n][0] = sequence
            self._batch.logits[n] = wanted
        self._batch.n_tokens = len(rows)
        if llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError("llama.cpp could not evaluate a batch")

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        self._made.close()
        self._model.close()


class Server:
    """llama-server with 16 slots and its prompt cache, asked for all replies at once."""

    name = "llama-server"

    def __init__(self, program: Path, path: Path, *, threads: int, context_tok: int = 4096) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        command = [str(program), "-m", str(path), "-t", str(threads), "-np", "16", "-c", str(16 * context_tok)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError(f"{program} ended with code {self._process.returncode}")
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.1)
        self.close()
        raise RuntimeError(f"{program} did not get ready within a minute")

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        found = {}
        for place, n in enumerate(widths):
            cold = [300 + place, *prompt[1:]]
            began = time.perf_counter()
            with ThreadPoolExecutor(n) as threads:
                list(threads.map(lambda seed, cold=cold: self._ask(cold, most, seed), range(n)))
            found[n] = time.perf_counter() - began
        return found

    def _ask(self, prompt: list[int], most: int, seed: int) -> None:
        body = {"prompt": prompt, "n_predict": most, "seed": seed, "temperature": 0.8, "ignore_eos": True}
        body |= {"cache_prompt": True, "top_k": SAMPLING.top_k, "top_p": SAMPLING.top_p, "min_p": 0.0}
        asked = urllib.request.Request(
            f"{self._url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(asked, timeout=600).read()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Ollama:
    """An Ollama server that has the file under a name, asked for all replies at once."""

    name = "Ollama"

    def __init__(self, model: str, *, context_tok: int = 4096) -> None:
        import ollama

        self._client = ollama.Client()
        self._model, self._context_tok = model, context_tok
        self._client.show(model)

    def seconds(self, prompt: Sequence[int], *, most: int, widths: Sequence[int]) -> dict[int, float]:
        found = {}
        for place, n in enumerate(widths):
            text = chr(97 + place) + "".join(chr(97 + token % 19) for token in prompt[1:])
            began = time.perf_counter()
            with ThreadPoolExecutor(n) as threads:
                list(threads.map(lambda seed, text=text: self._ask(text, most, seed), range(n)))
            found[n] = time.perf_counter() - began
        return found

    def _ask(self, text: str, most: int, seed: int) -> None:
        options = {"num_predict": most, "num_ctx": self._context_tok, "seed": seed, "temperature": 0.8}
        self._client.generate(self._model, text, raw=True, options=options)

    def close(self) -> None:
        """The server goes on."""


def one_by_one(call: Any, widths: Sequence[int]) -> dict[int, float]:
    times = []
    for n in range(3 if max(widths) > 1 else 1):
        began = time.perf_counter()
        call(n)
        times.append(time.perf_counter() - began)
    following = statistics.mean(times[1:]) if len(times) > 1 else 0.0
    return {n: times[0] + (n - 1) * following for n in widths}


@contextmanager
def opened(opponents: Sequence[Opponent]) -> Iterator[None]:
    try:
        yield
    finally:
        for opponent in opponents:
            opponent.close()
