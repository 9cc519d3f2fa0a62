"""The shipped gallery and team for AutoGen Studio, used the way Studio 0.4.2 uses them.

Studio builds the team from its JSON for every run, shows some kinds of message and drops others, and closes every
participant after the run.
"""

import json
import threading
from collections.abc import AsyncGenerator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    HandoffMessage,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    StopMessage,
    TextMessage,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
)
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import CancellationToken, ComponentLoader, ComponentModel
from pydantic import BaseModel, ConfigDict

from preflexor_agents import __version__
from preflexor_agents.autogen import SearchKnowledgeTool, load_component
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.backends.shared import open_shared
from preflexor_agents.errors import BackendError, ConfigError, ModelError
from tests.autogen.shelf import make_store
from tests.fakes.ollama_stub import OllamaStub, StubModel

pytest.importorskip("gguf", reason="needs the quantize extra")

FILES = resources.files("preflexor_agents") / "data" / "studio"
KINDS = {"agents": "agent", "models": "model", "tools": "tool", "terminations": "termination", "teams": "team"}
SHOWN = (
    *(TextMessage, MultiModalMessage, StopMessage, HandoffMessage),
    *(ToolCallRequestEvent, ToolCallExecutionEvent, ModelClientStreamingChunkEvent),
)
"""What Studio's screen shows; other kinds it drops without a word."""
QUESTION = "How tough is nacre?"
Item = BaseAgentEvent | BaseChatMessage | TaskResult


class Metadata(BaseModel):
    """Studio's GalleryMetadata."""

    model_config = ConfigDict(extra="forbid")
    author: str
    version: str
    description: str | None = None
    tags: list[str] | None = None
    license: str | None = None
    homepage: str | None = None
    category: str | None = None


class Components(BaseModel):
    """Studio's GalleryComponents."""

    model_config = ConfigDict(extra="forbid")
    agents: list[ComponentModel]
    models: list[ComponentModel]
    tools: list[ComponentModel]
    terminations: list[ComponentModel]
    teams: list[ComponentModel]


class Gallery(BaseModel):
    """Studio's GalleryConfig."""

    model_config = ConfigDict(extra="forbid")
    id: str
    name: str
    url: str | None = None
    metadata: Metadata
    components: Components


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / name).read_text(encoding="utf-8"))
    return found


GALLERY = Gallery.model_validate(read("gallery.json"))
COMPONENTS = [(kind, part) for name, kind in KINDS.items() for part in getattr(GALLERY.components, name)]
NAMES = [f"{kind}: {part.label}" for kind, part in COMPONENTS]


async def studio_run(team_config: dict[str, Any], task: str) -> AsyncGenerator[Item, None]:
    """What Studio's TeamManager.run_stream does."""
    team = BaseGroupChat.load_component(team_config)
    try:
        async for message in team.run_stream(task=task, cancellation_token=CancellationToken()):
            yield message
    finally:
        for agent in team._participants:
            await agent.close()


