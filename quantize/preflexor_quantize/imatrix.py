"""Which columns of each weight matter: the mean squares of what they are multiplied with, on a calibration text.

Read from llama.cpp's own graph while it computes, so a GGUF file is enough and the names are those of its tensors.
Feed-forward experts count the tokens that are routed to them.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml

from preflexor_agents.errors import InputError, PreflexorError
from preflexor_quantize.engine import Engine
from preflexor_quantize.files import Watch, Written, ignore

WINDOW_TOK, MOST_WINDOWS = 256, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """An importance matrix."""

    values: dict[str, np.ndarray]
    """Tensor -> mean square of each of its columns, (columns,) or (experts x columns,)."""
    windows: int
    dataset: str
    """What it was collected on, in words."""


class _Tensor(ctypes.Structure):
    """The head of llama.cpp's `ggml_tensor`; `_check_layout` sees that it is still so."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]
libggml.ggml_op_desc.restype = libggml.ggml_get_name.restype = ctypes.c_char_p
libggml.ggml_op_desc.argtypes = libggml.ggml_get_name.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]


class _Sums:
    """Adds up squares as the nodes are computed."""

    def __init__(self) -> None:
        self.squares: dict[str, np.ndarray] = {}
        self.rows: dict[str, np.ndarray] = {}
        self.strange = False

    def take(self, pointer: int, asks: bool) -> bool:
        """llama.cpp asks whether a node is of interest, and later shows it."""
        kind = libggml.ggml_op_desc(pointer)
        if kind not in (b"MUL_MAT", b"MUL_MAT_ID"):
            return not asks
        node = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
        weight, given = node.src[0].contents, node.src[1].contents
        if weight.name != libggml.ggml_get_name(ctypes.byref(weight)):
            self.strange = True
        if self.strange or not weight.name.endswith(b".weight"):
            return not asks
        if not asks:
            routes = _read(node.src[2].contents, np.int32)[0, 0] if kind == b"MUL_MAT_ID" else None
            self._add(weight.name.decode(), _read(given, np.float32), routes, experts=int(weight.ne[2]))
        return True

    def _add(self, name: str, given: np.ndarray, routes: np.ndarray | None, *, experts: int) -> None:
        """`given` is (.., tokens, columns), with routes (1, tokens, used or 1, columns); `routes` (tokens, used)."""
        columns = given.shape[-1]
        if name not in self.squares:
            count = experts if routes is not None else 1
            self.squares[name] = np.zeros((count, columns))
            self.rows[name] = np.zeros(count)
        squares = given.astype(np.float64) ** 2
        if routes is None:
            flat = squares.reshape(-1, columns)
            self.squares[name][0] += flat.sum(axis=0)
            self.rows[name][0] += len(flat)
            return
        chosen = np.broadcast_to(squares[0], (*routes.shape, columns)).reshape(-1, columns)
        np.add.at(self.squares[name], routes.ravel(), chosen)
        np.add.at(self.rows[name], routes.ravel(), 1)

    def means(self) -> dict[str, np.ndarray]:
        """Mean squares; an expert that no token came to gets the mean of the others."""
        found = {}
        for name, squares in self.squares.items():
            rows = self.rows[name][:, None]
            means = np.where(rows > 0, squares / np.maximum(rows, 1), squares.sum(axis=0) / max(rows.sum(), 1))
            found[name] = means.astype(np.float32).ravel()
        return found


def _read(tensor: _Tensor, kind: type[np.generic]) -> np.ndarray:
    """The numbers of a tensor, whose rows may lie apart in memory."""
    shape = tuple(int(n) for n in reversed(tensor.ne[:]))
    strides = tuple(int(n) for n in reversed(tensor.nb[:]))
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + np.dtype(kind).itemsize
    raw = np.empty(last, dtype=np.uint8)
    libggml.ggml_backend_tensor_get(ctypes.byref(tensor), raw.ctypes.data, 0, last)
    return np.ndarray(shape, kind, buffer=raw.data, strides=strides)


def windows_of(tokens: Sequence[int], *, window_tok: int, most: int) -> list[Sequence[int]]:
    """Whole windows spread evenly over the tokens; the only one may be shorter."""
    starts = range(0, max(len(tokens) - window_tok, 0) + 1, window_tok)
    step = max(1, len(starts) / most)
    chosen = [starts[int(n * step)] for n in range(min(most, len(starts)))]
    return [tokens[start : start + window_tok] for start in chosen]


def collect(source: Path, text: str, *, dataset: str, watch: Watch = ignore) -> Importance:
    """Run the calibration text through a model, at most MOST_WINDOWS windows of it.

    Raises:
        ModelError: the file cannot be loaded.
        InputError: the text is too short to say anything.
        PreflexorError: this build of llama.cpp lays out its tensors otherwise.
    """
    sums = _Sums()

    @llama_cpp.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
    def on_node(pointer: int, asks: bool, _: Any) -> bool:
        return sums.take(pointer, asks)

    with Engine(source, context_tok=WINDOW_TOK, on_node=on_node) as engine:
        tokens = engine.tokens_of(text)
        if len(tokens) < WINDOW_TOK // 2:
            raise InputError(f"the calibration text {dataset} has {len(tokens)} tokens; give {WINDOW_TOK} or more")
        windows = windows_of(tokens, window_tok=engine.context_tok, most=MOST_WINDOWS)
        for n, window in enumerate(windows):
            engine.logits(window, first=len(window) - 1)
            watch(Written("importance", n + 1, len(windows)))
    if sums.strange or not sums.squares:
        raise PreflexorError(
            f"llama-cpp-python {llama_cpp.__version__} shows no inputs of its layers; "
            "leave out --calibrate, or install the version that constraints.txt names"
        )
    return Importance(values=sums.means(), windows=len(windows), dataset=dataset)
