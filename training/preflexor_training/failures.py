"""What can go wrong in a step, in one line that names the step, the rows and the remedy."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from preflexor_agents.errors import TrainingError
from preflexor_training.tokenized import Masked

MEMORY = (RuntimeError, MemoryError)
"""What torch and MLX raise when memory runs out, among other things; see `check_memory`."""
_MEMORY_WORDS: tuple[str, ...] = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "failed to allocate",
    "insufficient memory",
)
_MEMORY_WORDS += ("attempting to allocate", "unable to allocate")


def check_memory(error: BaseException, *, step: int, rows: Sequence[Masked]) -> None:
    """Raises TrainingError if the error means that memory ran out; else nothing happens."""
    words = line(error).lower()
    if not isinstance(error, MemoryError) and not any(w in words for w in _MEMORY_WORDS):
        return
    raise TrainingError(
        f"step {step}: out of memory on {_longest(rows)} of {named(rows)}; set step.gradient_checkpointing = true, or"
        " lower batch_pairs or max_length_tok"
    ) from None


def check_numbers(
    metrics: Mapping[str, float], margin_most: float, *, step: int, rows: Sequence[Masked], limit: float
) -> None:
    """Raises TrainingError if a number of a step is none, or the margin has exploded."""
    bad = next((name for name in ("loss", "grad_norm", "margin") if not math.isfinite(metrics[name])), None)
    if bad is not None:
        raise TrainingError(
            f"step {step}: {bad} is {metrics[bad]} on {named(rows)}; lower learning_rate (it was {metrics['lr']:g}) or"
            " max_grad_norm, and resume from the last checkpoint"
        )
    if margin_most > limit:
        raise TrainingError(
            f"step {step}: a reward margin is {margin_most:.0f} nats, more than {limit:.0f}, on {named(rows)}; lower"
            f" learning_rate (it was {metrics['lr']:g}) or beta"
        )


def check_rows(rows: Sequence[Masked], *, vocabulary: int, context_tok: int) -> None:
    """Raises TrainingError for the first row that the model cannot read."""
    for row in rows:
        pair = row.pair
        replies = (pair.chosen, pair.rejected)
        if not len(pair.prompt) or not all(len(reply.ids) for reply in replies):
            raise TrainingError(f"row {pair.id} has an empty prompt or reply; take it out")
        if len(row.chosen) != len(pair.chosen.ids) or len(row.rejected) != len(pair.rejected.ids):
            raise TrainingError(f"row {pair.id} has a mask of another length than its reply; tokenise it again")
        most = max(int(ids.max()) for ids in (pair.prompt, pair.chosen.ids, pair.rejected.ids))
        least = min(int(ids.min()) for ids in (pair.prompt, pair.chosen.ids, pair.rejected.ids))
        if most >= vocabulary or least < 0:
            raise TrainingError(
                f"row {pair.id} has the token {most if least >= 0 else least}, the model {vocabulary}; tokenise it with"
                " the tokenizer of this base"
            )
        longest = len(pair.prompt) + max(len(reply.ids) for reply in replies)
        if longest > context_tok:
            raise TrainingError(
                f"row {pair.id} has {longest} tokens, the model takes {context_tok}; lower data.max_length_tok"
            )


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """What cannot be written is told in a line. Raises TrainingError."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        raise TrainingError(f"{place} cannot be written: {line(e)}; make room or name another folder") from None


def named(rows: Sequence[Masked]) -> str:
    """The rows by their ids, each once."""
    ids = list(dict.fromkeys(row.pair.id for row in rows))
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return f"row{'s' if len(ids) > 1 else ''} {', '.join(i[:40] for i in ids[:8])}{more}"


def line(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _longest(rows: Sequence[Masked]) -> str:
    lengths = [len(r.pair.prompt) + len(r.pair.chosen.ids) + len(r.pair.rejected.ids) for r in rows]
    return f"{max(lengths)} tokens"
