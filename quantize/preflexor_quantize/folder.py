"""A model folder as `save_pretrained` or MLX wrote it: what it holds, and one line on why it cannot be used."""

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from preflexor_agents.errors import ModelError

_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_HEADER_MOST = 100 << 20


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that has passed the checks."""

    path: Path
    architecture: str
    parameters: int
    weights_bytes: int
    vocabulary: int
    """Rows of the embedding, padding included."""

    @property
    def name(self) -> str:
        """For the files that are made from it."""
        return file_name(self.path)


def file_name(path: Path) -> str:
    """The last part of a path as a name that every file system takes."""
    return re.sub(r"[^\w.-]+", "-", path.resolve().name).strip("-.") or "model"


def read_folder(path: Path) -> ModelFolder:
    """Check a folder without loading it.

    Raises:
        ModelError: it is no model that can be converted; in one line why, and what to do.
    """
    if not path.is_dir():
        raise ModelError(f"{path} is no folder; give the one that save_pretrained or mlx_lm wrote")
    config = _json(path / "config.json")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise ModelError(f"{path}/config.json names no architecture; give the folder of a whole model")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ModelError(f"{path} has no tokenizer.json; save the tokenizer into the same folder")
    if config.get("quantization") or config.get("quantization_config"):
        raise ModelError(
            f"{path} is quantised already; save it in 16 bits first (MLX: mlx_lm.fuse --dequantize), or give its source"
        )
    tensors, size = _tensors(path)
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size", 0)
    return ModelFolder(
        path=path,
        architecture=architectures[0],
        parameters=sum(tensors.values()),
        weights_bytes=size,
        vocabulary=rows if isinstance(rows, int) else 0,
    )


def _tensors(path: Path) -> tuple[dict[str, int], int]:
    """Elements of each tensor, and bytes of all files."""
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        pickled = sorted(f.name for f in path.iterdir() if f.suffix in _PICKLED)
        if pickled:
            raise ModelError(
                f"{path} has its weights as a pickle ({pickled[0]}), which can run code when it is read; "
                "save the model again with safe_serialization"
            )
        raise ModelError(f"{path} has no model*.safetensors; give the folder of a whole model")
    tensors: dict[str, int] = {}
    for file in files:
        tensors |= read_header(file)
    index = path / "model.safetensors.index.json"
    wanted = _json(index).get("weight_map", {}) if index.is_file() else {}
    missing = [name for name in wanted if name not in tensors] if isinstance(wanted, dict) else []
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} tensors of its index, as {missing[0]}; download the rest")
    return tensors, sum(f.stat().st_size for f in files)


def read_header(file: Path) -> dict[str, int]:
    """Elements of each tensor in a safetensors file.

    Raises:
        ModelError: the file is cut short or damaged.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as data:
            length = int.from_bytes(data.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_MOST):
                raise ModelError(f"{file} is cut short or damaged; copy or download it again")
            header = json.loads(data.read(length))
        tensors = {name: about for name, about in header.items() if name != "__metadata__"}
        end = max((about["data_offsets"][1] for about in tensors.values()), default=0)
        counts = {name: prod(about["shape"]) for name, about in tensors.items()}
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror or e}") from None
    except (ValueError, KeyError, TypeError, AttributeError, LookupError):
        raise ModelError(f"{file} is cut short or damaged; copy or download it again") from None
    if 8 + length + end > size:
        raise ModelError(f"{file} is cut short: {size} of {8 + length + end} bytes; copy or download it again")
    return counts


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file.parent} has no {file.name}; give the folder that save_pretrained wrote") from None
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror or e}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{file} is no JSON; copy or download it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is no JSON object; copy or download it again")
    return found
