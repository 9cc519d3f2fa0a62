"""GGUF files through the stub of an Ollama server, which runs llama.cpp on what was uploaded."""

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

import gguf
import llama_cpp
from click.testing import CliRunner, Result

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.cli.main import cli
from preflexor_agents.config import GREEDY
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_quantize import upload
from preflexor_quantize.deploy import deploy
from preflexor_quantize.modelfile import modelfile, opened
from preflexor_quantize.proof import QUESTION
from preflexor_quantize.upload import digest, send
from tests.fakes.ollama_engine import Engine
from tests.fakes.ollama_stub import OllamaStub, StubModel, says
from tests.fakes.tiny_gguf import END, TAGS, chain_of, write_gguf

SAYS = chain_of("Ċ", TAGS[0], "Ġsilk", TAGS[1], "Ġyes", END)
"""After a line break: thinking, then an answer."""
Run = Callable[..., Result]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    monkeypatch.setattr(upload, "WAITS_S", (0.0, 0.0))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    engines = tmp_path / "engines"
    engines.mkdir()
    with OllamaStub() as server, Engine(server, engines):
        server.models.clear()
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "thinker.gguf", chain=SAYS)


@pytest.fixture
def run() -> Run:
    def invoke(*words: object) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    return invoke


def one_line(done: Result, *, code: int) -> str:
    """The error of a call that failed as it should."""
    assert (done.exit_code, type(done.exception)) == (code, SystemExit), done.output
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("preflexor: ")
    return last


def test_nano_goes_into_ollama_and_thinks_there(run: Run, stub: OllamaStub) -> None:
    done = run("deploy", nano_path(), "--ollama", "nano")
    assert done.exit_code == 0, done.output
    assert re.findall(r"^(ok|WRONG|not known) +([\w ]+):", done.stdout, re.M) == [
        ("ok", "capabilities"),
        ("ok", "prompt"),
        ("ok", "prompt with finished thinking"),
        ("ok", "prompt tokens"),
        ("ok", "thinking and answer"),
    ]
    assert "tensile strength of spider silk is" in done.stdout
    made = stub.models["nano:latest"]
    assert made.tags == ("<|thinking|>", "<|/thinking|>")
    assert dict(made.parameters) | {"stop": "<|end|>", "num_ctx": 2048} == dict(made.parameters)


async def test_the_model_in_ollama_answers_as_the_file_does_in_process(stub: OllamaStub) -> None:
    with opened(nano_path()) as model:
        made = await deploy(model, modelfile(model), "twin", replace=False, watch=lambda _: None)
    assert made.works
    question = Request(messages=QUESTION, sampling=GREEDY)
    replies = []
    for spec in ("nano", "ollama:twin"):
        backend = await open_backend(spec)
        try:
            *_, last = [item async for item in backend.generate(question)]
        finally:
            await backend.aclose()
        assert isinstance(last, Completion)
        replies.append((last.thinking, last.answer, last.usage.prompt))
    assert replies[0] == replies[1]
    assert all(replies[0])


def test_tags_survive_in_llama_cpp_python_too(thinker: Path) -> None:
    with closing(llama_cpp.Llama(str(thinker), n_ctx=256, n_threads=1, verbose=False)) as engine:
        asked = [{"role": "user", "content": "silk"}]
        reply = engine.create_chat_completion(messages=asked, temperature=0.0, max_tokens=16)  # type: ignore[arg-type]
    assert reply["choices"][0]["message"]["content"] == "<|thinking|> silk<|/thinking|> yes"


def test_tags_typed_as_control_are_refused_with_cause_and_cure(run: Run, stub: OllamaStub, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "stock.gguf", chain=SAYS, tag_type=gguf.TokenType.CONTROL)
    error = one_line(run("deploy", file, "--ollama", "x", "--dir", tmp_path / "out"), code=2)
    assert "is typed as a control token" in error and "preflexor quantize" in error
    assert (stub.models, stub.blobs, (tmp_path / "out").exists()) == ({}, {}, False)


