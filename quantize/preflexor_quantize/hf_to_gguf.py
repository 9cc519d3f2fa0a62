"""Run a stock conversion script, taught what it gets wrong: split patterns, visible tags, merges without scores.

The script knows a byte-level BPE only by a hash of what it does to one text, so it refuses every self-trained one;
it takes whatever looks like `<|...|>` for a control token, which the engine then renders as nothing; and of a
SentencePiece BPE that is kept as tokenizer.json it drops the order of the merges.

Run as `python -m preflexor_quantize.hf_to_gguf CONVERTER SCRIPT [--outline] ARGUMENTS...`; with `--outline` the file
gets its header and its length, but no weights.
"""

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preflexor_quantize.tags import stays_visible

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
    if steps[-1].get("add_prefix_space") or (tokenizer_json.get("normalizer") or {}).get("type") not in (None, "NFC"):
        return None
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return SPLITS.get(steps[0].get("pattern", {}).get("Regex", ""))
    return None


def merge_scores(tokenizer_json: dict[str, Any]) -> dict[str, float]:
    """A score for each merged piece, so that the piece that is merged first scores highest."""
    scores: dict[str, float] = {}
    for rank, merge in enumerate(tokenizer_json["model"].get("merges", ())):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        scores.setdefault("".join(pair), -float(rank))
    return scores


def corrected(
    stock: Sequence[int], added: Sequence[dict[str, Any]], *, control: int, visible: int, keep: Sequence[int]
) -> list[int]:
    """The types with the added tokens put right; those in `keep` stay as they are."""
    types = [int(t) for t in stock]
    for token in added:
        number = token["id"]
        if number < len(types) and types[number] not in keep:
            types[number] = visible if stays_visible(token["content"], special=token["special"]) else control
    return types


def _described(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer.json"
    described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return described


def _teach_splits(model: type[Any]) -> None:
    stock_pre = model.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return str(stock_pre(self, tokenizer))
        except NotImplementedError:
            if name := pre_tokenizer_name(_described(Path(self.dir_model))):
                return name
            raise

    model.get_vocab_base_pre = get_vocab_base_pre


def _teach_types(gguf: Any, folder: Path) -> None:
    stock = gguf.GGUFWriter.add_token_types
    kinds = gguf.TokenType

    def add_token_types(self: Any, types: Sequence[int]) -> None:
        added = _described(folder).get("added_tokens", ())
        keep = (kinds.UNKNOWN, kinds.BYTE)
        stock(self, corrected(types, added, control=kinds.CONTROL, visible=kinds.USER_DEFINED, keep=keep))

    gguf.GGUFWriter.add_token_types = add_token_types


def _teach_merges(gguf: Any, folder: Path) -> None:
    stock = gguf.LlamaHfVocab.__init__

    def init(self: Any, base_path: Path) -> None:
        stock(self, base_path)
        described = _described(folder)
        by_text = merge_scores(described)
        vocabulary = {number: text for text, number in described["model"]["vocab"].items()}
        self._scores = {n: by_text[text] for n, text in vocabulary.items() if text in by_text}

    gguf.LlamaHfVocab.__init__ = init
    gguf.LlamaHfVocab.get_token_score = lambda self, number: self._scores.get(number, -1e6)


def _refuse_foreign_code() -> None:
    """Some of the scripts would run code from the model's folder."""
    import transformers

    for kind in (
        transformers.AutoConfig,
        transformers.AutoModel,
        transformers.AutoProcessor,
        transformers.AutoTokenizer,
    ):
        stock: Any = kind.from_pretrained

        def from_pretrained(*arguments: Any, stock: Any = stock, **options: Any) -> Any:
            return stock(*arguments, **{**options, "trust_remote_code": False})

        kind.from_pretrained = staticmethod(from_pretrained)  # type: ignore[method-assign]


def _write_outlines(gguf: Any) -> None:
    def write_tensors_to_file(self: Any, *, progress: bool = False) -> None:
        self.write_ti_data_to_file()
        for out, tensors in zip(self.fout, self.tensors, strict=True):
            self.write_padding(out, out.tell())
            body = sum(self.ggml_pad(tensor.nbytes, self.data_alignment) for tensor in tensors.values())
            out.truncate(out.tell() + body)

    gguf.GGUFWriter.write_tensors_to_file = write_tensors_to_file


def main() -> None:
    """Patch, then run the script as if it had been called."""
    converter, name, *arguments = sys.argv[1:]
    outline = arguments[:1] == ["--outline"]
    script = Path(converter) / name
    sys.path[:0] = [converter, str(Path(converter) / "gguf-py")]
    import gguf  # the converter's own copy
    from conversion.base import TextModel  # type: ignore[import-not-found]

    _refuse_foreign_code()
    folder = Path(arguments[-1])
    _teach_splits(TextModel)
    _teach_types(gguf, folder)
    _teach_merges(gguf, folder)
    if outline:
        _write_outlines(gguf)
    sys.argv = [str(script), *arguments[outline:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
