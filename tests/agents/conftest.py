from collections.abc import Callable
from pathlib import Path

import pytest

Writer = Callable[..., Path]


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Writes a small GGUF file with the given properties, once for each set of them."""
    pytest.importorskip("gguf", reason="needs the quantize extra")
    from tests.fakes.tiny_gguf import write_gguf

    folder = tmp_path_factory.mktemp("models")
    written: dict[str, Path] = {}

    def write(**properties: object) -> Path:
        key = repr(sorted(properties.items()))
        if key not in written:
            written[key] = write_gguf(folder / f"{len(written)}.gguf", **properties)  # type: ignore[arg-type]
        return written[key]

    return write
