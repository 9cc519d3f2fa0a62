"""Host constructs of AutoGen around one of our parts, each with the model client it needs, scripted."""

import json
from collections.abc import AsyncGenerator, Sequence

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import CreateResult, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

TOOLS = ModelInfo(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=False)
USAGE = RequestUsage(prompt_tokens=3, completion_tokens=2)


class Peer(BaseChatAgent):
    """Says one thing, and keeps what it hears."""

    def __init__(self, name: str, says: str = "I see.") -> None:
        super().__init__(name=name, description="A peer.")
        self.says = says
        self.heard: list[BaseChatMessage] = []

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        self.heard += messages
        return Response(chat_message=TextMessage(content=self.says, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self.heard.clear()


def client(*replies: str | CreateResult) -> ReplayChatCompletionClient:
    """A model that says these things in order and can call tools."""
    return ReplayChatCompletionClient(list(replies), model_info=TOOLS)


def tool_call(name: str, **arguments: str) -> CreateResult:
    call = FunctionCall(id="1", name=name, arguments=json.dumps(arguments))
    return CreateResult(finish_reason="function_calls", content=[call], usage=USAGE, cached=False)


def caller(tool: object, name: str, task: str) -> AssistantAgent:
    """An assistant whose model calls a tool with a task, and passes the tool's words on."""
    return AssistantAgent("boss", client(tool_call(name, task=task)), tools=[tool])


def ledger(*, done: bool, speaker: str, task: str) -> str:
    """What MagenticOne's orchestrator expects of its model."""
    answers = {
        "is_request_satisfied": done,
        "is_in_loop": False,
        "is_progress_being_made": True,
        "next_speaker": speaker,
        "instruction_or_question": task,
    }
    return json.dumps({name: {"reason": "so", "answer": value} for name, value in answers.items()})


async def texts(stream: AsyncGenerator[object, None]) -> list[tuple[str, str]]:
    """Source and content of the chat messages of a stream, the task left out."""
    found = []
    async for item in stream:
        if isinstance(item, BaseChatMessage) and item.source != "user":
            found.append((item.source, item.to_text()))
    return found
