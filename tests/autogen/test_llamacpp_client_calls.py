"""Tool calls in the forms that models write them in, found in whole replies and in streams."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.backends.calls import CallGuard, find_calls

ONE = {"x": 1, "note": "a <b> {c}"}
JSON = json.dumps({"name": "add", "arguments": ONE})
LLAMA = json.dumps({"name": "add", "parameters": ONE})
TWO = [("add", ONE), ("add", {"x": 2})]
SECOND = '{"name": "add", "arguments": {"x": 2}}'

FORMS = {
    "hermes": (f"<tool_call>\n{JSON}\n</tool_call>", TWO[:1]),
    "hermes, not closed": (f"<tool_call>{JSON}", TWO[:1]),
    "hermes, a brace too many": (f"<tool_call>{JSON}}}</tool_call>", TWO[:1]),
    "hermes, two": (f"<tool_call>{JSON}</tool_call>\n<tool_call>{SECOND}</tool_call>", TWO),
    "plural": (f"<tool_calls>[{JSON}, {SECOND}]</tool_calls>", TWO),
    "nemotron": (f"<TOOLCALL>[{JSON}]</TOOLCALL>", TWO[:1]),
    "llama 3.1, function": (f"<function=add>{json.dumps(ONE)}</function>", TWO[:1]),
    "qwen coder": (
        "<tool_call>\n<function=add>\n<parameter=x>\n1\n</parameter>\n<parameter=note>\na <b> {c}\n</parameter>\n"
        "</function>\n</tool_call>",
        TWO[:1],
    ),
    "glm": (
        "<tool_call>add\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n<arg_key>note</arg_key>\n"
        "<arg_value>a <b> {c}</arg_value>\n</tool_call>",
        TWO[:1],
    ),
    "glm, no arguments": ("<tool_call>add</tool_call>", [("add", {})]),
    "mistral": (f"[TOOL_CALLS][{JSON}, {SECOND}]", TWO),
    "mistral, new": (f'[TOOL_CALLS]add[ARGS]{json.dumps(ONE)}[TOOL_CALLS]add[CALL_ID]a1[ARGS]{{"x": 2}}', TWO),
    "mistral, marks lost": (f"add{json.dumps(ONE)}", TWO[:1]),
    "granite": (f"<|tool_call|>[{JSON}]", TWO[:1]),
    "phi": (f"<|tool_call|>[{JSON}]<|/tool_call|>", TWO[:1]),
    "llama 3, python tag": (f"<|python_tag|>{LLAMA}; {SECOND}", TWO),
    "llama 3, bare": (f"\n{LLAMA}", TWO[:1]),
    "llama 3, two": (f"{LLAMA}; {SECOND}", TWO),
    "bare list": (f"[{JSON}, {SECOND}]", TWO),
    "openai": (json.dumps({"tool_calls": [{"type": "function", "function": json.loads(JSON)}]}), TWO[:1]),
    "arguments as text": (json.dumps({"name": "add", "arguments": json.dumps(ONE)}), TWO[:1]),
    "fenced": (f"```json\n{JSON}\n```", TWO[:1]),
}
TEXTS = {
    "prose": "It is 3, see <b>add</b>.",
    "code": "```python\nadd(1)\n```",
    "citation": "[1] says so.",
    "json": '{"better": "A"}',
    "json of another tool": '{"name": "multiply", "arguments": {}}',
    "list": "[1, 2]",
    "broken": '<tool_call>{"name": "add", "argu',
    "mark in prose": "write <tool_call> and </tool_call>",
    "call in prose": f"Call it so: {JSON}",
    "empty": "",
    "deep": "[" * 3000,
}


def made(text: str) -> tuple[str, list[tuple[str, object]]]:
    found = find_calls(text, ["add"])
    return found.text, [(c.name, json.loads(c.arguments)) for c in found.calls]


@pytest.mark.parametrize("form", FORMS)
def test_a_call_is_found_in_each_form(form) -> None:
    text, calls = FORMS[form]
    assert made(text) == ("", calls)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_that_is_no_call_is_kept(text) -> None:
    assert made(text) == (text, [])


def test_text_before_a_marked_call_is_kept() -> None:
    assert made(f"I add.\n<tool_call>{JSON}</tool_call>") == ("I add.", TWO[:1])
    assert made(f"I add.\n[TOOL_CALLS][{JSON}]") == ("I add.\n", TWO[:1])


def test_a_marked_call_may_name_a_tool_that_does_not_exist() -> None:
    text, calls = made('<tool_call>{"name": "no such tool!", "arguments": {}}</tool_call>')
    assert (text, calls) == ("", [("no_such_tool_", {})])


def test_ids_are_nine_letters_and_digits_and_differ() -> None:
    ids = {find_calls(JSON, ["add"]).calls[0].id for _ in range(200)}
    assert len(ids) == 200
    assert all(len(i) == 9 and i.isalnum() and i.isascii() for i in ids)


MARKS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "<function=add>",
    "[ARGS]",
    "```json\n",
    "```",
]
pieces = st.sampled_from([*MARKS, JSON, "{", "[", "add", " \n", "so <", "it [is", "é"])


@given(st.lists(pieces, max_size=8).map("".join), st.lists(st.integers(1, 9), min_size=1))
def test_a_stream_shows_a_beginning_of_the_text_that_is_left_however_it_is_cut(text, sizes) -> None:
    guard, shown, at = CallGuard(), "", 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        shown += guard.feed(text[at : at + size])
        at += size
    left = find_calls(text, ["add"]).text
    assert left.startswith(shown.rstrip())


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_shows_nothing_of_a_call(form) -> None:
    text, _ = FORMS[form]
    if form == "mistral, marks lost":
        pytest.skip("without its marks this one cannot be told from text before its end")
    guard = CallGuard()
    assert "".join(guard.feed(letter) for letter in text).strip() == ""


@pytest.mark.parametrize("name", ["prose", "code", "citation", "list"])
def test_a_stream_does_not_wait_where_no_call_can_be(name) -> None:
    guard = CallGuard()
    text = TEXTS[name]
    shown = "".join(guard.feed(letter) for letter in text)
    assert text.startswith(shown)
    assert len(shown) >= len(text) - 1