def short(team: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The team with a small budget, and what else its agent is to have."""
    agent = team["config"]["participants"][0]["config"]
    agent["config"] |= {"rounds": 2, "budget_tok": 120}
    agent |= changes
    return team


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own data is left alone."""
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.fixture
def bundled() -> Path:
    try:
        return nano_path()
    except ModelError as e:
        pytest.skip(str(e))


def test_the_gallery_is_of_this_version() -> None:
    assert GALLERY.metadata.version == __version__


def test_the_team_is_in_the_gallery_too() -> None:
    assert ComponentModel.model_validate(read("team.json")) in GALLERY.components.teams


@pytest.mark.parametrize(("kind", "part"), COMPONENTS, ids=NAMES)
def test_each_component_loads_and_comes_back_from_its_dump(
    kind: str, part: ComponentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path
) -> None:
    make_store(tmp_path / "store.db")
    monkeypatch.chdir(tmp_path)
    assert part.component_type == kind and part.label and part.description
    ours = load_component(part, expected=object)
    made = ComponentLoader.load_component(part, expected=object)
    again = load_component(made.dump_component(), expected=object)
    assert type(ours) is type(made) is type(again)
    assert ours.dump_component() == made.dump_component() == again.dump_component()


@pytest.mark.parametrize(("kind", "part"), COMPONENTS, ids=NAMES)
def test_each_component_loads_where_autogen_keeps_a_list_of_its_own(
    kind: str, part: ComponentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path, guarded: None
) -> None:
    make_store(tmp_path / "store.db")
    monkeypatch.chdir(tmp_path)
    load_component(part, expected=object)
    if kind != "team":  # a team of AutoGen's own is trusted, what it holds is not
        with pytest.raises(ValueError, match="not in a trusted namespace"):
            ComponentLoader.load_component(part, expected=object)
    monkeypatch.setenv("AUTOGEN_ALLOWED_PROVIDER_NAMESPACES", "preflexor_agents")
    ComponentLoader.load_component(part, expected=object)


@pytest.mark.parametrize(("kind", "part"), COMPONENTS, ids=NAMES)
def test_each_component_says_all_that_the_canvas_needs(kind: str, part: ComponentModel) -> None:
    assert part.version == part.component_version == 1


def test_a_tool_whose_store_is_missing_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tool = next(tool for tool in GALLERY.components.tools if tool.config["store"] == "store.db")
    with pytest.raises(ConfigError, match=r"no file store\.db; make it with: preflexor ingest"):
        load_component(tool, expected=object)


async def test_the_team_built_anew_for_each_run_loads_its_model_once(bundled: Path, counts: Any) -> None:
    for _ in range(3):
        items = [item async for item in studio_run(short(read("team.json")), QUESTION)]
        result = items[-1]
        assert isinstance(result, TaskResult) and int(result.messages[-1].metadata["tokens_generated"]) > 0
    assert counts.loads == 1


async def test_stages_and_answer_are_on_studios_screen(bundled: Path, counts: Any) -> None:
    items = [item async for item in studio_run(short(read("team.json")), QUESTION)]
    shown = [m for m in items if isinstance(m, SHOWN)]
    assert any(m.to_text().startswith("Found [1] Nacre") for m in shown)
    stages = [m.metadata["stage"] for m in shown if isinstance(m, TextMessage) and "stage" in m.metadata]
    assert stages[:2] == ["draft", "critique"]
    assert any(isinstance(m, ModelClientStreamingChunkEvent) for m in shown)
    assert shown[-1] is items[-2] and "stop_reason" in shown[-1].metadata


async def test_the_bundled_notes_are_a_store_by_name(bundled: Path, tmp_path: Path) -> None:
    tool = next(tool for tool in GALLERY.components.tools if tool.config["store"] == "bundled")
    search = load_component(tool, expected=SearchKnowledgeTool)
    found = await search.run_json({"query": "fracture toughness of nacre"}, CancellationToken())
    assert "4.5 MPa m^0.5" in found
    await search.close()
    assert list(tmp_path.rglob("bundled-library.db"))


async def test_the_team_for_ollama_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    team = next(t for t in GALLERY.components.teams if "Ollama" in str(t.label)).model_dump()
    with OllamaStub(StubModel(name="qwen3:4b")) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        items = [item async for item in studio_run(short(team), QUESTION)]
        assert stub.bodies("/api/chat") or stub.bodies("/api/generate")
    assert isinstance(items[-1], TaskResult) and items[-1].messages[-1].metadata["answered"] == "True"


async def test_a_model_that_was_given_back_can_no_longer_be_asked(bundled: Path, counts: Any) -> None:
    one, other = await open_shared("nano"), await open_shared(f"gguf:{bundled}")
    await one.aclose()
    await one.aclose()
    with pytest.raises(BackendError, match="model nano is closed; open it again"):
        await one.count_tok(())
    assert (other.spec, counts.loads) == (f"gguf:{bundled}", 1) and other.context_tok == one.context_tok
    await other.aclose()


async def test_a_model_that_cannot_be_loaded_is_not_kept(tmp_path: Path, counts: Any) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    with pytest.raises(ModelError):
        await open_shared(f"gguf:{damaged}")
    for thread in threading.enumerate():  # told to end, and not waited for
        if thread.name.startswith("llama.cpp damaged"):
            thread.join()
