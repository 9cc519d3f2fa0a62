"""Two replies behind one prompt: mlx-lm's models take their keys and values from caches, and these remember gradients.

The prompts run once and leave their keys and values in a `PromptCache` of each layer; the replies run with a
`ReplyCache` that puts the prompt's before their own. Positions and masks come from the caches too, so this works with
every architecture whose attention asks its cache for them.
"""

from collections.abc import Sequence

import mlx.core as mx


class PromptCache:
    """Keeps what one layer makes of the prompts, (B, H, P, D)."""

    def __init__(self, pads: Sequence[int]) -> None:
        """Prompts with so many columns of padding at the left."""
        self.pads = tuple(pads)
        self.offset: int | mx.array = -mx.array(self.pads) if any(self.pads) else 0
        """Position of the first column."""
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def kept(self) -> tuple[mx.array, mx.array]:
        """Keys and values. Raises ValueError if the prompts have not been run through this layer."""
        if self.keys is None or self.values is None:
            raise ValueError("the prompts have not been run through this layer")
        return self.keys, self.values

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keep keys and values, and give them back."""
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(
        self, N: int, *, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str:  # mlx-lm's names
        """Each token sees those before it; padding sees padding, so that every row has something to see."""
        if not any(self.pads) and window_size is None and not return_array:
            return "causal"
        rows, columns = mx.arange(N)[:, None], mx.arange(N)[None]
        mask = _causal(rows, columns, window_size)
        pads = mx.array(self.pads)[:, None, None, None]
        return mask & ((columns >= pads) | (rows < pads))


class ReplyCache:
    """Puts what a layer made of the prompts before what it makes of 2B replies, the chosen ones first."""

    def __init__(self, prompt: PromptCache) -> None:
        """Go on after the prompts."""
        self.keys, self.values = prompt.kept()
        self.width = int(self.keys.shape[2])
        """Columns of the prompts."""
        self.pads = prompt.pads
        whole = [self.width - pad for pad in prompt.pads]
        self.offset: int | mx.array = mx.array([*whole, *whole]) if any(prompt.pads) else self.width
        """Position of a reply's first token."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The prompt's and the reply's, (2B, H, P + L, D)."""
        return mx.concatenate([_twice(self.keys), keys], axis=2), mx.concatenate([_twice(self.values), values], axis=2)

    def make_mask(
        self, N: int, *, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str:  # mlx-lm's names
        """Each token sees its prompt and what is before it in its reply."""
        if not any(self.pads) and window_size is None and not return_array:
            return "causal"
        rows, columns = self.width + mx.arange(N)[:, None], mx.arange(self.width + N)[None]
        pads = mx.array([*self.pads, *self.pads])[:, None, None, None]
        return _causal(rows, columns, window_size) & (columns >= pads)


def _causal(rows: mx.array, columns: mx.array, window_tok: int | None) -> mx.array:
    mask = rows >= columns
    return mask if window_tok is None else mask & (rows < columns + window_tok)


def _twice(x: mx.array) -> mx.array:
    return mx.concatenate([x, x], axis=0)