def test_a_server_that_hides_the_tags_is_noticed(run: Run, stub: OllamaStub, thinker: Path) -> None:
    real = stub.speaks
    assert real is not None
    stub.speaks = lambda *call: re.sub(r"<\|/?thinking\|>", "", real(*call))
    done = run("deploy", thinker, "--ollama", "glued")
    error = one_line(done, code=1)
    assert "no thinking came apart from the reply: 'silk yes'" in done.stdout
    assert "(thinking and answer); remove it with: preflexor models rm ollama:glued" in error


@pytest.mark.parametrize("reply", ["", "<|thinking|>a<|/thinking|>", "<|thinking|>a<|/thinking|>b<|/thinking|>"])
def test_a_reply_that_is_not_thinking_and_answer_is_noticed(
    run: Run, stub: OllamaStub, thinker: Path, reply: str
) -> None:
    stub.script.append(says(reply))
    one_line(run("deploy", thinker, "--ollama", "odd"), code=1)


def test_a_template_that_makes_another_prompt_is_noticed(
    run: Run, stub: OllamaStub, thinker: Path, tmp_path: Path
) -> None:
    given = tmp_path / "own.tmpl"
    given.write_text("{{ range .Messages }}{{ .Content }}{{ end }}\n", encoding="utf-8")
    done = run("deploy", thinker, "--ollama", "own", "--template", given)
    assert "(capabilities, prompt, prompt with finished thinking, reply)" in one_line(done, code=1)
    assert "parts from the model's own template at token 0" in done.stdout


def test_a_server_that_does_not_show_prompts_is_asked_all_the_same(run: Run, stub: OllamaStub, thinker: Path) -> None:
    stub.knows_debug = False
    done = run("deploy", thinker, "--ollama", "old")
    assert done.exit_code == 0, done.output
    assert re.findall(r"^not known (.*): the server does not show it$", done.stdout, re.M) == [
        "prompt",
        "prompt with finished thinking",
    ]


def test_a_model_without_tags_is_deployed_without_thinking(run: Run, stub: OllamaStub, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "plain.gguf", chain=chain_of("Ċ", "Ġsilk", "Ġyes", END), tags=())
    done = run("deploy", file, "--ollama", "plain")
    assert done.exit_code == 0, done.output
    assert "no reasoning tags" in done.stderr
    assert ".Thinking" not in stub.models["plain:latest"].template


def test_a_name_that_is_taken_stays_as_it_was_unless_it_may_be_replaced(
    run: Run, stub: OllamaStub, thinker: Path
) -> None:
    before = stub.models["mine:latest"] = StubModel(name="mine:latest")
    error = one_line(run("deploy", thinker, "--ollama", "Mine"), code=2)
    assert "has a model 'Mine' already" in error and "--replace" in error
    assert (stub.models["mine:latest"], stub.blobs) == (before, {})
    assert run("deploy", thinker, "--ollama", "mine", "--replace").exit_code == 0
    assert stub.models["mine:latest"] != before
    assert list(stub.models) == ["mine:latest"]


@pytest.mark.parametrize("name", ["mine", "mine:7b"])
def test_a_model_is_replaced_only_by_one_that_is_proven(run: Run, stub: OllamaStub, thinker: Path, name: str) -> None:
    whole = name if ":" in name else f"{name}:latest"
    before = stub.models[whole] = StubModel(name=whole)
    stub.script.append(says("no thinking"))
    error = one_line(run("deploy", thinker, "--ollama", name, "--replace"), code=1)
    assert error.startswith(f"preflexor: {name} stays as it was; mine:")
    assert stub.models[whole] == before
    assert run("models", "rm", error.split()[-1], "--yes").exit_code == 0
    assert list(stub.models) == [whole]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a:b:c", "x\x1b[31m", "ü"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(
    run: Run, stub: OllamaStub, thinker: Path, name: str
) -> None:
    assert "is no name for an Ollama model" in one_line(run("deploy", thinker, "--ollama", name), code=2)
    assert stub.requests == []


