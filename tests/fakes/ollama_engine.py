"""Gives the stub of an Ollama server a real engine: llama.cpp on the very bytes that were uploaded.

As in the server, control strings in a prompt become control tokens, and control tokens in a reply show as nothing.
"""

from pathlib import Path
from typing import Any

import llama_cpp

from tests.fakes.ollama_stub import OllamaStub, StubModel


class Engine:
    """`Engine(stub, folder)` answers for the models that are created on the stub; greedy. Close it at the end."""

    def __init__(self, stub: OllamaStub, folder: Path) -> None:
        self._stub = stub
        self._folder = folder
        self._loaded: dict[str, llama_cpp.Llama] = {}
        stub.speaks, stub.counts = self.speak, self.count

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        for model in self._loaded.values():
            model.close()
        self._loaded.clear()

    def count(self, model: StubModel, prompt: str) -> int:
        return len(self._tokens(model, prompt))

    def speak(self, model: StubModel, prompt: str, options: dict[str, Any]) -> str:
        engine, written = self._engine(model), b""
        stops = [v.encode() for k, v in model.parameters if k == "stop"]
        tokens = self._tokens(model, prompt)
        for n, token in enumerate(engine.generate(tokens, temp=0.0, repeat_penalty=1.0)):
            if llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(engine.model), token):
                break
            written += engine.detokenize([token])
            if n + 1 >= min(options.get("num_predict", 64), engine.n_ctx() - len(tokens) - 1):
                break
            if any(stop in written for stop in stops):
                break
        return written.decode("utf-8", errors="replace")

    def _tokens(self, model: StubModel, prompt: str) -> list[int]:
        return self._engine(model).tokenize(prompt.encode(), add_bos=True, special=True)

    def _engine(self, model: StubModel) -> llama_cpp.Llama:
        if model.weights not in self._loaded:
            file = self._folder / f"{model.weights}.gguf"
            file.write_bytes(self._stub.blobs[f"sha256:{model.weights}"])
            context_tok = dict(model.parameters).get("num_ctx", 512)
            self._loaded[model.weights] = llama_cpp.Llama(str(file), n_ctx=context_tok, n_threads=1, verbose=False)
        return self._loaded[model.weights]
