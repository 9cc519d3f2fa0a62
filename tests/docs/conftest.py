"""Models that are small enough to be taught in a test."""

from pathlib import Path

import pytest


@pytest.fixture
def cached(someone: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes GGUF files, checked on fewer texts than a user's; skips where it was never fetched."""
    pytest.importorskip("gguf", reason="needs the quantize extra")
    from preflexor_quantize.converter import cached_converter

    if not cached_converter().is_dir():
        pytest.skip("the converter is not in the cache; `preflexor quantize` fetches it")
    monkeypatch.setattr("preflexor_quantize.scoring.MOST_WINDOWS", 5)


@pytest.fixture
def taught_base(someone: object) -> Path:
    """nano in the place of the model that a page names."""
    pytest.importorskip("transformers", reason="needs the train extra")
    from preflexor_training import bases

    folder = Path("models/Qwen3-0.6B")
    folder.parent.mkdir()
    folder.symlink_to(bases.resolve("nano"))
    return folder


@pytest.fixture
def in_place_of_nano(someone: object) -> list[str]:
    """Options: an untrained Llama of two layers, and rows that nobody has to make."""
    pytest.importorskip("transformers", reason="needs the train extra")
    from tests.training.small_runs import small_base, write_pairs

    Path("models").mkdir()
    base = small_base(Path("small"), context=2048)
    return ["--base", str(base), "--pairs", str(write_pairs(Path("rows-about-numbers.jsonl"), 12))]
