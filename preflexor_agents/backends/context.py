"""A llama.cpp context in which several sequences share one cache of keys and values."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import llama_cpp

from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.backends.pieces import LONG_PIECE_TOK
from preflexor_agents.errors import BackendError

SEQUENCES = 32
"""Sequences that a context can tell apart: those being written and those kept for their beginnings."""
RECURRENT_SEQUENCES = 8
"""The same where each has a recurrent state, which can take 100 MB."""

_strlen = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
"""Tells llama.cpp, hundreds of times a token, whether a CancelFlag is set. A Python function would have to wait for the
interpreter each time while another thread draws the screen."""


class Row(NamedTuple):
    """One token of a batch."""

    token: int
    position: int
    sequence: int
    wanted: bool
    """Whether a token will be drawn after it."""


class _Rows:
    """Memory for a batch, filled column by column: between two steps the processors have nothing to do."""

    def __init__(self) -> None:
        self._tokens = (llama_cpp.llama_token * LONG_PIECE_TOK)()
        self._positions = (llama_cpp.llama_pos * LONG_PIECE_TOK)()
        self._sequences = (llama_cpp.llama_seq_id * LONG_PIECE_TOK)()
        self._wanted = (ctypes.c_int8 * LONG_PIECE_TOK)()
        self._ones = (ctypes.c_int32 * LONG_PIECE_TOK)(*[1] * LONG_PIECE_TOK)
        one, first = ctypes.POINTER(llama_cpp.llama_seq_id), ctypes.addressof(self._sequences)
        size = ctypes.sizeof(llama_cpp.llama_seq_id)
        places = (ctypes.cast(first + n * size, one) for n in range(LONG_PIECE_TOK))
        self._places = (one * LONG_PIECE_TOK)(*places)
        columns = (self._tokens, None, self._positions, self._ones, self._places, self._wanted)
        self._batch = llama_cpp.llama_batch(0, *columns)

    def filled(self, rows: Sequence[Row]) -> llama_cpp.llama_batch:
        count = len(rows)
        tokens, positions, sequences, wanted = map(list, zip(*rows, strict=True))
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._sequences[:count] = sequences
        self._wanted[:count] = wanted
        self._batch.n_tokens = count
        return self._batch


class Context:
    """Not thread-safe: one thread makes, uses and closes it."""

    def __init__(self, pointer: int, *, cells: int, sequences: int, shares: bool, saves: bool) -> None:
        """Take over a context of llama.cpp with a unified cache and batches of LONG_PIECE_TOK.

        Args:
            pointer: llama.cpp's context.
            cells: tokens that its cache holds.
            sequences: how many it can tell apart.
            shares: whether a sequence can be copied or cut at any place; models with a recurrent state can not, and
                are not interrupted either, since a half-computed state cannot be taken back.
            saves: whether a state that is put back can be cut as well; llama.cpp leaves out of it what the last token
                does not see, so not where layers see a window of the text only.
        """
        self.cells = cells
        self.sequences = sequences
        self.shares = shares
        self.saves = saves
        self.interrupt = CancelFlag()
        """Aborts an `evaluate` that is told no other flag."""
        self._heeded: CancelFlag | None = None
        """What llama.cpp looks at."""
        self.busy_threads = 0 if llama_cpp.llama_supports_gpu_offload() else int(llama_cpp.llama_n_threads(pointer))
        """Threads that compute all the time while `evaluate` runs; 0 where a GPU may do it."""
        self._pointer = pointer
        self._memory = llama_cpp.llama_get_memory(pointer)
        self._rows = _Rows()

    def evaluate(self, rows: Sequence[Row], *, cancel: CancelFlag | None = None) -> bool:
        """Run tokens through the model; False if it was interrupted, and nothing of them is kept.

        Args:
            rows: at most LONG_PIECE_TOK.
            cancel: interrupts it; `interrupt` if not given.

        Raises:
            BackendError: llama.cpp could not.
        """
        cancel = cancel or self.interrupt
        if self.shares and cancel is not self._heeded:
            llama_cpp.llama_set_abort_callback(self._pointer, _strlen, cancel.address)
            self._heeded = cancel
        code = llama_cpp.llama_decode(self._pointer, self._rows.filled(rows))
        if code == 0:
            return True
        firsts: dict[int, int] = {}
        for row in rows:
            firsts.setdefault(row.sequence, row.position)
        for sequence, position in firsts.items():
            self.cut(sequence, position)
        if cancel.is_set():
            return False
        raise BackendError(f"llama.cpp could not evaluate {len(rows)} tokens (code {code}); open the model again")

    def draw(self, chain: int, row: int) -> int:
        """The next token after a wanted row of the last batch, by the sampler chain."""
        return int(llama_cpp.llama_sampler_sample(chain, self._pointer, row))

    def cut(self, sequence: int, length: int) -> bool:
        """Forget what a sequence has from `length` on; False if all of it had to be forgotten."""
        if llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty sequence have the first `length` tokens of another; takes no room."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def state_bytes(self, sequence: int) -> int:
        """Size of `state`."""
        return int(llama_cpp.llama_state_seq_get_size(self._pointer, sequence))

    def state(self, sequence: int) -> "ctypes.Array[ctypes.c_uint8]":
        """What the cache holds of a sequence, to be put back by `restore`."""
        out = (ctypes.c_uint8 * self.state_bytes(sequence))()
        llama_cpp.llama_state_seq_get_data(self._pointer, out, len(out), sequence)
        return out

    def restore(self, sequence: int, state: "ctypes.Array[ctypes.c_uint8]") -> bool:
        """Put a state into an empty sequence; False if there is no room for it."""
        return bool(llama_cpp.llama_state_seq_set_data(self._pointer, state, len(state), sequence))

    def close(self) -> None:
        """Free the context. Idempotent."""
        if self._pointer:
            llama_cpp.llama_free(self._pointer)
            self._pointer = 0
