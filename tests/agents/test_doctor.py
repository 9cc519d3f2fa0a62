"""`preflexor doctor` tells what is there, and what to do about what is not."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from preflexor_agents.cli import doctor
from preflexor_agents.store import driver
from tests.fakes.ollama_stub import OllamaStub, StubModel


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No Ollama server, no settings and no store."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_real_engine_and_database_are_found() -> None:
    llama, sqlite = doctor.llama(), doctor.sqlite()
    assert llama.status == "ok" and "llama-cpp-python 0." in llama.detail
    assert sqlite.status == "ok" and "sqlite-vec v" in sqlite.detail


def test_json_is_one_object_that_names_every_part(nowhere: Path) -> None:
    done = CliRunner().invoke(doctor.command, ["--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == (0 if found["ok"] else 1)
    names = [check["name"] for check in found["checks"]]
    assert {"Python", "SQLite", "llama.cpp", "nano", "library", "settings", "Ollama", "extra train"} <= set(names)
    assert all(check["fix"] for check in found["checks"] if check["status"] != "ok")


def test_a_missing_model_file_is_broken_and_ends_with_1(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    done = CliRunner().invoke(doctor.command)
    assert done.exit_code == 1
    assert f"bundled model {tmp_path / 'data' / 'nano' / 'nano.gguf'}: No such file" in done.stdout
    assert "no notes in" in done.stdout and "fix: " in done.stdout


def test_a_file_that_is_no_model_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "nano").mkdir(parents=True)
    (tmp_path / "data" / "nano" / "nano.gguf").write_bytes(b"version https://git-lfs")
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    assert doctor.bundled_model().status == "broken"


def test_an_old_sqlite_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SAFE_SQLITE", (99, 0, 0))
    check = doctor.sqlite()
    assert check.status == "warning" and "older than" in check.detail and "pip install" in check.fix


def test_a_driver_without_sqlite_vec_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "load_vec", lambda connection: False)
    check = doctor.sqlite()
    assert check.status == "warning" and "sqlite-vec does not load" in check.detail


def test_an_engine_that_does_not_start_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LLAMA_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    check = doctor.llama()
    assert check.status == "broken" and "exit code -4" in check.detail and "--force-reinstall" in check.fix


def test_no_ollama_server_is_no_failure(nowhere: Path) -> None:
    check = doctor.ollama()
    assert (check.status, check.fix) == ("absent", "install it from https://ollama.com/download, then: ollama serve")
    assert "127.0.0.1:1" in check.detail


def test_the_models_of_an_ollama_server_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaStub(StubModel(name="qwen3:4b"), StubModel(name="llama3.2:3b")) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        check = doctor.ollama()
    assert check.status == "ok"
    assert check.detail.endswith(": llama3.2:3b, qwen3:4b")


def test_a_host_that_cannot_be_read_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:port")
    check = doctor.ollama()
    assert check.status == "warning" and "http://127.0.0.1:port" in check.detail


def test_a_wrong_setting_is_shown(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "preflexor.toml").write_text("rounds = 0", encoding="utf-8")
    check = doctor.settings()
    assert check.status == "broken" and "rounds in" in check.detail


def test_a_missing_extra_comes_with_the_command_that_installs_it() -> None:
    check = doctor.installed_extra("tui", ("textual_is_not_here",))
    assert check.status == "absent"
    words = shlex.split(check.fix)
    assert words[:4] == [sys.executable, "-m", "pip", "install"] and words[-1].endswith("[tui]")


def test_torch_is_asked_for_exactly_and_first() -> None:
    check = doctor.installed_extra("train", ("torch", "no_such_trainer"))
    assert "torch==" not in check.fix
    assert doctor.installed_extra("train", ("no_such_trainer",)).fix == check.fix


def test_the_doctor_runs_as_a_command(nowhere: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "preflexor_agents", "doctor"], capture_output=True, text=True)
    assert done.returncode in (0, 1) and done.stderr == ""
    assert "llama.cpp" in done.stdout
