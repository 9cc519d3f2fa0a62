"""The edges of a phase: which backend trains it, from which base, and the merged model that it leaves."""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from preflexor_agents.errors import InputError, TrainingError
from preflexor_training.interpolation import tensor_files
from preflexor_training.learner import Learner
from preflexor_training.recipes import Phase, Recipe

BackendName = Literal["trl", "mlx"]
OpenLearner = Callable[[Recipe, Phase, Path, Path], Learner]
"""Takes recipe, phase, the base's folder, and the folder that the learner owns."""

MERGED, LEARNER, ADAPTER = "model", "learner", "adapter"
_MODULES: dict[BackendName, str] = {"trl": "torch_backend", "mlx": "mlx_backend"}
_NEEDS: dict[BackendName, str] = {"trl": "torch", "mlx": "mlx"}
_HEAD = "lm_head.weight"


def default_backend() -> BackendName:
    """The backend that is installed; torch if both are."""
    return "mlx" if find_spec("torch") is None and find_spec("mlx") is not None else "trl"


def opener(backend: BackendName) -> OpenLearner:
    """What opens a backend's learners.

    Raises:
        InputError: its library is not installed.
    """
    if find_spec(_NEEDS[backend]) is None:
        raise InputError(
            f"--backend {backend} needs {_NEEDS[backend]}, which is not installed; preflexor doctor says how"
        )
    found: OpenLearner = import_module(f"preflexor_training.{_MODULES[backend]}.learner").open_learner
    return found


def put(write: Callable[[Path], None], out: Path) -> None:
    """Put a folder into place; what stands there is replaced only by a whole one.

    Args:
        write: writes it, under another name.
        out: where it is to be.

    Raises:
        TrainingError: it cannot be written.
    """
    from safetensors import SafetensorError

    partial = out.with_name(f"{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    except (OSError, SafetensorError, RuntimeError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else " ".join(str(e).split())[:160]
        raise TrainingError(f"{out} cannot be written: {why}; see to it, then go on with --resume") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def leave_model(merge: Callable[[Path], None], *, base: Path, out: Path) -> None:
    """Put a merged model into place.

    Args:
        merge: writes the model into a folder.
        base: what it was trained from.
        out: where it is to be.

    Raises:
        TrainingError: it cannot be written, or embeddings that were tied are not any more.
    """

    def write(place: Path) -> None:
        merge(place)
        check_ties(base, place)

    put(write, out)


def check_ties(base: Path, merged: Path) -> None:
    """See that input and output embeddings are tied in a merged model exactly if they are in its base.

    Raises:
        TrainingError: they are not.
    """
    was, now = is_tied(base), is_tied(merged)
    if was == now:
        return
    words = {True: "tied", False: "untied"}
    raise TrainingError(f"the embeddings are {words[was]} in {base} and {words[now]} in the model merged from it")


def is_tied(model: Path) -> bool:
    """Whether a folder's model has one matrix for input and output: its settings say so and no head is stored."""
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    text = settings.get("text_config") or settings
    said = settings.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    return bool(said) and _HEAD not in tensor_files(model)
