"""The texts that chat templates write around turns, and Ollama's template made of them, rendered by Go itself."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.backends.model_text import COMMON_MARKS
from preflexor_agents.backends.template import ChatTemplate
from preflexor_agents.errors import ModelError
from preflexor_agents.prompts import Message
from preflexor_quantize.modelfile import go_template
from preflexor_quantize.turns import Turn, TurnFormat, turn_format
from tests.fakes import go_template as small_go

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "chat-templates"
REAL = {p.relative_to(FOLDER).as_posix(): p for p in sorted(FOLDER.rglob("*.jinja"))}
REFUSED = {
    "chujiezheng/chat_templates/gemma-it.jinja",
    "chujiezheng/chat_templates/llama-2-chat.jinja",
    "llama.cpp/Apertus-8B-Instruct.jinja",
    "llama.cpp/Apriel-1.6-15b-Thinker-fixed.jinja",
    "llama.cpp/CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "llama.cpp/CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
    "llama.cpp/fireworks-ai-llama-3-firefunction-v2.jinja",
    "llama.cpp/openai-gpt-oss-120b.jinja",
    "trl/gptoss.jinja",
    "trl/gptoss_training.jinja",
}
ROLES = {"s": "system", "u": "user", "a": "assistant"}
CHATS = ("u", "su", "uau", "suau", "suauau")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set lead = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set lead = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (lead if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@cache
def described(source: str) -> tuple[ChatTemplate, TurnFormat]:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return template, turn_format(template, bos="<s>", eos="</s>")


def rendered(template: ChatTemplate, roles: str) -> str:
    spans = template.render([Message(ROLES[r], f"text {n}") for n, r in enumerate(roles)])  # type: ignore[arg-type]
    return "".join(span.text for span in spans)


def wire(roles: str) -> list[dict[str, str]]:
    return [{"role": ROLES[r], "content": f"text {n}"} for n, r in enumerate(roles)]


@pytest.fixture(scope="session")
def real_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The renderer, compiled."""
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("no go here (Debian: apt-get install golang-go)")
    folder = tmp_path_factory.mktemp("go")
    program = folder / "render"
    home = {"GO111MODULE": "off", "GOCACHE": str(folder / "cache"), "GOPATH": str(folder), "GOFLAGS": ""}
    source = Path(__file__).parent / "go" / "render.go"
    command = [compiler, "build", "-o", str(program), str(source)]
    subprocess.run(command, check=True, env={"PATH": str(Path(compiler).parent) + ":/usr/bin:/bin", **home})
    return program


def by_go(program: Path, cases: list[dict[str, Any]]) -> list[dict[str, str]]:
    done = subprocess.run([program], input=json.dumps(cases), capture_output=True, text=True, check=True)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def go_case(template: str, messages: list[dict[str, str]], *, think: bool | None = True) -> dict[str, Any]:
    fields = ({"Role": m["role"], "Content": m["content"], "Thinking": m.get("thinking", "")} for m in messages)
    return {"Template": template, "Messages": list(fields), "Think": bool(think), "IsThinkSet": think is not None}


def test_the_turns_of_chatml_are_told_apart() -> None:
    found = described(CHATML)[1]
    assert found.user == Turn("<|im_start|>user\n", "<|im_end|>\n")
    assert found.system == Turn("<|im_start|>system\n", "<|im_end|>\n")
    assert (found.bos, found.without_system, found.folds_system) == ("", "", "no")
    assert found.reply == found.quiet_reply == "<|im_start|>assistant\n"


def test_a_system_text_inside_the_first_user_turn_is_seen() -> None:
    found = described(LLAMA_2)[1]
    assert (found.folds_system, found.system) == ("next", Turn("<<SYS>>\n", "\n<</SYS>>\n\n"))
    assert (found.bos, found.user, found.assistant) == (
        "<s>",
        Turn("[INST] ", " [/INST]"),
        Turn(" ", " </s><s>"),
    )


