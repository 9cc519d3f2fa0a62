"""The rows of a phase as it goes on: tokenised, audited, and put into the steps of each round."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from preflexor_agents.backends.hf_tokens import load_tokenizer
from preflexor_training import tags
from preflexor_training.audit import Audit, examine
from preflexor_training.batches import plan
from preflexor_training.masks import masked
from preflexor_training.pair_log import Refresh
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.rendering import Renderer, renderer
from preflexor_training.tokenized import Masked, Step, TokenizedPair


@dataclass(slots=True)
class Rows:
    """What was made of the refreshes so far."""

    recipe: Recipe
    phase: Phase
    renderer: Renderer
    held_out: list[Masked] = field(default_factory=list)
    _old: list[TokenizedPair] = field(default_factory=list)
    _fresh: tuple[TokenizedPair, ...] = ()

    def take(self, refresh: Refresh) -> Audit:
        """Tokenise the rows of the next round; what is damaged is left out and counted."""
        self._old += self._fresh
        mask, data = self.recipe.mask(self.phase), self.recipe.data
        trained = examine(
            refresh.train, self.renderer, mask=mask, max_length_tok=data.max_length_tok, seed=self.recipe.seed
        )
        held = examine(
            refresh.held_out, self.renderer, mask=mask, max_length_tok=data.max_length_tok, seed=self.recipe.seed
        )
        self._fresh = trained.rows
        self.held_out += [masked(pair, mask, seed=self.recipe.seed) for pair in held.rows]
        return trained.audit

    def steps(self, round_: int) -> tuple[Step, ...]:
        """The optimizer steps of the round whose rows were taken last."""
        return plan(
            self._fresh,
            self._old,
            phase=self.phase,
            mask=self.recipe.mask(self.phase),
            round=round_,
            seed=self.recipe.seed,
            bucket_batches=self.recipe.step.bucket_batches,
        )


def open_renderer(base: Path, recipe: Recipe) -> Renderer:
    """The tokenizer of a base, with the tags, ready to render rows.

    Raises:
        ModelError: the folder has no tokenizer that can be loaded.
        ConfigError: the tags do not fit it.
    """
    tokenizer = load_tokenizer(base)
    tags.add(tokenizer, recipe.tags)
    return renderer(tokenizer, recipe.tags)


def audit_line(audit: Audit, refresh: Refresh, *, phase: Phase, round_: int) -> dict[str, Any]:
    """What audit.jsonl says about a round; `round` counts over the run, from 1."""
    plain = asdict(audit)
    for key in ("prompt_tok", "chosen_tok", "rejected_tok", "row_tok"):
        plain[key] = getattr(audit, key)._asdict()
    plain["examples"] = [drop._asdict() for drop in audit.examples]
    origin = {"generator": refresh.origin.generator, "unreadable": refresh.origin.unreadable}
    return {"round": round_, "phase": phase.name, **origin, "damaged_share": audit.damaged_share, **plain}


def step_numbers(step: Step) -> dict[str, float]:
    """What a step's rows look like: lengths in tokens, and the share of the replies that is not in the loss."""
    rows = [row for batch in step for row in batch]
    replies = sum(len(row.chosen) + len(row.rejected) for row in rows)
    learnt = sum(int(row.chosen.sum()) + int(row.rejected.sum()) for row in rows)
    return {
        "masked_fraction": 1 - learnt / replies,
        "prompt_tok": sum(len(row.pair.prompt) for row in rows) / len(rows),
        "chosen_tok": sum(len(row.chosen) for row in rows) / len(rows),
        "rejected_tok": sum(len(row.rejected) for row in rows) / len(rows),
    }


def referred(steps: tuple[Step, ...], held_out: list[Masked]) -> list[Masked]:
    """Every row with each of its masks once, for the reference."""
    seen: dict[tuple[str, bytes, bytes], Masked] = {}
    for row in [*(row for step in steps for batch in step for row in batch), *held_out]:
        seen.setdefault((row.pair.id, row.chosen.tobytes(), row.rejected.tobytes()), row)
    return list(seen.values())


def told(audit: Audit, round_: int, total: int) -> str:
    """An audit in a line."""
    dropped = ", ".join(f"{count} {kind}" for kind, count in audit.dropped.items())
    masked_share = (audit.masked_chosen + audit.masked_rejected) / 2
    return (
        f"round {round_} of {total}: {audit.kept} of {audit.rows} rows"
        + (f" ({dropped})" if dropped else "")
        + f", thinking in {audit.closed_chosen:.0%} of the chosen and {audit.closed_rejected:.0%} of the rejected,"
        f" {masked_share:.0%} masked, row lengths {audit.row_tok.least}-{audit.row_tok.most}"
    )
