"""Where a run's base model lies: a folder, the bundled model unpacked into one, or a download from the hub."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from preflexor_agents.errors import ModelError, TrainingError

NANO = "nano"
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's names of a layer's tensors -> those of Transformers."""
_HASHED_BYTES = 1 << 20


def resolve(base: str) -> Path:
    """The folder of a base model.

    Args:
        base: `nano`, a folder, or the id of a model on the Hugging Face hub, which is downloaded once.

    Raises:
        ModelError: there is no such model, or it has no safetensors.
        TrainingError: the bundled model cannot be unpacked.
    """
    if base == NANO:
        return _nano()
    folder = Path(base).expanduser()
    if not folder.is_dir():
        folder = _downloaded(base)
    if not (folder / "config.json").is_file():
        raise ModelError(f"base {base} has no config.json; name the folder of a Hugging Face model")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"base {base} has no safetensors; save it with safe_serialization=True")
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 that tells one model from another without reading gigabytes.

    Covers configuration and tokenizer whole, and of each file of weights its size, its first and its last megabyte.
    """
    digest = sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_HASHED_BYTES))
                file.seek(max(size - _HASHED_BYTES, 0))
                digest.update(file.read())
        elif path.suffix in (".json", ".jinja", ".model"):
            digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _downloaded(base: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise ModelError(f"base {base} is no folder, and huggingface_hub, which downloads models, is missing") from None
    wanted = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
    try:
        return Path(snapshot_download(base, allow_patterns=wanted))
    except HFValidationError:
        raise ModelError(f"base {base!r} is neither a folder nor a model of the Hugging Face hub; correct it") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        why = " ".join(str(e).split())[:160]
        raise ModelError(f"base {base!r} is no folder here and cannot be downloaded: {why}") from None


def _nano() -> Path:
    """The bundled model as a folder, unpacked once for each version of it."""
    from preflexor_agents.backends.llamacpp import nano_path

    source = nano_path()
    name = f"nano-{sha256(source.read_bytes()).hexdigest()[:16]}"
    return unpack(source, Path(platformdirs.user_cache_dir("preflexor", appauthor=False)) / "bases" / name)


def unpack(gguf: Path, folder: Path) -> Path:
    """A GGUF file of nano, or of a model trained like it, as a folder that Transformers reads, with the same weights.

    Args:
        gguf: with nano's architecture and tokenizer.
        folder: where to; one that is there already is left as it is.

    Returns:
        The folder.

    Raises:
        ModelError: the file is no such model, or gguf is not installed.
        TrainingError: the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    if not gguf.is_file():
        raise ModelError(f"{gguf} does not exist; give a GGUF file of nano")
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ModelError(f"base {gguf} has to be unpacked by gguf; install it with: pip install gguf") from None
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        reader = GGUFReader(gguf)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _unpack(reader, partial)
        partial.rename(folder)
    except (ValueError, KeyError, IndexError, AttributeError) as e:
        raise ModelError(f"{gguf} cannot be unpacked: {_short(e)}; give a GGUF file of nano in 16 or 32 bits") from None
    except OSError as e:
        if folder.is_dir():
            return folder
        raise TrainingError(f"{folder} cannot be written: {e.strerror or e}; make room") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__


def _unpack(reader: Any, out: Path) -> None:
    from safetensors.numpy import save_file

    from preflexor_training.nano.tokenizer import assemble

    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads = fields["llama.attention.head_count"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.attention.key_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    tensors = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name not in ("F16", "F32"):
            raise ValueError(f"{tensor.name} is {tensor.tensor_type.name}")
        values = np.asarray(tensor.data, dtype=np.float32)
        tensors[_name(tensor.name)] = _unpaired(values, heads) if _is_rotated(tensor.name) else values
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    assemble(fields["tokenizer.ggml.tokens"], merges, context=fields["llama.context_length"]).save_pretrained(str(out))


def _name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, part, end = name.split(".")
        return f"model.layers.{layer}.{_LAYER[part]}.{end}"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _is_rotated(name: str) -> bool:
    return name.endswith(("attn_q.weight", "attn_k.weight"))


def _unpaired(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a rotated projection, (heads x dims, in), in the order of Transformers.

    llama.cpp keeps the two values that are rotated together side by side, Transformers half a head apart.
    """
    rows, width = weight.shape
    return np.ascontiguousarray(weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width))
