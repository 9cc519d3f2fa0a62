"""What the stub of an Ollama server answers: scripted text of a model, and the server's own handling of it."""

import asyncio
import json
import random
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes import go_template
from tests.fakes.http_stub import HungUp

Style = Literal["open", "closed", "quiet", "refuses"]
OUR_TAGS = ("<|thinking|>", "<|/thinking|>")
THINK_TAGS = ("<think>", "</think>")
WORDS = ("silk", "protein", "fibre", "sheet", "crystal", "strong", "tough", "bond", "layer", "nacre", "water", "spider")
_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?\w+>|\w+|[^\w\s]")
_PIECE = re.compile(r"<\|[^|<>]*\|>|</?\w+>|\s*[^\s<]+|\s+|<")


class Gate:
    """A place in a reply where the server waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._lock = threading.Lock()
        self._open = False
        self._wake: list[Callable[[], object]] = []

    def release(self) -> None:
        with self._lock:
            self._open = True
            for wake in self._wake:
                wake()

    async def passed(self) -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._open:
                event.set()
            self._wake.append(lambda: loop.call_soon_threadsafe(event.set))
        self.reached.set()
        await event.wait()


@dataclass(frozen=True, slots=True)
class Fault:
    """`drop` cuts the connection in the middle of a line, `error` reports one, `end` ends without a last piece."""

    kind: Literal["drop", "error", "end"]
    message: str = "an error was encountered while running the model: unexpected EOF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model writes, tags included; strings are cut into tokens unless `whole`."""

    steps: tuple[str | Gate | Fault, ...]
    whole: bool = False
    counted: bool = True
    """Whether the last piece says how many prompt tokens there were (older servers do not when cached)."""


