"""The call of llama.cpp that quantises a file, and the interruption that it has no way for."""

import ctypes
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from preflexor_agents.errors import PreflexorError
from preflexor_quantize.engine import threads
from preflexor_quantize.files import Watch, Written, ignore, size_of
from preflexor_quantize.ftypes import file_types
from preflexor_quantize.imatrix import Importance
from preflexor_quantize.llama_log import Line, log_lines, reason

_POLL_S = 0.1
_KV_INT, _KV_STR = 0, 3
_MOST_FDS = 4096


def dry_run(source: Path, type_name: str, *, importance: Importance | None = None) -> list[Line]:
    """What llama.cpp says that it would do. Raises as `quantize`."""
    return _call(source, Path(os.devnull), _params(type_name, importance, dry=True), what=type_name)


def quantize(
    source: Path,
    out: Path,
    type_name: str,
    *,
    importance: Importance | None = None,
    planned_bytes: int = 0,
    watch: Watch = ignore,
) -> None:
    """Write `source` as another type, in this process. Ctrl-c stops it at once.

    Args:
        source: a GGUF file of floats.
        out: where to; what is left there after a failure is the caller's to remove.
        type_name: one of `file_types()`.
        importance: which columns matter most.
        planned_bytes: size of `out`, for the progress.
        watch: takes the progress.

    Raises:
        PreflexorError: llama.cpp could not, with its reason.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            _call(source, out, _params(type_name, importance, dry=False), what=type_name)
        except PreflexorError as e:
            failed.append(e)

    thread = threading.Thread(target=work, name=f"quantize {type_name}")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            watch(Written(type_name, size_of(out), planned_bytes))
    except BaseException:
        while thread.is_alive():
            _fail_next_write(out)
            thread.join(_POLL_S)
        raise
    if failed:
        raise failed[0]


def _call(source: Path, out: Path, params: Any, *, what: str) -> list[Line]:
    with log_lines() as lines:
        code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), params)
    if code != 0:
        raise PreflexorError(f"{source.name} cannot be made {what}: {reason(lines)}")
    return lines


class _Params(llama_cpp.llama_model_quantize_params):
    """Keeps alive what its pointers lead to."""

    kept: tuple[object, ...] = ()


def _params(type_name: str, importance: Importance | None, *, dry: bool) -> Any:
    defaults = llama_cpp.llama_model_quantize_default_params()
    params = _Params.from_buffer_copy(defaults)
    params.ftype = file_types()[type_name]
    params.nthread = threads()
    params.dry_run = dry
    if importance is not None:
        matrix, columns = _matrix(importance.values)
        facts = _facts(importance)
        params.imatrix, params.kv_overrides = matrix, facts
        params.kept = (matrix, columns, facts)
    return params


def _matrix(values: Mapping[str, np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """llama.cpp's array, which ends at a missing name, and the numbers that it points to."""
    columns = [np.ascontiguousarray(column, dtype=np.float32).ravel() for column in values.values()]
    entries = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()
    for entry, name, column in zip(entries, values, columns, strict=False):
        entry.name = name.encode()
        entry.data = column.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = column.size
    return entries, columns


def _facts(importance: Importance) -> Any:
    """The metadata that tells what the importance matrix was made from, under llama.cpp's own names."""
    facts: dict[str, int | str] = {
        "quantize.imatrix.file": "(in memory)",
        "quantize.imatrix.dataset": importance.dataset,
        "quantize.imatrix.entries_count": len(importance.values),
        "quantize.imatrix.chunks_count": importance.windows,
    }
    overrides = (llama_cpp.llama_model_kv_override * (len(facts) + 1))()
    for override, (key, value) in zip(overrides, facts.items(), strict=False):
        override.key = key.encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = _KV_INT, value
        else:
            override.tag, override.value.val_str = _KV_STR, value.encode()[:120].decode(errors="ignore").encode()
    return overrides


def _fail_next_write(out: Path) -> None:
    """Put a handle that cannot be written in the place of llama.cpp's, which makes its call return with an error.

    The call can otherwise neither be stopped nor left: it would go on for minutes, and write on.
    """
    try:
        wanted = out.stat()
    except OSError:
        return
    for number in range(3, _MOST_FDS):
        try:
            found = os.fstat(number)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            unwritable = os.open(os.devnull, os.O_RDONLY)
            os.dup2(unwritable, number)
            os.close(unwritable)
