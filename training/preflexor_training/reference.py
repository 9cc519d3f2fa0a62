"""The reference's log-probs of the tokens in the loss, kept on disk by what they depend on.

They are computed once when rows are written, in batches of their own, and are then the same numbers in every pass and
after every resume. The key covers the ids, the mask and the reference's weights and precision, so that no other
setting can take over numbers that are not its own.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from preflexor_agents.errors import TrainingError
from preflexor_training.tokenized import Masked, Reference

Compute = Callable[[Sequence[Masked]], Sequence[Reference]]


class References:
    """Log-probs under one reference, in a folder of safetensors files that are only ever added to."""

    def __init__(self, folder: Path, *, weights: str, batch_tok: int) -> None:
        """Read what is there; a file that is damaged is left out, and its rows are computed again.

        Args:
            folder: made when something is added.
            weights: what tells the reference's weights and precision from others.
            batch_tok: most tokens of a forward, a longer pair's alone excepted.
        """
        self._folder, self._weights, self._batch_tok = folder, weights, batch_tok
        self._known: dict[str, Reference] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self._read(file)

    def __getitem__(self, row: Masked) -> Reference:
        """Of a row that `add` was called with. Raises KeyError for another."""
        return self._known[self.key(row)]

    def __contains__(self, row: Masked) -> bool:
        return self.key(row) in self._known

    def key(self, row: Masked) -> str:
        """What a row's numbers depend on."""
        digest = sha256(self._weights.encode())
        parts = (row.pair.prompt, row.pair.chosen.ids, row.chosen, row.pair.rejected.ids, row.rejected)
        for part in parts:
            digest.update(f"|{len(part)}|".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def add(self, rows: Sequence[Masked], compute: Compute, *, share: tuple[int, int] = (0, 1)) -> None:
        """Compute what is missing.

        Rows are grouped by length the same way whatever is there already, so that an interrupted call ends with the
        same numbers.

        Args:
            rows: of one call; a row that is there twice is computed once.
            compute: makes the numbers of a group, in order.
            share: this process and how many there are; each takes its groups, and reads the others' afterwards.
        """
        wanted = list({self.key(row): row for row in rows}.items())
        for number, group in enumerate(self._groups(wanted)):
            if number % share[1] == share[0] and any(key not in self._known for key, _ in group):
                self._store(group, compute([row for _, row in group]))

    def reload(self, rows: Sequence[Masked]) -> None:
        """Read what other processes have added of these rows."""
        if any(row not in self for row in rows):
            for file in sorted(self._folder.glob("*.safetensors")):
                self._read(file)

    def _groups(self, rows: list[tuple[str, Masked]]) -> Iterator[list[tuple[str, Masked]]]:
        ordered = sorted(rows, key=lambda item: (length(item[1]), item[0]))
        group: list[tuple[str, Masked]] = []
        for item in ordered:
            if group and (len(group) + 1) * length(item[1]) > self._batch_tok:
                yield group
                group = []
            group.append(item)
        if group:
            yield group

    def _store(self, group: list[tuple[str, Masked]], found: Sequence[Reference]) -> None:
        """Keep what is new: a number, once used, never changes, though its row may be grouped with others later."""
        arrays: dict[str, NDArray[np.float32]] = {}
        for (key, _), reference in zip(group, found, strict=True):
            if key not in self._known:
                self._known[key] = reference
                arrays |= {f"{key}.chosen": reference.chosen, f"{key}.rejected": reference.rejected}
        name = sha256("".join(key for key, _ in group).encode()).hexdigest()[:32]
        file = self._folder / f"{name}.safetensors"
        fresh = self._folder / f"{name}.{os.getpid()}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, fresh)
            fresh.replace(file)
        except (OSError, SafetensorError) as e:
            fresh.unlink(missing_ok=True)
            raise TrainingError(f"{file} cannot be written: {' '.join(str(e).split())[:160]}; make room") from None

    def _read(self, file: Path) -> None:
        try:
            arrays = load_file(file)
        except (OSError, SafetensorError):
            return
        for name, chosen in arrays.items():
            key, _, side = name.partition(".")
            if side == "chosen" and f"{key}.rejected" in arrays:
                self._known[key] = Reference(chosen, arrays[f"{key}.rejected"])


def length(row: Masked) -> int:
    """Tokens of a pair behind one copy of its prompt."""
    return len(row.pair.prompt) + len(row.pair.chosen.ids) + len(row.pair.rejected.ids)
