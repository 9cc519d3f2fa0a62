"""Opens a model folder with mlx-lm, with an adapter if there is one, or says in one line why it cannot be used."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflexor_agents.errors import ModelError

MISSING = "mlx-lm is not installed; install it with: pip install 'preflexor-agents[mlx]'"
_NO_TEMPLATE = "use an instruction-tuned model, or add its chat_template.jinja"


@dataclass(slots=True)
class MlxFolder:
    """A loaded model and what its folder says of text."""

    path: Path
    model: Any
    """mlx-lm's, an mlx.nn.Module with evaluated weights."""
    config: dict[str, Any]
    tokenizer: Any
    """Of transformers."""
    trained_tok: int
    """Context that the model was trained with."""
    chat_template: str
    """Jinja source; empty if it has none."""
    ends: tuple[int, ...]
    """Tokens that the model's files name as ends of a reply."""


def check_installed() -> None:
    """Raises ModelError if mlx-lm is missing."""
    if importlib.util.find_spec("mlx") is None or importlib.util.find_spec("mlx_lm") is None:
        raise ModelError(MISSING)


def load(folder: Path, *, adapter: Path | None = None) -> MlxFolder:
    """Load a model folder; that of an adapter alone is loaded with the base that it names.

    Args:
        folder: as `save_pretrained` or mlx-lm wrote it.
        adapter: folder of a LoRA adapter, PEFT's or mlx-lm's.

    Raises:
        ModelError: mlx-lm is missing, the folder is no model, or the adapter does not fit.
    """
    check_installed()
    from preflexor_agents.backends import mlx_adapter
    from preflexor_agents.backends.hf_tokens import load_tokenizer, template_source
    from preflexor_agents.backends.mlx_rows import grow

    if adapter is None and (folder / mlx_adapter.CONFIG).is_file() and not (folder / "config.json").is_file():
        folder, adapter = mlx_adapter.base_folder(folder), folder
    model, config = load_weights(folder)
    own_words = adapter if adapter is not None and (adapter / "tokenizer.json").is_file() else folder
    tokenizer = load_tokenizer(own_words)
    if adapter is not None:
        grow(model, len(tokenizer))
        try:
            mlx_adapter.attach(model, mlx_adapter.read(adapter))
        except ModelError as e:
            raise e if str(e).startswith(str(adapter)) else ModelError(f"{adapter}: {e}") from None
    return MlxFolder(
        path=adapter or folder,
        model=model,
        config=config,
        tokenizer=tokenizer,
        trained_tok=trained_tok(config),
        chat_template=template_source(tokenizer) or template_source(load_tokenizer(folder)),
        ends=end_ids(config),
    )


def load_weights(folder: Path, *, dtype: Any = None, lazy: bool = False) -> tuple[Any, dict[str, Any]]:
    """mlx-lm's module in evaluation mode, its numbers cast if a dtype is given, and the configuration.

    Lazy leaves the weights on the disk until they are used, so that what is quantised next is never there whole.

    Raises:
        ModelError: as `load`.
    """
    check_installed()
    check_folder(folder)
    import mlx.core as mx
    from mlx_lm.utils import load_model

    try:
        model, config = load_model(folder, lazy=True, strict=True, trust_remote_code=False)
        if dtype is not None:
            model.set_dtype(dtype)
        if not lazy:
            mx.eval(model.parameters())
    except FileNotFoundError:
        raise ModelError(f"{folder} has no model*.safetensors; download the model again as safetensors") from None
    except MemoryError:
        raise ModelError(f"{folder} does not fit into memory; use its 4-bit form: preflexor export --bits 4") from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise ModelError(f"{folder} cannot be opened with mlx-lm: {_line(e)}; download it again") from None
    return model, config


def keep_resident() -> None:
    """Let macOS leave the weights in memory; it would page those of large models out and in between two tokens."""
    import mlx.core as mx

    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def check_folder(folder: Path) -> None:
    """Raises ModelError if a folder cannot be a model, before anything heavy is loaded."""
    if folder.is_file():
        remedy = f"use gguf:{folder}" if folder.suffix == ".gguf" else "name the folder that it is in"
        raise ModelError(f"{folder} is a file; mlx: takes the folder of a model: {remedy}")
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder; name the folder of a model, as preflexor export wrote it")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json; name the folder of a model") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {_line(e)}; copy it again") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} names no model_type; copy it again from the model's source")
    if not any(folder.glob("model*.safetensors")):
        pickled = next((f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".pt", ".pth")), "")
        why = f"has its weights as a pickle ({pickled})" if pickled else "has no model*.safetensors"
        raise ModelError(f"{folder} {why}; save it again with safetensors")


def trained_tok(config: dict[str, Any]) -> int:
    """Context that a model was trained with; 4096 if its configuration does not say."""
    inner = config.get("text_config")
    found = config.get("max_position_embeddings")
    if found is None and isinstance(inner, dict):
        found = inner.get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else 4096


def end_ids(config: dict[str, Any]) -> tuple[int, ...]:
    """Tokens that end a reply, as mlx-lm read them from the model's files."""
    found = config.get("eos_token_id")
    ids = found if isinstance(found, list) else [found]
    return tuple(i for i in ids if isinstance(i, int))


def check_template(folder: MlxFolder) -> None:
    """Raises ModelError if the model has no chat template."""
    if not folder.chat_template:
        raise ModelError(f"{folder.path} has no chat template; {_NO_TEMPLATE}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
