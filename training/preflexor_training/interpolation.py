"""Models made of models: linear and spherical means of weights, and mergekit's methods where mergekit is installed."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from preflexor_agents.errors import InputError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["linear", "slerp", "ties", "dare"]
INDEX = "model.safetensors.index.json"
_MERGEKIT: Mapping[str, dict[str, object]] = {
    "ties": {"merge_method": "ties", "density": 0.5},
    "dare": {"merge_method": "dare_ties", "density": 0.1},
}
"""Densities of the published merges: TIES keeps half of each difference, DARE drops nine of ten."""
_NEARLY_PARALLEL = 1e-6
"""Sine of the angle below which the spherical mean is the linear one."""


def interpolate(models: Sequence[Path], out: Path, *, method: Method, weights: Sequence[float] = ()) -> None:
    """Write a model between the given ones; configuration and tokenizer are those of the first.

    Args:
        models: folders of Hugging Face models with the same tensors. Of `ties` and `dare` the first is the base that
            the others were trained from.
        out: folder to write; it appears when it is whole.
        method: `linear` is the weighted mean, `slerp` goes along the arc between two, `ties` and `dare` are mergekit's.
        weights: one for each model, made to sum to one; equal shares if none are given.

    Raises:
        InputError: the models do not fit together, or mergekit is missing.
        TrainingError: the model cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another folder or remove it")
    if len(models) < 2 or (method == "slerp" and len(models) != 2):
        wanted = "two models" if method == "slerp" else "two or more models"
        raise InputError(f"{method} takes {wanted}, not {len(models)}; give their folders, then the folder to write")
    shares = _shares(weights, len(models))
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if method in _MERGEKIT:
            _by_mergekit(models, partial, method, shares)
        else:
            _by_ourselves(models, partial, method, shares)
        partial.rename(out)
    except OSError as e:
        raise TrainingError(f"{out} cannot be written: {e.strerror}; make room or name another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def tensor_files(model: Path) -> dict[str, str]:
    """Tensor name -> the safetensors file of the folder that holds it.

    Raises:
        InputError: the folder holds no such model, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if (model / INDEX).exists():
            found: dict[str, str] = json.loads((model / INDEX).read_text(encoding="utf-8"))["weight_map"]
            return found
        with safe_open(str(model / "model.safetensors"), framework="numpy") as file:
            return dict.fromkeys(file.keys(), "model.safetensors")
    except FileNotFoundError:
        raise InputError(f"{model} holds no model.safetensors; name the folder of a Hugging Face model") from None
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise InputError(f"the model in {model} cannot be read: {' '.join(str(e).split())[:160]}") from None


def _by_ourselves(models: Sequence[Path], out: Path, method: str, shares: Sequence[float]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise InputError("merging needs torch; install with: pip install 'preflexor-agents[train]'") from None
    files = [tensor_files(model) for model in models]
    _check_same(models, files)
    out.mkdir()
    for path in models[0].iterdir():
        if path.is_file() and not path.name.endswith((".safetensors", ".bin", ".gguf")):
            shutil.copyfile(path, out / path.name)
    for file in sorted(set(files[0].values())):
        names = [name for name, where in files[0].items() if where == file]
        save_file(dict(_between(models, files, names, method, shares)), out / file, metadata={"format": "pt"})


def _between(
    models: Sequence[Path],
    files: Sequence[Mapping[str, str]],
    names: Sequence[str],
    method: str,
    shares: Sequence[float],
) -> Iterator[tuple[str, "Tensor"]]:
    from safetensors import safe_open

    with ExitStack() as stack:
        opened = {
            model / file: stack.enter_context(safe_open(str(model / file), framework="pt"))
            for model, where in zip(models, files, strict=True)
            for file in sorted({where[name] for name in names})
        }
        for name in names:
            tensors = [opened[m / where[name]].get_tensor(name) for m, where in zip(models, files, strict=True)]
            if len({t.shape for t in tensors}) > 1:
                shapes = ", ".join("x".join(map(str, t.shape)) for t in tensors)
                raise InputError(f"tensor {name} has the shapes {shapes}; only models of one shape can be merged")
            mixed = _slerp(tensors, shares[1]) if method == "slerp" else _linear(tensors, shares)
            yield name, mixed.to(tensors[0].dtype).contiguous()


def _linear(tensors: Sequence["Tensor"], shares: Sequence[float]) -> "Tensor":
    total = tensors[0].double() * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        total += tensor.double() * share
    return total


def _slerp(tensors: Sequence["Tensor"], t: float) -> "Tensor":
    """The point at `t` of the arc from the first to the second, taken over all values of the tensor as one vector."""
    a, b = (tensor.double() for tensor in tensors)
    lengths = float(a.norm()) * float(b.norm())
    cosine = max(-1.0, min(1.0, float((a * b).sum()) / lengths)) if lengths else 1.0
    angle = math.acos(cosine)
    if math.sin(angle) < _NEARLY_PARALLEL:
        return _linear(tensors, (1 - t, t))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _check_same(models: Sequence[Path], files: Sequence[Mapping[str, str]]) -> None:
    for model, found in zip(models[1:], files[1:], strict=True):
        different = sorted(set(found) ^ set(files[0]))
        if different:
            raise InputError(
                f"{model} and {models[0]} differ in {len(different)} tensors, as {different[0]}; "
                "only models of one architecture can be merged"
            )


def _shares(weights: Sequence[float], count: int) -> tuple[float, ...]:
    given = tuple(weights) or (1.0,) * count
    if len(given) != count:
        raise InputError(f"{len(given)} weights are given for {count} models; give one for each")
    total = sum(given)
    if not all(math.isfinite(w) and w >= 0 for w in given) or not total > 0:
        raise InputError(f"weights {', '.join(f'{w:g}' for w in given)} are no shares; give numbers of 0 or more")
    return tuple(w / total for w in given)


def _by_mergekit(models: Sequence[Path], out: Path, method: str, shares: Sequence[float]) -> None:
    program = shutil.which("mergekit-yaml")
    if program is None:
        raise InputError(f"{method} needs mergekit; install it beside preflexor with: pipx install mergekit")
    settings = dict(_MERGEKIT[method])
    density = settings.pop("density")
    plan = {
        **settings,
        "base_model": str(models[0].absolute()),
        "models": [
            {"model": str(model.absolute()), "parameters": {"weight": share, "density": density}}
            for model, share in zip(models[1:], _shares(shares[1:], len(models) - 1), strict=True)
        ],
        "dtype": _dtype(models[0]),
        "tokenizer_source": "base",
    }
    for model in models:
        tensor_files(model)
    with TemporaryDirectory() as folder:
        # JSON is YAML, so nothing in a path has to be quoted by hand.
        file = Path(folder) / "plan.yaml"
        file.write_text(json.dumps(plan), encoding="utf-8")
        done = subprocess.run([program, str(file), str(out)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not out.is_dir():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TrainingError(f"mergekit failed: {last[:200]}")


def _dtype(model: Path) -> str:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{model / 'config.json'} cannot be read: {' '.join(str(e).split())[:160]}") from None
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")
