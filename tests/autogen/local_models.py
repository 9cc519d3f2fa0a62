"""What the tests of the llama.cpp client share: tiny models that say known words, and counts of what is loaded."""

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from autogen_core.tools import FunctionTool
from pydantic import BaseModel

pytest.importorskip("gguf", reason="needs the quantize extra")

from tests.fakes.tiny_gguf import TAGS, chain_of

CALL = '{"name": "add", "arguments": {"x": 1, "y": 2}}'
"""One token."""
TALKS: dict[str, Any] = {
    "chain": chain_of(
        "Ċ", "<|thinking|>", "Ġsilk", "Ġis", "<|/thinking|>", "<|reflect|>", "Ġso", "<|/reflect|>", "Ġyes"
    )
    | chain_of("Ġyes", "Ġit", "Ġholds", "<|end|>"),
    "context": 2048,
}
"""Thinks, reflects, answers."""
ENDLESS: dict[str, Any] = {
    "chain": chain_of("Ċ", *"abcdefghijklmnopqrstuvwxyz", "a"),
    "context": 8192,
}
"""Writes the alphabet until the context is full."""
CALLS: dict[str, Any] = {
    "chain": chain_of("Ċ", "Ġyes", "<tool_call>", CALL, "</tool_call>", "<|end|>"),
    "tags": (*TAGS, "<tool_call>", CALL, "</tool_call>"),
    "context": 2048,
}
"""Says yes and calls a tool."""
RANDOM: dict[str, Any] = {"context": 2048}
HERMES = (
    "{% for m in messages %}{{ '<|start|>' + m.role + '\n' + m.content }}{% for c in m.tool_calls or [] %}"
    '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}{{ '<|end|>\n' }}{% endfor %}{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
"""A template that knows tools."""


class Verdict(BaseModel):
    better: Literal["A", "B"]
    sure: bool


def pick(kind: Literal["silk", "nacre"], sure: bool) -> str:
    return kind


def drop(kind: Literal["silk", "nacre"]) -> str:
    return kind


PICK = FunctionTool(pick, description="Pick one.")
DROP = FunctionTool(drop, description="Drop one.")


@dataclass
class Counts:
    """What was loaded, made, freed and run so far."""

    loads: int = 0
    vocabularies: int = 0
    contexts: int = 0
    decoded: int = 0
    running: int = 0
    most_running: int = 0
    jobs: list[str] = field(default_factory=list)
    loaded_in: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
