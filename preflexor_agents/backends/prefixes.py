"""What is in the cache of a context: sequences that share beginnings, the recently used ones kept while there is room.

Prompts are shared in whole sixteens, and evaluated in pieces of some more. On CPUs the keys and values of a prompt are
then the same to the last bit, however much of it was there.
"""

import ctypes
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from preflexor_agents.backends.context import Context
from preflexor_agents.backends.pieces import LEAST_TOK, shared_tok

SAVED_BYTES = 256 << 20
"""Most memory for the states of sequences that had to leave the cache."""
KEPT_TOK = 64
"""Idle cells up to which nothing leaves when a prompt is begun: on a CPU every step looks at all cells in use, and
1,000 idle ones slow nano and a model of 170M parameters down by a quarter."""
QUICK_BYTES = SAVED_BYTES // 16
"""Most bytes of a state that is put back within milliseconds, and of which many fit into memory."""
SCRATCH_TOK = 64
"""Room in a slot for trying things out."""
SHARE_TOK = 16
"""Only so many tokens at a time are shared: quantised weights are computed four rows at once, and an odd number of them
gives other last bits."""
_WORTH_SAVING_TOK = 32
"""Of a prompt, beyond what others have; putting a token back takes a hundredth of computing it."""
_WORN_TOK = 256


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence in the cache."""

    number: int
    """llama.cpp's id of it."""
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    """Which cell each token lies in; sequences that share a beginning name the same ones."""
    asked: int = 0
    """How many of the tokens it was given; the others were written."""
    live: bool = False
    """Whether somebody writes in it; else it is kept for its beginning."""


@dataclass(frozen=True, slots=True)
class _Saved:
    tokens: list[int]
    state: "ctypes.Array[ctypes.c_uint8]"


