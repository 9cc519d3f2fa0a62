"""`preflexor quantize` as a user meets it: one line for what cannot be, and nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preflexor_quantize.gguf_file import read_gguf

pytest.importorskip("transformers", reason="needs the quantize extra")
pytest.importorskip("gguf", reason="needs the quantize extra")

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.cli.main import cli

Make = Callable[[str], Path]


def quantize(*words: object) -> Result:
    return CliRunner().invoke(cli, ["quantize", *map(str, words)])


def refused(done: Result, said: str, *, code: int = 2) -> None:
    assert done.exit_code == code, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("preflexor: ")]
    assert len(lines) == 1 and said in lines[0], done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def spoilt(folder: Path, to: Path, how: str) -> Path:
    """A copy of a folder with something wrong."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))
    weights = to / "model.safetensors"
    match how:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "headless":
            weights.write_bytes(b"\xff" * 100)
        case "no tokenizer":
            (to / "tokenizer.json").unlink()
        case "architecture":
            config["architectures"] = ["UnheardOfForCausalLM"]
        case "pickle":
            weights.rename(to / "pytorch_model.bin")
        case "quantised":
            config["quantization"] = {"bits": 4, "group_size": 64}
        case "index":
            index = {"weight_map": {"model.gone.weight": "model-00002-of-00002.safetensors"}}
            (to / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        case "config":
            (to / "config.json").write_text("[1,", encoding="utf-8")
            return to
    (to / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return to


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "is cut short: "),
        ("headless", "is cut short or damaged"),
        ("no tokenizer", "has no tokenizer.json"),
        ("pickle", "as a pickle (pytorch_model.bin)"),
        ("quantised", "is quantised already"),
        ("index", "lacks 1 tensors of its index, as model.gone.weight"),
        ("config", "is no JSON"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_written(
    how: str, said: str, folders: Make, tmp_path: Path
) -> None:
    folder = spoilt(folders("llama3"), tmp_path / "model", how)
    refused(quantize(folder, tmp_path / "out"), said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_unknown_architecture_is_named(folders: Make, converter: Path, tmp_path: Path) -> None:
    folder = spoilt(folders("llama3"), tmp_path / "model", "architecture")
    refused(quantize(folder, tmp_path / "out"), "is a UnheardOfForCausalLM, which llama.cpp's converter does not know")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([nano_path(), "--type", "Q4"], "there is no type 'Q4'"),
        ([nano_path(), "--auto", "--type", "Q8_0"], "give either types or --auto"),
        ([nano_path(), "x.gguf", "--type", "Q8_0", "--type", "Q6_K"], "is one file, for 2 types"),
        ([nano_path(), "--max-memory", "4GB"], "goes with --auto"),
        ([nano_path(), "--auto", "--max-memory", "much"], "'much' is no size"),
        ([nano_path(), "--max-kl", "-1"], "is not above 0"),
        ([nano_path(), "--adapter", "."], "an adapter is worked into the folder of its base"),
        ([nano_path(), "--imatrix-text", "gone.txt"], "gone.txt cannot be read"),
        ([Path(__file__)], "is no GGUF file"),
    ],
)
def test_what_makes_no_sense_is_answered_in_one_line(
    words: list[object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    refused(quantize(*words), said)
    assert not any(tmp_path.rglob("*.gguf*"))


def test_a_file_is_not_written_over_itself(tmp_path: Path) -> None:
    copy = tmp_path / "nano.gguf"
    shutil.copyfile(nano_path(), copy)
    refused(quantize(copy, copy, "--type", "Q8_0"), "is the file to read")
    assert copy.read_bytes() == nano_path().read_bytes()


def test_a_type_is_made_measured_and_shown(tmp_path: Path) -> None:
    done = quantize(nano_path(), tmp_path / "small.gguf", "--type", "q8_0")
    assert done.exit_code == 0, done.output
    assert "Q8_0: 4.6 MB, 29 Q8_0, 9 F32" in done.stderr
    assert "small.gguf" in done.stdout and "6 of 6 (6)" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "small-report.json",
        "small-report.md",
        "small-report.svg",
        "small.gguf",
    ]


def test_json_is_one_object_and_a_file_over_the_budget_is_an_error(tmp_path: Path) -> None:
    done = quantize(nano_path(), tmp_path, "--type", "Q4_K_M", "--max-kl", "0.0001", "--json")
    assert done.exit_code == 1 and "is over 0.0001" in done.stderr
    said = json.loads(done.stdout)
    assert said["files"][0]["verdict"].startswith("mean KL ") and said["files"][0]["file"] == ""
    assert not any(tmp_path.glob("*.gguf*"))


def test_the_plan_shows_every_tensor_and_writes_nothing(tmp_path: Path) -> None:
    done = quantize(nano_path(), tmp_path / "out", "--type", "Q4_K_M", "--plan")
    assert done.exit_code == 0 and not (tmp_path / "out").exists()
    assert len([line for line in done.stdout.splitlines() if " -> " in line]) == 38
    assert "blk.0.attn_q.weight" in done.stdout and "F16 -> Q4_K" in done.stdout


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = ["preflexor", *sys.argv[2:]]
from preflexor_agents.cli.main import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    words = ["1000000", "quantize", str(nano_path()), str(tmp_path / "x.gguf"), "--type", "Q8_0"]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert next(line for line in done.stderr.splitlines() if line.startswith("preflexor: ")).count(
        "cannot be made Q8_0"
    )
    assert "Traceback" not in done.stderr and not any(tmp_path.glob("*.gguf*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_while_converting_is_one_line_and_leaves_nothing(
    folders: Make, converter: Path, tmp_path: Path
) -> None:
    words = ["50000", "quantize", str(folders("stories")), str(tmp_path / "out"), "--type", "Q8_0"]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("preflexor: ") == 1 and " is full; free some of the disk" in done.stderr
    assert "Traceback" not in done.stderr and not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_it_with_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    words = ["quantize", str(nano_path()), str(tmp_path), "--type", "IQ1_S", "--type", "IQ2_S", "--type", "IQ2_XS"]
    process = subprocess.Popen(
        [sys.executable, "-m", "preflexor_agents", *words], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stderr is not None
    assert any(line.startswith("IQ1_S: ") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    with process.stderr as said:
        rest = said.read()
    assert process.wait() == 1 and "stopped: finished files are kept" in rest and "Traceback" not in rest
    left = [path.name for path in tmp_path.iterdir()]
    assert set(left) < {"nano-IQ1_S.gguf", "nano-IQ2_S.gguf", "nano-IQ2_XS.gguf"}
    assert all(read_gguf(tmp_path / name) for name in left)
