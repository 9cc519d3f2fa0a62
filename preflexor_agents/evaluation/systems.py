"""What is measured: a model under a protocol, which is a preset with changes: `default:candidates=4,gate=off`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from preflexor_agents.config import ReflectConfig, paper
from preflexor_agents.errors import ConfigError

BARE = "answer"
"""One call that writes the answer at once, with no thinking: the no-op baseline."""
_PRESETS: Mapping[str, ReflectConfig] = {
    "think": ReflectConfig(rounds=1, integrate="never", preset="think"),
    "default": ReflectConfig(),
    "gate": ReflectConfig(integrate="never", preset="gate"),
    "revise": ReflectConfig(gate=False, converge=False, integrate="never", preset="revise"),
    "best-of": ReflectConfig(rounds=1, candidates=4, integrate="never", preset="best-of"),
    "paper": paper(),
    "paper-self": paper("self"),
}
PROTOCOLS: Mapping[str, str] = {
    BARE: "one call, the answer without thinking",
    "think": "one call, thinking and answer",
    "default": "draft, critique, revision; a blind judge decides; integrate or select",
    "gate": "as default, without integrating",
    "revise": "always take the revision",
    "best-of": "4 drafts, the best by the judge",
    "paper": "the published loop with a critic",
    "paper-self": "the published loop with the model's own reflection",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row of the table."""

    name: str
    model: str
    """SPEC of the model that plays every role."""
    protocol: str
    """As it was written."""
    config: ReflectConfig | None
    """None answers in one bare call."""


def system(text: str, *, budget_tok: int | None = None, budget_s: float | None = None) -> System:
    """The system in `[NAME=]MODEL[::PROTOCOL[:KEY=VALUE,…]]`, as `tuned=gguf:a.gguf::default:rounds=2`.

    Raises:
        ConfigError: the protocol, a key or a value is unknown; names it and what is known.
    """
    head, _, protocol = text.partition("::")
    name, equals, model = head.partition("=")
    if not equals or "/" in name or ":" in name:
        name, model = "", head
    protocol = protocol or "default"
    if not model.strip():
        raise ConfigError(f"system {text!r} names no model; write it like nano::default or base=ollama:qwen3:4b::think")
    limits = {key: value for key, value in (("budget_tok", budget_tok), ("budget_s", budget_s)) if value is not None}
    config = _config(protocol, limits)
    return System(
        name=name.strip() or f"{model.strip()} {protocol}", model=model.strip(), protocol=protocol, config=config
    )


def _config(protocol: str, limits: Mapping[str, Any]) -> ReflectConfig | None:
    kind, _, changes = protocol.partition(":")
    if kind == BARE:
        if changes:
            raise ConfigError(f"protocol {BARE!r} has no settings, not {changes!r}")
        return None
    if kind not in _PRESETS:
        raise ConfigError(f"protocol {kind!r} is unknown; use one of: {', '.join(PROTOCOLS)}")
    values = dict(_change(kind, part) for part in changes.split(",") if part.strip())
    return replace(_PRESETS[kind], **{**limits, **values})


def _change(kind: str, part: str) -> tuple[str, Any]:
    key, equals, said = (piece.strip() for piece in part.partition("="))
    known = {f.name: getattr(_PRESETS[kind], f.name) for f in fields(ReflectConfig) if f.name not in ("preset", "seed")}
    plain = {key: value for key, value in known.items() if isinstance(value, bool | int | float | str)}
    if not equals or key not in plain:
        raise ConfigError(f"{part.strip()!r} changes nothing of protocol {kind}; known keys: {', '.join(plain)}")
    before = plain[key]
    if isinstance(before, bool):
        if said not in ("on", "off"):
            raise ConfigError(f"{key} is {said!r}; it must be on or off")
        return key, said == "on"
    try:
        return key, type(before)(said)
    except ValueError:
        raise ConfigError(f"{key} is {said!r}; it must be a number") from None
