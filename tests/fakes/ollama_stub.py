"""A local Ollama server for tests: the HTTP surface and the habits of a real one, without a model.

What it copies was seen on a real server of 2026-08: chunked NDJSON, thinking told apart only for the first
tag pair, `think` unset meaning true, templates that close or keep open a last assistant turn, messages dropped
when the prompt outgrows num_ctx, errors under status 200 once a stream has begun. Replies are scripted as the
raw text of the model; without a script the reply depends only on prompt, seed and temperature.
"""

import hashlib
import json
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes import go_template
from tests.fakes.http_stub import Answer, HttpStub, HungUp, Recorded, Stream
from tests.fakes.ollama_replies import (
    OUR_TAGS,
    THINK_TAGS,
    Fault,
    Gate,
    Replay,
    Reply,
    Run,
    StubModel,
    count,
    fitting,
    improvised,
    last,
    piece,
    recorded,
    says,
)

__all__ = ["OUR_TAGS", "THINK_TAGS", "Fault", "Gate", "OllamaStub", "Replay", "Reply", "StubModel", "count", "says"]


class OllamaStub:
    """`with OllamaStub(StubModel(...)) as stub:` serves on `stub.host` in its own thread."""

    def __init__(self, *models: StubModel, knows_debug: bool = True) -> None:
        self.models = {model.name: model for model in models or (StubModel(),)}
        self.knows_debug = knows_debug
        self.loaded: dict[str, StubModel] = {}
        self.script: deque[Reply | Replay] = deque()
        self.blobs: dict[str, bytes] = {}
        self.registry: dict[str, StubModel] = {}
        """What can be pulled."""
        self.breaks = 0
        """So many uploads and creations lose their connection."""
        self.disk_is_full = False
        self.speaks: Callable[[StubModel, str, dict[str, Any]], str] | None = None
        """Writes the reply to a prompt where nothing is scripted; `Engine` runs the uploaded file."""
        self.counts: Callable[[StubModel, str], int] = lambda _, prompt: count(prompt)
        self._http = HttpStub(self._answer)

    def __enter__(self) -> "OllamaStub":
        self._http.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.stop()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._http.port}"

    @property
    def hung_up(self) -> threading.Event:
        """Set when a client went away before its answer was complete."""
        return self._http.hung_up

    @property
    def requests(self) -> list[Recorded]:
        return self._http.requests

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the requests to `path` that asked for an answer, oldest first."""
        return [r.body for r in self.requests if r.path == path and "_debug_render_only" not in r.body]

    def stop(self) -> None:
        self._http.stop()

    def restart(self) -> None:
        """Comes back on the same port, with nothing loaded."""
        self.loaded.clear()
        self._http.start(self._http.port)

    def replay(self, cassette: Path, load: Callable[[str], Any]) -> list[dict[str, Any]]:
        """Queues the recorded responses of a cassette; returns the recorded request bodies. `load` parses YAML."""
        turns = load(cassette.read_text(encoding="utf-8"))["interactions"]
        for turn in turns:
            response = turn["response"]
            self.script.append(Replay(body=response["body"]["string"], status=response["status"]["code"]))
        return [json.loads(turn["request"]["body"]) for turn in turns]

    async def _answer(self, request: Recorded) -> Answer | Stream:
        path, body = request.path, request.body
        match request.method, path:
            case "GET", "/api/version":
                return Answer({"version": "0.32.0"})
            case "GET", "/api/tags" | "/api/ps":
                running = path == "/api/ps"
                shown = self.loaded if running else self.models
                return Answer({"models": [_card(m, running=running) for m in shown.values()]})
            case "POST", "/api/create":
                return self._create(body)
            case "POST", "/api/pull":
                return self._pull(_tagged(body["model"]))
            case ("DELETE", "/api/delete") | ("POST", "/api/copy"):
                return self._copy_or_delete(body)
        if path.startswith("/api/blobs/"):
            return self._blob(request)
        if not request.raw:
            return Answer({"error": "missing request body"}, 400)
        model = self.models.get(_tagged(body.get("model", "")))
        if model is None:
            return Answer({"error": f"model '{body.get('model')}' not found"}, 404)
        match path:
            case "/api/show":
                return Answer(_show(model))
            case "/api/embed":
                return _embed(model, body)
            case "/api/chat" | "/api/generate":
                return self._run(model, body, chat=path == "/api/chat")
        return Answer({"error": "404 page not found"}, 404)

    def _blob(self, request: Recorded) -> Answer:
        digest = request.path.removeprefix("/api/blobs/")
        if request.method == "HEAD":
            return Answer(None, 200 if digest in self.blobs else 404)
        self._break()
        if self.disk_is_full:
            return Answer({"error": f"write /models/blobs/{digest}: no space left on device"}, 500)
        found = "sha256:" + hashlib.sha256(request.raw).hexdigest()
        if found != digest:
            return Answer({"error": f'digest mismatch, expected "{digest}", got "{found}"'}, 400)
        known, self.blobs[digest] = digest in self.blobs, request.raw
        return Answer(None, 200 if known else 201)

    def _break(self) -> None:
        if self.breaks:
            self.breaks -= 1
            raise HungUp

    def _create(self, body: dict[str, Any]) -> Answer | Stream:
        files = body.get("files", {})
        missing = [d for d in files.values() if d not in self.blobs]
        if missing:
            return Answer({"error": f"invalid digest format or blob {missing[0]} not found"}, 400)
        source = body.get("template", "")
        try:
            tags = go_template.infer_tags(source)
        except go_template.GoError as e:
            return Answer({"error": f"template error: {e}"}, 400)
        self._break()
        blob = next(iter(files.values()), "sha256:" + "b" * 64)
        if files and not self.blobs[blob].startswith(b"GGUF"):
            return Stream(_statuses("parsing GGUF", error="invalid file magic"))
        digest = blob.removeprefix("sha256:")
        known = digest in {model.weights for model in self.models.values()}
        name = _tagged(body["model"])
        self.models[name] = StubModel(
            name=name,
            tags=tags if all(tags) else None,
            weights=digest,
            parameters=tuple(_parameters(body.get("parameters", {}))),
            source=source,
            system=body.get("system", ""),
            bare=not source,
            size=len(self.blobs.get(blob, b"")),
        )
        layer = f"{'using existing' if known else 'creating new'} layer sha256:{digest}"
        return Stream(_statuses("parsing GGUF", "verifying conversion", layer, "writing manifest", "success"))

    def _pull(self, name: str) -> Stream:
        model = self.registry.get(name)
        if model is None:
            return Stream(_statuses("pulling manifest", error=f"pull model manifest: {name}: no such host"))
        self.models[name] = model
        layer = {"status": f"pulling {model.weights[:12]}", "digest": f"sha256:{model.weights}", "total": model.size}
        parts = [layer | {"completed": model.size * n // 2} for n in (0, 1, 2)]
        return Stream(_statuses("pulling manifest", *parts, "verifying sha256 digest", "writing manifest", "success"))

    def _copy_or_delete(self, body: dict[str, Any]) -> Answer:
        name = body.get("source") or body.get("model", "")
        model = self.models.get(_tagged(name))
        if model is None:
            return Answer({"error": f"model '{name}' not found"}, 404)
        if "destination" in body:
            copy = replace(model, name=_tagged(body["destination"]))
            self.models[copy.name] = copy
            return Answer(None)
        del self.models[model.name]
        self.loaded.pop(model.name, None)
        return Answer(None)

    def _run(self, model: StubModel, body: dict[str, Any], *, chat: bool) -> Answer | Stream:
        think = body.get("think", bool(model.tags) or None)
        if think and not model.tags:
            return Answer({"error": f'"{body["model"]}" does not support thinking'}, 400)
        if model.embeds:
            return Answer({"error": f'"{body["model"]}" does not support {"chat" if chat else "generate"}'}, 400)
        empty = not body.get("messages" if chat else "prompt")
        if empty and body.get("keep_alive") == 0:
            self.loaded.pop(model.name, None)
            return Answer(last(body, chat=chat, done_reason="unload"))
        reused = any(m.weights == model.weights and m.bare != model.bare for m in self.loaded.values())
        self.loaded[model.name] = model
        if empty:
            return Answer(last(body, chat=chat, done_reason="load"))
        num_ctx = body.get("options", {}).get("num_ctx") or dict(model.parameters).get("num_ctx", 4096)
        if chat:
            if model.style == "refuses" and body["messages"][-1]["role"] == "assistant":
                return Answer({"error": "Assistant response prefill is incompatible with enable_thinking."}, 400)
            prompt = model.render(fitting(model, body["messages"], num_ctx), think=body.get("think"))
            prompt = _placeholder(body["messages"]) if reused else prompt
        else:
            prompt = body["prompt"] if body.get("raw") else model.render([{"role": "user", "content": body["prompt"]}])
        if body.get("_debug_render_only") and self.knows_debug:
            return Answer(piece(body, chat=chat) | {"_debug_info": {"rendered_template": prompt}})
        tokens = self.counts(model, prompt)
        if tokens > num_ctx:
            said = f"request ({tokens} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
            return Answer({"error": said}, 400)
        options = body.get("options", {})
        if self.script:
            reply = self.script.popleft()
        elif self.speaks is not None:
            reply = says(self.speaks(model, prompt, options))
        else:
            reply = improvised(model, prompt, options)
        if isinstance(reply, Replay):
            return Stream(recorded(reply), status=reply.status)
        run = Run(model=model, body=body, chat=chat, prompt_tok=tokens, think=bool(think), reply=reply)
        return Stream(run.pieces(), whole=body.get("stream") is False)


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _parameters(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each value on a line of its own, as /api/show has them."""
    for name, value in given.items():
        yield from ((name, v) for v in value) if isinstance(value, list) else [(name, value)]


