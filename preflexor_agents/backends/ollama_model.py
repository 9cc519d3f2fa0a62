"""What an Ollama server says about one of its models, and what follows for the way we ask it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import ollama

from preflexor_agents.backends.ollama_server import quick
from preflexor_agents.errors import BackendError, ModelError

CONTEXT_TOK = 8192
"""Context asked for where the model's own settings name none; Ollama alone would take 4096 and cut silently."""
TAG_PAIRS = (("<|thinking|>", "<|/thinking|>"), ("<think>", "</think>"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaModel:
    """An installed model."""

    name: str
    thinks: bool
    """Whether the server tells its thinking apart (capability `thinking`)."""
    template: str
    tags: tuple[str, str]
    """The model's thinking tags; `<think>` where its template names none."""
    native_tags: bool
    context_tok: int
    stops: tuple[str, ...]
    """Stop strings of the model; a request that brings its own must repeat them."""
    parser: str
    """Name of the server's built-in parser for this model, if any."""
    weights: str
    """Digest of the weights' file, empty if not known."""


async def find_model(client: ollama.AsyncClient, name: str, *, url: str) -> OllamaModel:
    """Ask the server what `name` is.

    Raises:
        BackendError: no server there, or one that is not Ollama.
        ModelError: it has no such model, or one that cannot chat.
    """
    async with quick(url, name):
        installed = ", ".join(sorted(m.model or "" for m in (await client.list()).models)) or "none"
        if not name.strip():
            raise ModelError(f"no model is named after 'ollama:'; installed: {installed}")
        try:
            shown = await client.show(name)
        except ollama.ResponseError as e:
            if e.status_code not in (400, 404):
                raise
            lacks = f"Ollama has no model {name!r}; installed: {installed}; get it with: ollama pull {name}"
            raise ModelError(lacks) from e
    return _described(name, shown)


async def twins(client: ollama.AsyncClient, model: OllamaModel, *, url: str) -> tuple[str, ...]:
    """Loaded models with the same weights and another template.

    Ollama serves them from one runner and may answer the second through the first one's template (seen on a
    server of 2026-08). Where the server does not say, there are none.
    """
    found = []
    try:
        async with quick(url, model.name):
            loaded = [m.model for m in (await client.ps()).models if m.model] if model.weights else []
            for name in loaded:
                shown = await client.show(name)
                if _weights(shown) == model.weights and (shown.template or "") != model.template:
                    found.append(name)
    except BackendError:
        return ()
    return tuple(found)


def _described(name: str, shown: ollama.ShowResponse) -> OllamaModel:
    capabilities = shown.capabilities
    if capabilities is not None and "completion" not in capabilities:
        raise ModelError(f"{name} cannot chat (Ollama says: {', '.join(capabilities)}); name a chat model")
    template = shown.template or ""
    settings = _settings(shown.parameters or "")
    wanted = next((int(v) for v in settings.get("num_ctx", ()) if v.isdigit()), CONTEXT_TOK)
    longest = _context(shown.modelinfo or {})
    tags = next((pair for pair in TAG_PAIRS if pair[0] in template), None)
    thinks = "thinking" in (capabilities or ())
    parser = re.search(r"^PARSER (\S+)", shown.modelfile or "", re.MULTILINE)
    return OllamaModel(
        name=name,
        thinks=thinks,
        template=template,
        tags=tags or TAG_PAIRS[1],
        native_tags=thinks or tags is not None,
        context_tok=min(wanted, longest or wanted),
        stops=settings.get("stop", ()),
        parser=parser[1] if parser else "",
        weights=_weights(shown),
    )


def _settings(text: str) -> dict[str, tuple[str, ...]]:
    """The padded lines of /api/show, a name and a value each; a value may be quoted."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if value.startswith('"'):
            try:
                value = str(json.loads(value))
            except ValueError:
                value = value.strip('"')
        if key and value:
            found[key] = (*found.get(key, ()), value)
    return found


def _context(info: Mapping[str, object]) -> int:
    """Tokens that the model was made for; 0 if the server does not say."""
    length = info.get(f"{info.get('general.architecture')}.context_length")
    return length if isinstance(length, int) else 0


def _weights(shown: ollama.ShowResponse) -> str:
    found = re.search(r"^FROM .*sha256[-:]([0-9a-f]{64})", shown.modelfile or "", re.MULTILINE)
    return found[1] if found else ""
