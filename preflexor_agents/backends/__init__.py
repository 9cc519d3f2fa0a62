"""Models that can be asked, each opened by its SPEC. Nothing heavy is imported before a model is opened."""

from pathlib import Path

from preflexor_agents.backends.base import Backend
from preflexor_agents.errors import ModelError

FORMS = "nano (bundled), ollama:NAME, gguf:PATH, mlx:PATH, openai:NAME@BASE_URL"


async def open_backend(spec: str) -> Backend:
    """Open the model that a SPEC names, off the event loop.

    Raises:
        ModelError: the SPEC has no known form, or its model cannot be used.
        BackendError: the server that has the model does not answer.
    """
    file = local_file(spec)
    if file is not None:
        from preflexor_agents.backends.llamacpp import LlamaCppBackend

        return await LlamaCppBackend.open(file, spec=spec.strip())
    kind, _, name = spec.strip().partition(":")
    if kind == "ollama" and name:
        from preflexor_agents.backends.ollama import OllamaBackend

        return await OllamaBackend.open(name)
    if kind == "openai" and name:
        from preflexor_agents.backends.openai import OpenAIBackend

        return await OpenAIBackend.open(name)
    if kind == "mlx" and name:
        from preflexor_agents.backends.mlx import MlxBackend

        return await MlxBackend.open(Path(name).expanduser(), spec=spec.strip())
    raise ModelError(f"{spec!r} names no model; use one of: {FORMS}")


def local_file(spec: str) -> Path | None:
    """The GGUF file that a SPEC names, the bundled one included; None if the SPEC is of another form.

    Raises:
        ModelError: the bundled model is missing.
    """
    kind, colon, name = spec.strip().partition(":")
    if kind == "nano" and not colon:
        from preflexor_agents.backends.llamacpp import nano_path

        return nano_path()
    return Path(name).expanduser() if kind == "gguf" and name else None