def test_a_file_that_is_there_is_not_sent_again(run: Run, stub: OllamaStub, thinker: Path) -> None:
    assert run("deploy", thinker, "--ollama", "one").exit_code == 0
    done = run("deploy", thinker, "--ollama", "two")
    assert done.exit_code == 0 and "Ollama has the file already" in done.stderr
    assert [r.method for r in stub.requests if r.path.startswith("/api/blobs/")] == ["HEAD", "POST", "HEAD"]


def test_a_broken_upload_is_begun_again(run: Run, stub: OllamaStub, thinker: Path) -> None:
    stub.breaks = 2
    done = run("deploy", thinker, "--ollama", "again")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("the connection broke after") == 2


def test_a_server_that_goes_away_during_the_upload_is_one_line(run: Run, stub: OllamaStub, thinker: Path) -> None:
    stub.breaks = 99
    error = one_line(run("deploy", thinker, "--ollama", "gone"), code=1)
    assert re.search(r"broke after (\d+\.\d MB) of \1, 3 times; nothing was made of thinker.gguf", error)
    stub.breaks = 0
    stub.stop()
    assert "start it with: ollama serve" in one_line(run("deploy", thinker, "--ollama", "gone"), code=1)
    assert stub.models == {}


def test_a_server_that_goes_away_while_it_makes_the_model_is_one_line(
    run: Run, stub: OllamaStub, thinker: Path
) -> None:
    assert run("deploy", thinker, "--ollama", "first").exit_code == 0
    stub.breaks = 1
    assert "broke while it made second" in one_line(run("deploy", thinker, "--ollama", "second"), code=1)
    assert list(stub.models) == ["first:latest"]


def test_a_full_disk_of_the_server_is_one_line(run: Run, stub: OllamaStub, thinker: Path) -> None:
    stub.disk_is_full = True
    assert "the disk of the Ollama server is full" in one_line(run("deploy", thinker, "--ollama", "big"), code=1)


def test_a_disk_without_room_for_the_models_is_seen_before_the_upload(
    run: Run, stub: OllamaStub, thinker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    usage = type(shutil.disk_usage(tmp_path))(2_000_000, 1_000_000, 1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "1.0 MB free" in one_line(run("deploy", thinker, "--ollama", "big"), code=1)
    assert (stub.blobs, stub.models) == ({}, {})


async def test_a_file_that_changes_while_it_is_sent_is_refused(stub: OllamaStub, tmp_path: Path) -> None:
    from preflexor_agents.backends.ollama_server import connect_plain

    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    before = await digest(file, lambda _: None)
    file.write_bytes(b"GGUF" + bytes(99) + b"x")
    async with connect_plain(f"http://{stub.host}") as http:
        with pytest.raises(PreflexorError, match="changed while it was sent"):
            await send(http, file, before, lambda _: None)
    assert stub.blobs == {}


async def test_an_upload_reads_the_file_piece_by_piece_and_says_how_far_it_is(stub: OllamaStub, tmp_path: Path) -> None:
    from preflexor_agents.backends.ollama_server import connect_plain

    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(3 * upload.PIECE_BYTES))
    steps: list[tuple[int, int]] = []
    async with connect_plain(f"http://{stub.host}") as http:
        sha256 = await digest(file, lambda _: None)
        await send(http, file, sha256, lambda now: steps.append((now.done_bytes, now.total_bytes)))
    size = file.stat().st_size
    assert stub.blobs[f"sha256:{sha256}"] == file.read_bytes()
    assert steps[0] == (0, size) and steps[-1] == (size, size)
    assert max(b[0] - a[0] for a, b in pairwise(steps)) == upload.PIECE_BYTES


def test_a_loaded_twin_with_another_template_is_unloaded_first(run: Run, stub: OllamaStub, thinker: Path) -> None:
    weights = asyncio.run(digest(thinker, lambda _: None))
    twin = StubModel(name="twin:latest", tags=None, bare=True, weights=weights)
    stub.models["twin:latest"] = stub.loaded["twin:latest"] = twin
    done = run("deploy", thinker, "--ollama", "new")
    assert done.exit_code == 0, done.output
    assert "unloading twin:latest, which has the same weights" in done.stderr
    assert list(stub.loaded) == ["new:latest"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda p: p, "cannot be read: No such file"),
        (lambda p: p.write_bytes(b""), "is not a GGUF file"),
        (lambda p: p.mkdir(), "cannot be read"),
        (lambda p: p.write_bytes(nano_path().read_bytes()[:5_000_000]), "data is not within the file bounds"),
        (lambda p: write_gguf(p, chat_template=None), "has no chat template"),
        (lambda p: write_gguf(p, extra={"split.count": 3}), "one of 3 files; join them first"),
        (lambda p: write_gguf(p, chat_template="{% if %}"), "chat template is broken"),
        (lambda p: write_gguf(p, chat_template="{{ messages[0].content }}"), "--template FILE"),
    ],
)
def test_a_file_that_cannot_be_served_is_one_line(
    run: Run, stub: OllamaStub, tmp_path: Path, made: Callable[[Path], object], said: str
) -> None:
    file = tmp_path / "bad.gguf"
    made(file)
    error = one_line(run("deploy", file, "--ollama", "x", "--dir", tmp_path / "out"), code=2)
    assert said in error and str(file) in error
    assert (stub.requests, (tmp_path / "out").exists()) == ([], False)


