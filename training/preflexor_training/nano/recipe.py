"""A training recipe: one complete TOML file, read once and passed as a value."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from preflexor_agents.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a run, apart from where it is written."""

    seed: int
    vocab_size: int
    layers: int
    hidden: int
    heads: int
    ffn: int
    context: int
    """Positions the model is trained for."""
    batch_tok: int
    """Nodes of a step's token forest, about."""
    learning_rate: float
    """Of Muon; AdamW has the same, since Muon's update is scaled to AdamW's size."""
    circuit_rate: float
    """Share of the rate for the attention of the first two layers, which at the full rate forgets how to copy."""
    embedding_rate: float
    """Share of the rate for the embeddings, for the same reason."""
    warmup_steps: int
    decay_share: float
    """Last part of the budget in which the rate falls to zero."""
    budget_tok: int
    """Nodes to train on; the run ends at this or at `budget_seconds`, whichever comes first."""
    budget_seconds: float
    stage_ends: tuple[float, float]
    """Shares of the budget at which the curriculum moves to stages 1 and 2."""
    prompt_share: float
    prompt_weight: float
    stretched_share: float
    weights: dict[str, float] = field(default_factory=dict)
    """What a reply token of a task counts; 1 where nothing is said."""


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"recipe {path}: {error}; see training/recipes/nano.toml") from error
    known = {f.name for f in dataclasses.fields(Recipe)}
    needed = known - {"weights"}
    if wrong := sorted((set(values) - known) | (needed - set(values))):
        raise ConfigError(f"recipe {path}: unknown or missing {', '.join(wrong)}; see training/recipes/nano.toml")
    return Recipe(**{**values, "stage_ends": tuple(values["stage_ends"])})
