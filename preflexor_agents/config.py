"""What a run is asked to do: sampling, protocol, budgets, and the two presets.

`paper` is the published algorithm (PRefLexOR, arXiv 2410.12375); `default` is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from preflexor_agents.errors import ConfigError

Variant = Literal["critic", "self"]
Integrate = Literal["never", "always", "or_select"]
PRESETS = ("default", "paper")


def _check(name: str, value: object, ok: bool, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 0.1
    """0 is greedy. Default: thinker and improver of the published inference."""
    top_k: int = 50
    """Candidates kept by rank. Default: published."""
    top_p: float = 0.9
    """Candidates kept by mass. Default: published."""
    repeat_penalty: float = 1.0
    """1.0 is off. Default: published."""
    max_tok: int = 3000
    """Most tokens generated in one call. Default: published."""

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, self.temperature >= 0, "0 or more")
        _check("top_k", self.top_k, self.top_k >= 0, "0 (off) or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0 and at most 1")
        _check("repeat_penalty", self.repeat_penalty, self.repeat_penalty > 0, "more than 0")
        _check("max_tok", self.max_tok, self.max_tok >= 1, "1 or more")


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectConfig:
    """The protocol of one run. Round 1 is the draft; each later round criticises and revises it."""

    preset: str = "default"
    """Name of the preset this came from; kept in the trace."""
    variant: Variant = "critic"
    """`critic`: a second voice criticises the thinking. `self`: the model's own reflection is the feedback."""
    rounds: int = 3
    """Answers written one after the other, the draft included. Default: N of the published notebook."""
    candidates: int = 1
    """Drafts to choose from in round 1; 1 writes no comparison."""
    candidate_temperature: float = 0.8
    """Temperature of the drafts when there are several: equal drafts are not worth comparing."""
    gate: bool = True
    """Take a revision only if a blind judge, asked in both orders, finds it better."""
    integrate: Integrate = "or_select"
    """`or_select`: the merged answer must win against the best answer, else the best answer stays."""
    converge: bool = True
    """Stop when the critic finds nothing to change or a revision changes nothing."""
    retrieve_every_round: bool = True
    """Search the store again before each revision, with the critique added to the query."""
    passages: int = 5
    """Passages put before the model from the store. Default: they hold the fact that is asked for in 99 % of questions
    about the bundled library, and both facts of a comparison in 60 % (3: 88 and 36 %, 8: 100 and 89 %; `hash` embedder,
    benchmarks/retrieval.py)."""
    thinker: Sampling = field(default_factory=Sampling)
    """Sampling of draft and answer."""
    improver: Sampling = field(default_factory=Sampling)
    """Sampling of critic, reviser and integrator."""
    judge: Sampling = GREEDY
    """Sampling of the judge."""
    budget_tok: int = 16_384
    """Most tokens generated over the whole run."""
    budget_s: float = 600.0
    """Most seconds over the whole run."""
    seed: int = 0
    """Seeds every call; the same seed gives the same run where the backend can."""

    def __post_init__(self) -> None:
        _check("variant", self.variant, self.variant in ("critic", "self"), "critic or self")
        _check("rounds", self.rounds, 1 <= self.rounds <= 100, "1 to 100")
        _check("candidates", self.candidates, 1 <= self.candidates <= 64, "1 to 64")
        _check("candidate_temperature", self.candidate_temperature, self.candidate_temperature > 0, "more than 0")
        _check(
            "integrate",
            self.integrate,
            self.integrate in ("never", "always", "or_select"),
            "never, always or or_select",
        )
        _check("passages", self.passages, 1 <= self.passages <= 50, "1 to 50")
        _check("budget_tok", self.budget_tok, self.budget_tok >= 1, "1 or more")
        _check("budget_s", self.budget_s, self.budget_s > 0, "more than 0")
        _check("seed", self.seed, 0 <= self.seed < 2**31, "0 to 2147483647")


def paper(variant: Variant = "critic", n: int | None = None) -> ReflectConfig:
    """The published loop, call for call.

    Args:
        variant: `critic` makes 3n-1 calls (n answers), `self` makes 2n+2 (n improvements).
        n: N of the paper. Default: the notebook's, 3 for `critic` and 2 for `self`.
    """
    if n is None:
        n = 3 if variant == "critic" else 2
    rounds = n if variant == "critic" else n + 1
    return ReflectConfig(
        preset="paper",
        variant=variant,
        rounds=rounds,
        gate=False,
        integrate="always",
        converge=False,
        retrieve_every_round=False,
        budget_tok=1_000_000,
        budget_s=86_400.0,
    )


def preset(name: str) -> ReflectConfig:
    """The named preset. Raises ConfigError for a name that is not one of PRESETS."""
    if name == "default":
        return ReflectConfig()
    if name == "paper":
        return paper()
    raise ConfigError(f"preset {name!r} is unknown; use one of: {', '.join(PRESETS)}")


def from_dict(data: Mapping[str, Any]) -> ReflectConfig:
    """The inverse of `dataclasses.asdict`. Raises ConfigError for an unknown field or a value out of range."""
    known = {f.name: f for f in fields(ReflectConfig)}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            raise ConfigError(f"config field {name!r} is unknown; known: {', '.join(known)}")
        values[name] = _sampling(name, value) if name in ("thinker", "improver", "judge") else value
    return ReflectConfig(**values)


def _sampling(name: str, value: Any) -> Sampling:
    if isinstance(value, Sampling):
        return value
    allowed = {f.name for f in fields(Sampling)}
    if not isinstance(value, Mapping) or value.keys() - allowed:
        raise ConfigError(f"config field {name!r} is {value!r}; it must hold only: {', '.join(sorted(allowed))}")
    return Sampling(**value)
