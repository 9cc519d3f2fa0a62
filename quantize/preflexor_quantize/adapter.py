"""A LoRA adapter, from PEFT or from MLX: merged into its base, or as a GGUF adapter to be loaded beside it.

MLX keeps the same two matrices transposed and the scale as one number; as PEFT's files they take the same way.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize.convert import last_error, run_script
from preflexor_quantize.files import Watch, ignore, replacing
from preflexor_quantize.folder import read_folder, read_header

_PEFT, _MLX = "adapter_model.safetensors", "adapters.safetensors"
_TOKENIZER: tuple[str, ...] = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
_TOKENIZER += ("added_tokens.json", "chat_template.jinja")
_PREFIX = "base_model.model."


@contextmanager
def peft_folder(adapter: Path) -> Iterator[Path]:
    """The adapter as PEFT's files: itself, or a copy for as long as the context is open.

    Raises:
        ModelError: it is no LoRA adapter, damaged, or a pickle.
    """
    config = _config(adapter)
    if (adapter / _PEFT).is_file():
        read_header(adapter / _PEFT)
        if config.get("peft_type", "LORA") != "LORA":
            raise ModelError(f"{adapter} is a {config['peft_type']} adapter; only LoRA can be merged here")
        yield adapter
        return
    if not (adapter / _MLX).is_file():
        pickled = sorted(adapter.glob("adapter_model.*"))
        why = f"has {pickled[0].name}, a pickle" if pickled else f"has neither {_PEFT} nor {_MLX}"
        raise ModelError(f"{adapter} {why}; save the adapter again as safetensors")
    read_header(adapter / _MLX)
    with TemporaryDirectory(prefix="preflexor-adapter-") as work:
        _from_mlx(adapter, config, Path(work))
        yield Path(work)


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Write the base with the adapter's changes worked in, as a folder of its own; tokenizer of the adapter, if any.

    Needs memory for the base's weights; in float32 where it is there, since 16 bits would swallow small changes.

    Raises:
        ModelError: one of them cannot be used, or they do not fit.
    """
    import torch

    from preflexor_quantize.hf_model import load_model, merged, precision

    about = read_folder(base)
    with peft_folder(adapter) as folder:
        model = load_model(base, dtype=precision(about.parameters))
        rows = _embedding_rows(folder) or _trained_rows(folder, held=model.get_input_embeddings().weight.shape[0])
        if rows and rows != model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=False)
        try:
            with torch.no_grad():
                whole = merged(model, folder)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as e:
            words = " ".join(str(e).split())[:200]
            raise ModelError(f"{adapter} does not fit {base}: {words}; give the base that it was trained on") from None
        whole.save_pretrained(out)
    for name in _TOKENIZER:
        source = next((f / name for f in (adapter, base) if (f / name).is_file() and _whole(f)), None)
        source = source or (base / name if (base / name).is_file() else None)
        if source is not None:
            shutil.copyfile(source, out / name)


def adapter_to_gguf(
    base: Path, adapter: Path, out: Path, *, converter: Path | None = None, watch: Watch = ignore
) -> None:
    """Write the adapter as a GGUF adapter, for a GGUF file of the same base.

    Raises:
        ModelError: it changes more than LoRA matrices, which a GGUF adapter cannot hold.
        PreflexorError: the converter failed.
    """
    read_folder(base)
    with peft_folder(adapter) as folder, TemporaryDirectory(prefix="preflexor-adapter-") as work:
        plain = _plain(folder, Path(work))
        size = (plain / _PEFT).stat().st_size
        with replacing(out) as fresh:
            arguments = ["--base", str(base.absolute()), "--outfile", str(fresh), "--outtype", "f32", str(plain)]
            said = run_script("convert_lora_to_gguf.py", arguments, fresh, size, converter=converter, watch=watch)
            if said is not None:
                raise PreflexorError(f"the converter failed on the adapter {adapter}: {last_error(said)}")


