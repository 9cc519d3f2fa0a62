"""Run the stock converter, taught two things: known split patterns, and that reasoning tags are visible text.

The converter knows a byte-level BPE only by a hash of what it does to one text, so it refuses every self-trained one;
and it takes whatever looks like `<|...|>` for a control token, which the engine then renders as nothing.

Run as `python -m preflexor_quantize.hf_to_gguf CONVERTER_FOLDER ARGUMENTS...`.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    _WORD + r"|\p{N}{1,3}" + _REST: "llama-bpe",
    _WORD + r"|\p{N}" + _REST: "qwen2",
}
"""Split patterns of byte-level BPEs, and llama.cpp's name for them."""


def pre_tokenizer_name(tokenizer_json: dict[str, Any]) -> str | None:
    """llama.cpp's name for a byte-level BPE of this structure; None if it has none."""
    steps = tokenizer_json.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return SPLITS.get(steps[0].get("pattern", {}).get("Regex", ""))
    return None


def _patch(model: type[Any], *, control: int, user_defined: int) -> None:
    stock_pre, stock_base = model.get_vocab_base_pre, model.get_vocab_base

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return str(stock_pre(self, tokenizer))
        except NotImplementedError:
            described = json.loads((Path(self.dir_model) / "tokenizer.json").read_text(encoding="utf-8"))
            if name := pre_tokenizer_name(described):
                return name
            raise

    def get_vocab_base(self: Any) -> tuple[list[str], list[int], str]:
        tokens, types, pre = stock_base(self)
        described = json.loads((Path(self.dir_model) / "tokenizer.json").read_text(encoding="utf-8"))
        for token in described["added_tokens"]:
            if not token["special"] and types[token["id"]] == control:
                types[token["id"]] = user_defined
        return tokens, types, pre

    model.get_vocab_base_pre, model.get_vocab_base = get_vocab_base_pre, get_vocab_base


def main() -> None:
    """Patch, then run the script as if it had been called."""
    folder, *arguments = sys.argv[1:]
    script = Path(folder) / "convert_hf_to_gguf.py"
    sys.path[:0] = [folder, str(Path(folder) / "gguf-py")]
    import gguf  # the converter's own copy
    from conversion.base import TextModel  # type: ignore[import-not-found]

    _patch(TextModel, control=gguf.TokenType.CONTROL, user_defined=gguf.TokenType.USER_DEFINED)
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