def _placeholder(messages: list[dict[str, Any]]) -> str:
    """What a process that was started for another model makes of a chat."""
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def _card(model: StubModel, *, running: bool = False) -> dict[str, Any]:
    details = {"format": "gguf", "family": "llama", "parameter_size": "4.2M", "quantization_level": model.level}
    card = {"name": model.name, "model": model.name, "size": model.size, "digest": model.weights, "details": details}
    if running:
        return card | {"expires_at": "2026-08-07T06:13:23Z", "size_vram": 0, "context_length": model.context_length}
    return card | {"modified_at": "2026-08-07T06:08:23Z"}


def _show(model: StubModel) -> dict[str, Any]:
    lines = [f"{key:<30} {json.dumps(value)}" for key, value in model.parameters]
    source = [f"FROM /models/blobs/sha256-{model.weights}", f'TEMPLATE """{model.template}"""']
    source += [f"RENDERER {model.parser}", f"PARSER {model.parser}"] if model.parser else []
    return {
        "modelfile": "\n".join(source),
        "parameters": "\n".join(lines),
        "template": model.template,
        "details": _card(model)["details"],
        "model_info": {"general.architecture": "llama", "llama.context_length": model.context_length},
        "capabilities": model.capabilities,
        "modified_at": "2026-08-07T06:08:23Z",
    }


def _embed(model: StubModel, body: dict[str, Any]) -> Answer:
    if not model.embeds:
        return Answer({"error": "This server does not support embeddings. Start it with `--embeddings`"}, 501)
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = []
    for text in texts:
        draw = random.Random(text)
        raw = [draw.gauss(0, 1) for _ in range(8)]
        norm = sum(x * x for x in raw) ** 0.5
        vectors.append([x / norm for x in raw])
    total = sum(count(text) for text in texts)
    return Answer({"model": body["model"], "embeddings": vectors, "prompt_eval_count": total})


async def _statuses(*lines: str | dict[str, Any], error: str = "") -> AsyncIterator[dict[str, Any]]:
    for line in lines:
        yield {"status": line} if isinstance(line, str) else line
    if error:
        yield {"error": error}