def says(*steps: str | Gate | Fault) -> Reply:
    return Reply(steps=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A recorded response body, sent as it was."""

    body: str
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StubModel:
    """An installed model. `style` says what its template does with a last assistant message."""

    name: str = "tiny:latest"
    tags: tuple[str, str] | None = OUR_TAGS
    """Thinking tags that the template names; with them the model is `thinking`."""
    style: Style = "open"
    context_length: int = 4096
    parameters: tuple[tuple[str, Any], ...] = (("stop", "<|eot_id|>"),)
    embeds: bool = False
    parser: str = ""
    """Name of a built-in parser; such a server never applies `format` while thinking is off."""
    weights: str = "a" * 64
    source: str = ""
    """The TEMPLATE it was made with; `style` is for those that bring none."""
    system: str = ""
    bare: bool = False
    """Made without TEMPLATE; such a model and its twin with one do not stand each other (see the runner's reuse)."""
    size: int = 8_000_000
    level: str = "F16"

    @property
    def capabilities(self) -> list[str]:
        if self.embeds:
            return ["embedding"]
        return ["completion", "thinking"] if self.tags else ["completion"]

    @property
    def template(self) -> str:
        if self.source:
            return self.source
        opening, closing = self.tags or ("", "")
        thinking = f"{{{{ if .Thinking }}}}{opening}{{{{ .Thinking }}}}{closing}{{{{ end }}}}" if self.tags else ""
        closes = self.style in ("closed", "refuses")
        end = "<|eot_id|>" if closes else "{{ if not $last }}<|eot_id|>{{ end }}"
        again = "{{- if $last }}" if closes else '{{- if and $last (ne .Role "assistant") }}'
        return (
            "{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}"
            '<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ if eq .Role "assistant" }}'
            f"{thinking}{{{{ .Content }}}}{end}{{{{ else }}}}{{{{ .Content }}}}<|eot_id|>{{{{ end }}}}"
            f"{again}<|start_header_id|>assistant<|end_header_id|>\n\n{{{{ end }}}}{{{{- end }}}}"
        )

    def render(self, messages: list[dict[str, Any]], *, think: bool | None = None) -> str:
        if self.source:
            system = [{"role": "system", "content": self.system}] if self.system else []
            led = messages if messages[0]["role"] == "system" else [*system, *messages]
            return go_template.render(self.source, led, think=think)
        out, last = [], len(messages) - 1
        for n, message in enumerate(messages):
            out.append(f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n")
            if message["role"] == "assistant" and self.tags and self.style != "quiet" and message.get("thinking"):
                out.append(f"{self.tags[0]}{message['thinking']}{self.tags[1]}")
            out.append(message.get("content", ""))
            if message["role"] == "assistant" and n == last and self.style in ("open", "quiet"):
                return "".join(out)
            out.append("<|eot_id|>")
        return "".join(out) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


@dataclass(slots=True, kw_only=True)
class Run:
    """One answer: the model's text under stop, length and format, then the server's own thinking parser."""

    model: StubModel
    body: dict[str, Any]
    chat: bool
    prompt_tok: int
    think: bool
    reply: Reply

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        options = self.body.get("options", {})
        stops = options.get("stop") or [v for k, v in self.model.parameters if k == "stop"]
        budget = options.get("num_predict", -1)
        split = _Thinking(self.model.tags if self.think and self.model.tags else None)
        constrained = self._constrained_at_once()
        written, spent, reason, formatted = "", 0, "stop", False
        for step in (self._json(),) if constrained else self.reply.steps:
            if isinstance(step, Gate):
                await step.passed()
                continue
            if isinstance(step, Fault):
                if step.kind == "end":
                    return
                if step.kind == "error":
                    yield {"error": step.message}
                    return
                raise HungUp
            for token in [step] if self.reply.whole else _PIECE.findall(step):
                if spent == budget:
                    reason = "length"
                    break
                spent += 1
                written += token
                cut = min((written.find(s) for s in stops if s in written), default=-1)
                if cut >= 0:
                    token = token[: max(0, cut - len(written) + len(token))]
                thinking, content = split.feed(token)
                if content and self.body.get("format") and split.thought:
                    content, formatted = self._json(), True
                if thinking or content:
                    yield piece(self.body, chat=self.chat, thinking=thinking, content=content)
                if cut >= 0 or formatted:
                    break
            else:
                continue
            break
        rest = "" if formatted else split.rest()
        counts = {"prompt_eval_count": self.prompt_tok} if self.reply.counted else {}
        final = last(self.body, chat=self.chat, done_reason=reason, content=rest)
        yield final | counts | {"eval_count": spent, "eval_duration": 1_000_000 * spent}

    def _constrained_at_once(self) -> bool:
        if not self.body.get("format"):
            return False
        return not self.chat or not (self.model.tags and (self.think or self.model.parser))

    def _json(self) -> str:
        text = "".join(s for s in self.reply.steps if isinstance(s, str)).rpartition("|>")[2]
        try:
            json.loads(text)
        except ValueError:
            return json.dumps(_instance(self.body["format"]))
        return text


class _Thinking:
    """The server's parser: one pair of tags, only at the very start of the reply, white space trimmed."""

    def __init__(self, tags: tuple[str, str] | None) -> None:
        self._tags = tags
        self._state = "start" if tags else "content"
        self._held = ""
        self.thought = False

    def feed(self, text: str) -> tuple[str, str]:
        self._held += text
        if self._state == "start" and self._tags:
            seen = self._held.lstrip()
            if seen.startswith(self._tags[0]):
                self._state, self._held = "thinking", seen[len(self._tags[0]) :].lstrip()
            elif self._tags[0].startswith(seen):
                return "", ""
            else:
                self._state = "content"
        if self._state == "thinking" and self._tags:
            inside, closing, after = self._held.partition(self._tags[1])
            if closing:
                self._state, self._held, self.thought = "content", after.lstrip(), True
                return inside.rstrip(), self._take()
            keep = next((n for n in range(len(self._tags[1]), 0, -1) if inside.endswith(self._tags[1][:n])), 0)
            ready = inside[: len(inside) - keep].rstrip()
            self._held = inside[len(ready) :]
            self.thought = self.thought or bool(ready)
            return ready, ""
        return "", self._take()

    def _take(self) -> str:
        text, self._held = self._held, ""
        return text

    def rest(self) -> str:
        return "" if self._state == "thinking" else self._take()


def count(text: str) -> int:
    """Tokens as this server counts them, with one for the beginning."""
    return len(_TOKEN.findall(text)) + 1


def fitting(model: StubModel, messages: list[dict[str, Any]], num_ctx: int) -> list[dict[str, Any]]:
    """Oldest messages go first; system messages and the last message always stay."""
    for start in range(len(messages)):
        kept = [m for m in messages[:start] if m["role"] == "system"] + messages[start:]
        if count(model.render(kept)) <= num_ctx or start == len(messages) - 1:
            return kept
    return messages


def improvised(model: StubModel, prompt: str, options: dict[str, Any]) -> Reply:
    seed = options.get("seed", -1) if options.get("temperature", 0.8) else 0
    draw = random.Random(f"{prompt}|{seed}")
    words = [" ".join(draw.choices(WORDS, k=6)) for _ in range(2)]
    if model.tags and model.tags[1] not in prompt.rpartition("assistant")[2]:
        return says(f"{model.tags[0]}{words[0]}{model.tags[1]}{words[1]}.")
    return says(f"{words[1]}.")


def _instance(schema: Any) -> Any:
    """A smallest value that the schema allows."""
    if not isinstance(schema, dict) or not schema:
        return {}
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _instance(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return []
        case "number" | "integer":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return "silk"


def piece(body: dict[str, Any], *, chat: bool, thinking: str = "", content: str = "") -> dict[str, Any]:
    head = {"model": body["model"], "created_at": "2026-08-07T06:08:23.577476Z"}
    extra = {"thinking": thinking} if thinking else {}
    if chat:
        return head | {"message": {"role": "assistant", "content": content} | extra, "done": False}
    return head | {"response": content, "done": False} | extra


def last(body: dict[str, Any], *, chat: bool, done_reason: str, content: str = "") -> dict[str, Any]:
    times = {"total_duration": 8_633_813, "load_duration": 143_253, "prompt_eval_duration": 25_843}
    done = {"done": True, "done_reason": done_reason}
    return piece(body, chat=chat, content=content) | done | (times if done_reason in ("stop", "length") else {})


async def recorded(reply: Replay) -> AsyncIterator[bytes]:
    for chunk in _slices(reply.body.encode()):
        yield chunk


def _slices(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """Network-sized slices that respect no line."""
    return (data[at : at + size] for at in range(0, len(data), size))
