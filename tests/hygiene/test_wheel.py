"""What a user installs: the built wheel holds the code and the data, and nothing else."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "preflexor_agents" / "data"
PACKAGES = {"preflexor_agents", "preflexor_training", "preflexor_quantize", "preflexor_tui"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """File -> size in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


def test_the_wheel_holds_the_four_packages_only(names: dict[str, int]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_bundled_library_is_in_the_wheel(names: dict[str, int]) -> None:
    notes = {f"preflexor_agents/data/library/{note.name}" for note in (DATA / "library").glob("*.md")}
    assert len(notes) >= 40
    assert notes <= names.keys()


def test_the_bundled_model_is_in_the_wheel_with_its_card_and_small(names: dict[str, int]) -> None:
    assert 0 < names["preflexor_agents/data/nano/nano.gguf"] <= 16_000_000
    assert [name for name in names if name.startswith("preflexor_agents/data/nano/") and name.endswith(".md")]


def test_the_package_says_that_it_is_typed(names: dict[str, int]) -> None:
    assert "preflexor_agents/py.typed" in names