def _plain(folder: Path, work: Path) -> Path:
    """A copy with each module's own scale worked into its matrices: llama.cpp applies alpha / rank to all alike."""
    from safetensors.torch import load_file, save_file

    config = _config(folder)
    if config.get("use_dora") or config.get("modules_to_save") or config.get("bias", "none") != "none":
        raise ModelError(f"{folder} changes more than LoRA matrices (DoRA, bias or whole modules); merge it instead")
    tensors = load_file(folder / _PEFT)
    strange = [name for name in tensors if ".lora_A." not in name and ".lora_B." not in name]
    if strange:
        raise ModelError(f"{folder} holds {strange[0]}, which a GGUF adapter cannot; merge it instead")
    scaled = {}
    for name, tensor in tensors.items():
        if ".lora_B." in name:
            rank = tensor.shape[-1]
            wanted = _alpha(config, name) / (rank**0.5 if config.get("use_rslora") else rank)
            tensor = tensor.float() * (wanted * rank)
        scaled[name] = tensor.float().contiguous()
    save_file(scaled, work / _PEFT)
    fields = {"lora_alpha": 1, "r": config.get("r", 0), "peft_type": "LORA", "base_model_name_or_path": ""}
    (work / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return work


def _alpha(config: dict[str, Any], name: str) -> float:
    module = name.removeprefix(_PREFIX).partition(".lora_B.")[0]
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith("." + pattern):
            return float(alpha)
    return float(config["lora_alpha"])


def _from_mlx(adapter: Path, config: dict[str, Any], out: Path) -> None:
    """PEFT's files from MLX's: A (in, rank) and B (rank, out) turned over, alpha = scale x rank."""
    from safetensors.torch import load_file, save_file

    about = config.get("lora_parameters")
    if config.get("fine_tune_type", "lora") != "lora" or not isinstance(about, dict):
        raise ModelError(f"{adapter} was trained as {config.get('fine_tune_type')!r}; fuse it first: mlx_lm.fuse")
    tensors = {}
    for name, tensor in load_file(adapter / _MLX).items():
        module, _, part = name.rpartition(".")
        if part not in ("lora_a", "lora_b"):
            raise ModelError(f"{adapter} holds {name}, which is no LoRA matrix; fuse it first: mlx_lm.fuse")
        tensors[f"{_PREFIX}{module}.lora_{part[-1].upper()}.weight"] = tensor.T.contiguous()
    if not tensors:
        raise ModelError(f"{adapter} holds no LoRA matrices; give the folder that mlx_lm.lora wrote")
    ranks = {t.shape[0] for name, t in tensors.items() if ".lora_A." in name}
    if len(ranks) != 1:
        raise ModelError(f"{adapter} has matrices of ranks {sorted(ranks)}; fuse it first: mlx_lm.fuse")
    rank = ranks.pop()
    modules = sorted({name.removeprefix(_PREFIX).partition(".lora_")[0] for name in tensors})
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": float(about.get("scale", 1.0)) * rank,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
    }
    save_file(tensors, out / _PEFT)
    (out / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")


def _config(adapter: Path) -> dict[str, Any]:
    file = adapter / "adapter_config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{adapter} has no readable adapter_config.json; give the folder of a LoRA adapter") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is no JSON object; save the adapter again")
    return found


def _embedding_rows(folder: Path) -> int:
    """Rows of the embedding that the adapter brings; 0 if it brings none."""
    from safetensors import safe_open

    with safe_open(folder / _PEFT, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            if name.endswith("embed_tokens.weight") or name.endswith("wte.weight"):
                return int(file.get_slice(name).get_shape()[0])
    return 0


def _trained_rows(folder: Path, *, held: int) -> int:
    """Rows that the embedding needs for the tokens that the adapter trains one by one, which may be new to the base.

    PEFT puts their rows into a table that must have them; all of them are then the adapter's.
    """
    told = _config(folder).get("trainable_token_indices") or ()
    groups = told.values() if isinstance(told, dict) else [told]
    return max([held, *(index + 1 for group in groups for index in group if isinstance(index, int))])


def _whole(folder: Path) -> bool:
    """Whether the folder has a tokenizer of its own, not only a part of one."""
    return any((folder / name).is_file() for name in _TOKENIZER[:2])
