import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from autogen_core import ComponentLoader

from preflexor_agents.autogen.loader import ENV

if TYPE_CHECKING:
    from tests.autogen.local_models import Counts

Writer = Callable[..., str]


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Writes a small GGUF file with the given properties, once for each set of them."""
    pytest.importorskip("gguf", reason="needs the quantize extra")
    from tests.fakes.tiny_gguf import write_gguf

    folder = tmp_path_factory.mktemp("client-models")
    written: dict[str, str] = {}

    def write(properties: dict[str, Any], **more: Any) -> str:
        key = repr(sorted({**properties, **more}.items()))
        if key not in written:
            written[key] = str(write_gguf(folder / f"{len(written)}.gguf", **{**properties, **more}))
        return written[key]

    return write


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Counts]":
    """What is loaded, made, freed and run in a test; at its end nothing may be left."""
    from preflexor_agents.backends import local_model, model_file
    from preflexor_agents.backends.cancel import CancelFlag
    from preflexor_agents.backends.context import Context
    from preflexor_agents.backends.model_cache import MODELS
    from tests.autogen.local_models import Counts

    MODELS.free_idle()  # what earlier tests have left behind is not of this one
    found = Counts()
    load, close, evaluate = model_file.load, Context.close, Context.evaluate
    context, write = model_file.ModelFile.context, local_model.LocalModel.write

    def counted_load(path: Path, *, vocabulary_only: bool = False) -> Any:
        if vocabulary_only:
            found.vocabularies += 1
        else:
            found.loads += 1
            found.loaded_in.append(threading.current_thread())
        return load(path, vocabulary_only=vocabulary_only)

    def counted_context(self: Any, **settings: Any) -> Context:
        made = context(self, **settings)
        found.contexts += 1
        return made

    def counted_close(self: Context) -> None:
        found.contexts -= bool(self._pointer)
        close(self)

    def counted_evaluate(self: Context, rows: Any, *, cancel: CancelFlag | None = None) -> bool:
        found.decoded += len(rows)
        return evaluate(self, rows, cancel=cancel)

    def counted_write(self: Any, prompt: Any, **settings: Any) -> Any:
        with found.lock:
            found.running += 1
            found.most_running = max(found.most_running, found.running)
            found.jobs.append(f"begin {settings['seed']}")
        try:
            return (yield from write(self, prompt, **settings))
        finally:
            with found.lock:
                found.running -= 1
                found.jobs.append(f"end {settings['seed']}")

    monkeypatch.setattr(model_file, "load", counted_load)
    monkeypatch.setattr(model_file.ModelFile, "context", counted_context)
    monkeypatch.setattr(Context, "close", counted_close)
    monkeypatch.setattr(Context, "evaluate", counted_evaluate)
    monkeypatch.setattr(local_model.LocalModel, "write", counted_write)
    before = threading.active_count()
    yield found
    MODELS.free_idle()
    assert (len(MODELS), found.contexts, threading.active_count()) == (0, 0, before)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoGen as on its main branch: no provider is loaded from a namespace that is not trusted."""
    plain = ComponentLoader.load_component.__func__

    def load(cls: Any, model: Any, expected: Any = None) -> Any:
        provider = model["provider"] if isinstance(model, dict) else model.provider
        trusted = ["autogen_core.", "autogen_agentchat.", "autogen_ext.", "autogen_studio.", "autogenstudio."]
        trusted += [f"{name.strip().rstrip('.')}." for name in os.environ.get(ENV, "").split(",") if name.strip()]
        if not provider.startswith(tuple(trusted)):
            raise ValueError(f"Provider {provider} is not in a trusted namespace")
        return plain(cls, model, expected)

    monkeypatch.setattr(ComponentLoader, "load_component", classmethod(load))
    monkeypatch.delenv(ENV, raising=False)