def alike_tok(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens of `b` that can be taken over from `a`: whole SHARE_TOK, at least LEAST_TOK left out."""
    return shared_tok(a[: max(0, len(b) - LEAST_TOK)], b, step=SHARE_TOK)


class Prefixes:
    """The sequences of one context. Belongs to the context's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slots: OrderedDict[int, Slot] = OrderedDict((n, Slot(n)) for n in range(context.sequences))
        """Least recently used first."""
        self._users: Counter[int] = Counter()
        """How many slots a cell is in."""
        self._cell = count()
        self._saved: OrderedDict[tuple[int, ...], _Saved] = OrderedDict()

    @property
    def used(self) -> int:
        """Cells that hold something."""
        return len(self._users)

    def live_cells(self) -> int:
        """Cells that hold something of a live sequence."""
        return len(set[int]().union(*(slot.cells for slot in self._slots.values() if slot.live)))

    def best(self, prompt: Sequence[int]) -> int:
        """Tokens of the prompt that need not be evaluated."""
        kept = (alike_tok(slot.tokens, prompt) for slot in self._slots.values())
        saved = (alike_tok(saved.tokens, prompt) for saved in self._saved.values())
        return max((*kept, *saved), default=0) if self._context.shares else self._own(prompt)

    def open(self, prompt: Sequence[int]) -> Slot:
        """A live slot that holds as much of the prompt's beginning as was in the cache or saved from it."""
        if not self._context.shares:
            return self._opened_alone(prompt)
        donor = max(self._slots.values(), key=lambda slot: alike_tok(slot.tokens, prompt))
        length = alike_tok(donor.tokens, prompt)
        saved = max(self._saved.values(), key=lambda saved: alike_tok(saved.tokens, prompt), default=None)
        if saved is not None and alike_tok(saved.tokens, prompt) > length:
            slot = self._vacant(besides=donor)
            slot.live = True
            if self._restore(slot, saved):
                self.cut(slot, alike_tok(saved.tokens, prompt))
            else:
                self.share(donor, slot, alike_tok(donor.tokens, prompt))  # it may have had to leave meanwhile
        elif self._is_worn(donor, length):
            slot = donor
            slot.live = True
            self.cut(slot, length)
        else:
            slot = self._vacant(besides=donor)
            slot.live = True
            self.share(donor, slot, length)
        slot.asked = len(prompt)
        self._touch(slot)
        self._trim()
        return slot

    def share(self, source: Slot, target: Slot, length: int) -> None:
        """Let an empty slot have the first `length` tokens of another."""
        if not length:
            return
        self._context.copy(source.number, target.number, length)
        target.tokens = source.tokens[:length]
        target.cells = source.cells[:length]
        target.asked = length
        self._users.update(target.cells)

    def add(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Note that tokens were evaluated at the end of a slot."""
        cells = [next(self._cell) for _ in tokens]
        slot.tokens += tokens
        slot.cells += cells
        self._users.update(cells)

    def cut(self, slot: Slot, length: int) -> None:
        """Forget what a slot has from `length` on."""
        if not self._context.cut(slot.number, length):
            length = 0
        for cell in slot.cells[length:]:
            self._users[cell] -= 1
            if not self._users[cell]:
                del self._users[cell]
        del slot.tokens[length:], slot.cells[length:]

    def release(self, slot: Slot) -> None:
        """Keep a slot for its beginning only."""
        slot.live = False
        self._touch(slot)

    def _trim(self) -> None:
        """Let idle sequences that can be put back quickly leave, beyond KEPT_TOK cells."""
        if not self._context.saves:
            return
        live = self.live_cells()
        for slot in list(self._slots.values()):
            if self.used - live <= KEPT_TOK:
                return
            if slot.tokens and not slot.live and self._context.state_bytes(slot.number) <= QUICK_BYTES:
                self._save(slot)
                self.cut(slot, 0)

    def make_room(self, cells: int) -> bool:
        """Let idle sequences go, least recently used first, until so many cells are free; False if there are not."""
        for slot in list(self._slots.values()):
            if self.used + cells <= self._context.cells:
                return True
            if slot.tokens and not slot.live:
                self._save(slot)
                self.cut(slot, 0)
        return self.used + cells <= self._context.cells

    def scratch(self, sequences: int) -> list[Slot]:
        """So many empty slots with room for SCRATCH_TOK tokens each, not live; none if there is no room."""
        slots = [slot for slot in self._slots.values() if not slot.live][:sequences]
        if len(slots) < sequences or not self.make_room(SCRATCH_TOK * sequences):
            return []
        for slot in slots:
            self._save(slot)
            self.cut(slot, 0)
        return slots

    def _touch(self, slot: Slot) -> None:
        self._slots.move_to_end(slot.number)

    def _vacant(self, *, besides: Slot) -> Slot:
        """An empty slot; else the least recently used idle one, emptied. At most half of all are live at a time."""
        idle = [slot for slot in self._slots.values() if not slot.live and slot is not besides]
        slot = next((slot for slot in idle if not slot.tokens), idle[0])
        if slot.tokens:
            self._save(slot)
            self.cut(slot, 0)
        return slot

    def _is_worn(self, donor: Slot, length: int) -> bool:
        """Whether a slot is idle and has little besides what is asked for, so that it can as well be written over."""
        lost, prompt_lost = len(donor.tokens) - length, donor.asked - length
        return not donor.live and length > 0 and lost < _WORN_TOK and prompt_lost < _WORTH_SAVING_TOK

    def _own(self, prompt: Sequence[int]) -> int:
        """What can be kept where sequences can not be cut: a prompt that goes on after all of one."""
        whole = (
            len(s.tokens) for s in self._slots.values() if not s.live and s.tokens == list(prompt[: len(s.tokens)])
        )
        return max((length for length in whole if length < len(prompt)), default=0)

    def _opened_alone(self, prompt: Sequence[int]) -> Slot:
        length = self._own(prompt)
        idle = [slot for slot in self._slots.values() if not slot.live]
        slot = (
            next(s for s in idle if len(s.tokens) == length and s.tokens == list(prompt[:length]))
            if length
            else idle[0]
        )
        if not length:
            self.cut(slot, 0)
        slot.live = True
        self._touch(slot)
        return slot

    def _save(self, slot: Slot) -> None:
        """Keep the state of a prompt that leaves the cache, if it has some that no other one begins with."""
        if not self._context.saves:
            return
        length = min(len(slot.tokens), slot.asked) // SHARE_TOK * SHARE_TOK
        whole = [*slot.tokens[:length], -1]
        others = [saved.tokens for saved in self._saved.values()]
        others += [other.tokens for other in self._slots.values() if other is not slot]
        known = max((shared_tok(tokens, whole, step=SHARE_TOK) for tokens in others), default=0)
        if length - known < _WORTH_SAVING_TOK:
            return
        self.cut(slot, length)
        if self._context.state_bytes(slot.number) > SAVED_BYTES:
            return
        self._saved[tuple(slot.tokens)] = _Saved(slot.tokens[:], self._context.state(slot.number))
        while sum(ctypes.sizeof(saved.state) for saved in self._saved.values()) > SAVED_BYTES:
            self._saved.popitem(last=False)

    def _restore(self, slot: Slot, saved: _Saved) -> bool:
        """Put a state into an empty slot; False if there is no room for it."""
        if not self.make_room(len(saved.tokens)) or not self._context.restore(slot.number, saved.state):
            return False
        self.add(slot, saved.tokens)
        key = tuple(saved.tokens)
        if key in self._saved:  # else making room has just let it go
            self._saved.move_to_end(key)
        return True
