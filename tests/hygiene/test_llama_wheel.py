"""The set-up script: what it keeps apart in its cache, and what it says while it compiles."""

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with a cache of its own and no build variables."""
    spec = importlib.util.spec_from_file_location("llama_wheel", ROOT / "scripts" / "llama_wheel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in module.BUILD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return module


def test_the_pinned_version_is_the_installed_one(script: ModuleType) -> None:
    assert script.pinned_version() == script.installed_version()


def test_builds_with_other_flags_or_cpus_do_not_share_a_wheel(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = script.cache_slot("0.3.36")
    assert script.cache_slot("0.3.36") == plain
    slots = {plain, script.cache_slot("0.3.37")}
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    slots.add(script.cache_slot("0.3.36"))
    monkeypatch.setattr(script, "cpu_identity", lambda: "another")
    slots.add(script.cache_slot("0.3.36"))
    assert len(slots) == 4


def test_the_cpu_is_known_by_name_and_features(script: ModuleType) -> None:
    assert len(script.cpu_identity()) > 20


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Collecting llama-cpp-python\n", 0.0),
        ("  [ 4%] Building C object\n  [ 52%] Building CXX object ggml.cpp.o\n  warning: [x]\n", 0.52),
        ("[1/180] Building\n[45/180] Building\n", 0.25),
    ],
)
def test_progress_is_read_from_the_output_of_the_build(
    script: ModuleType, tmp_path: Path, text: str, share: float
) -> None:
    log = tmp_path / "build.log"
    log.write_text(text, encoding="utf-8")
    assert script.share_done(log) == share


def test_the_time_left_follows_the_pace(script: ModuleType) -> None:
    assert script.standing(20, 0.0) == "fetching the source, 0:20 so far"
    assert script.standing(30, 0.01) == "compiling, 1% of the steps, 0:30 so far"
    assert script.standing(90, 0.5) == "compiling, 50% of the steps, 1:30 so far, about 1:30 left"


def test_a_cut_off_wheel_is_not_used(script: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("module.py", "x = 1\n" * 1000)
    assert script.whole(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    assert not script.whole(wheel)


def test_a_missing_compiler_is_named_with_the_remedy(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(SystemExit) as ended:
        script.check_compilers()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "CXX=no-such-compiler -O2 does not run; install" in said and len(said.splitlines()) == 1