@pytest.mark.parametrize("name", sorted(REAL.keys() - REFUSED))
def test_real_templates_follow_from_their_turns(name: str) -> None:
    template, found = described(REAL[name].read_text(encoding="utf-8"))
    for roles in CHATS:
        contents = [f"text {n}" for n in range(len(roles))]
        assert found.render(roles, contents) == rendered(template, roles)


@pytest.mark.parametrize("name", sorted(REAL.keys() & REFUSED))
def test_irregular_templates_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ModelError, match=r"no Modelfile can be derived .*--template FILE"):
        described(REAL[name].read_text(encoding="utf-8"))


def test_a_template_that_numbers_its_turns_is_refused() -> None:
    source = "{% for m in messages %}<{{ loop.index }}>{{ m.content }}</>{% endfor %}"
    with pytest.raises(ModelError, match="no Modelfile can be derived"):
        described(source)


def test_go_renders_the_derived_templates_as_jinja_renders_the_originals(real_go: Path) -> None:
    sources = {"ChatML": CHATML, "Llama 2": LLAMA_2}
    sources |= {name: REAL[name].read_text(encoding="utf-8") for name in REAL.keys() - REFUSED}
    cases, wanted, names = [], [], []
    for name in sorted(sources):
        template, found = described(sources[name])
        ollama = go_template(found, COMMON_MARKS, adds_bos=False)
        for roles in CHATS:
            cases.append(go_case(ollama, wire(roles)))
            wanted.append(rendered(template, roles))
            names.append(f"{name} {roles}")
    results = by_go(real_go, cases)
    assert [n for n, r, want in zip(names, results, wanted, strict=True) if r["Prompt"] != want] == []
    assert {(r["Open"], r["Close"], r["Error"]) for r in results} == {("<think>", "</think>", "")}
    small = [small_go.render(c["Template"], wire(n.split()[-1]), think=True) for c, n in zip(cases, names, strict=True)]
    assert small == wanted


def test_go_and_the_small_evaluator_agree_on_what_the_server_sends(real_go: Path) -> None:
    template = go_template(described(CHATML)[1]._replace(quiet_reply="QUIET"), COMMON_MARKS, adds_bos=False)
    asked = wire("su")
    chats = [
        [*asked, {"role": "assistant", "content": "", "thinking": "T"}],
        [*asked, {"role": "assistant", "content": "half"}],
        [*asked, {"role": "assistant", "content": "A", "thinking": "T"}, {"role": "user", "content": "{{ .Role }}"}],
        [{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}],
    ]
    for think in (True, False, None):
        results = by_go(real_go, [go_case(template, chat, think=think) for chat in chats])
        assert [r["Prompt"] for r in results] == [small_go.render(template, chat, think=think) for chat in chats]
        assert results[0]["Prompt"].endswith("<|im_start|>assistant\n<think>\nT\n</think>\n\n")
        assert results[1]["Prompt"].endswith("<|im_start|>assistant\nhalf")
        assert results[2]["Prompt"].endswith("QUIET" if think is False else "<|im_start|>assistant\n")
    assert small_go.infer_tags(template) == ("<think>", "</think>")


def test_thinking_of_earlier_replies_goes_where_the_original_drops_it() -> None:
    dropping = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "T"}]
    chat.append({"role": "user", "content": "c"})
    for source, shown in ((CHATML, True), (dropping, False)):
        template = go_template(described(source)[1], COMMON_MARKS, adds_bos=False)
        assert ("T" in small_go.render(template, chat).partition("assistant")[2]) is shown
        assert small_go.render(template, chat[:2]).endswith("<think>\nT\n</think>\n\nb")


def test_a_template_with_text_that_go_would_run_is_refused() -> None:
    found = described(CHATML)[1]._replace(user=Turn("{{ .Evil }}", ""))
    with pytest.raises(ModelError, match="--template FILE"):
        go_template(found, None, adds_bos=False)
