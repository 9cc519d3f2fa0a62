"""Folders and the files made of them, once for all tests: the converter takes seconds to start."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and fewer windows of text than a user gets."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("preflexor_quantize.scoring.MOST_WINDOWS", 5)
    monkeypatch.setattr("preflexor_quantize.imatrix.MOST_WINDOWS", 6)


@pytest.fixture(scope="session")
def converter() -> Path:
    pytest.importorskip("transformers", reason="needs the quantize extra")
    pytest.importorskip("gguf", reason="needs the quantize extra")
    from preflexor_quantize.converter import cached_converter

    folder = cached_converter()
    if not folder.is_dir():
        pytest.skip("the converter is not in the cache; `preflexor quantize` fetches it")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the folder of a name at its first use."""
    pytest.importorskip("transformers", reason="needs the quantize extra")
    from tests.quantize import folders as make

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        needs = {"gpt2": "tokenizer-gpt2", "chatml": "tokenizer-smollm2", "stories": "lm-stories260k"}
        if name in needs and not (make.DATA / needs[name]).is_dir():
            pytest.skip(f"no {needs[name]} among the shared data")
        if name not in made:
            out = tmp_path_factory.mktemp("folders") / name
            if name == "stories":
                made[name] = make.stories260k(out)
            elif name == "nano":
                made[name] = make.nano(out)
            else:
                made[name] = make.random_model(out, getattr(make, f"{name}_tokenizer")())
        return made[name]

    return folder


@pytest.fixture(scope="session")
def converted(
    folders: Callable[[str], Path], converter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The verified F16 file of a folder of that name."""
    from preflexor_quantize.convert import convert

    made: dict[str, Path] = {}

    def file(name: str) -> Path:
        if name not in made:
            out = tmp_path_factory.mktemp("files") / f"{name}.gguf"
            agreement = convert(folders(name), out)
            assert agreement.greedy_prompts == 16
            assert agreement.greedy_equal_tok + agreement.ties == agreement.greedy_tok == 16 * 64
            made[name] = out
        return made[name]

    return file