def test_the_options_are_checked(run: Run, thinker: Path, tmp_path: Path) -> None:
    assert "nothing to do" in one_line(run("deploy", thinker), code=2)
    too_long = run("deploy", thinker, "--dir", tmp_path / "o", "--context", 513)
    assert "--context is 513; the model takes from 1 to 512 tokens" in one_line(too_long, code=2)
    quoted = run("deploy", thinker, "--dir", tmp_path / "o", "--system", 'a"""b')
    assert "ends a text in a Modelfile" in one_line(quoted, code=2)
    missing = run("deploy", thinker, "--dir", tmp_path / "o", "--template", tmp_path / "no")
    assert "cannot be read" in one_line(missing, code=2)


def test_texts_with_quotes_and_breaks_are_written_as_a_modelfile_takes_them(thinker: Path) -> None:
    with opened(thinker) as model:
        file = replace(modelfile(model), stops=("<|end|>", 'a"b', "c\nd"))
    lines = file.text("x").partition("PARAMETER stop ")[2]
    assert lines.startswith('"<|end|>"\nPARAMETER stop """a"b"""\nPARAMETER stop """c\nd"""\n')


def test_a_context_that_cannot_hold_a_question_is_refused(run: Run, stub: OllamaStub, thinker: Path) -> None:
    done = run("deploy", thinker, "--ollama", "small", "--context", 40)
    assert "a context of 40 tokens cannot hold the question" in one_line(done, code=2)
    assert stub.requests == []


def test_reasoning_tags_are_never_stop_strings(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|/thinking|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    file = write_gguf(tmp_path / "m.gguf", chat_template=template)
    with opened(file) as model:
        assert modelfile(model).stops == (END,)


def test_the_beginning_of_text_is_written_once(tmp_path: Path) -> None:
    for adds in (False, True):
        file = write_gguf(tmp_path / f"{adds}.gguf", extra={"tokenizer.ggml.add_bos_token": adds})
        with opened(file) as model:
            assert modelfile(model).template.startswith("<|bos|>") is not adds


def test_a_doubled_beginning_is_noticed(run: Run, stub: OllamaStub, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "adds.gguf", chain=SAYS, extra={"tokenizer.ggml.add_bos_token": True})
    assert run("deploy", file, "--ollama", "once").exit_code == 0
    given = tmp_path / "twice.tmpl"
    given.write_text("<|bos|>" + stub.models["once:latest"].template, encoding="utf-8")
    done = run("deploy", file, "--ollama", "twice", "--template", given)
    assert "its file does (prompt tokens);" in one_line(done, code=1)


def test_a_template_text_of_the_users_own_is_taken_as_it_is(thinker: Path) -> None:
    with opened(thinker) as model:
        assert (
            modelfile(model, template="{{ .Prompt }}", system="")
            .text("x.gguf")
            .startswith('FROM x.gguf\nTEMPLATE """{{ .Prompt }}"""\n')
        )
        with pytest.raises(InputError):
            modelfile(model, template='"""')
