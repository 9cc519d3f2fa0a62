"""Any AutoGen `ChatAgent` as a backend of the engine: it gets the prompt of one step and nothing else of the run."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from autogen_agentchat.base import ChatAgent, Response
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    TextMessage,
    ThoughtEvent,
)
from autogen_core import CancellationToken

from preflexor_agents.autogen.client_backend import estimate_tok, failures_of, quoted
from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Usage
from preflexor_agents.markup import SectionParser, parse
from preflexor_agents.prompts import DRAFT, REFLECT, TAG_HINT, Message

OWN_SAMPLING = "sampling and seed are the agent's own"


class AgentBackend:
    """Asks an agent, one call after the other, each time as it was before the first call.

    The agent keeps its own instructions, tools and memory; our system turn is not sent. Only where it is to think is it
    told how to mark its thinking.
    """

    context_tok = 0
    native_tags = True

    def __init__(self, agent: ChatAgent) -> None:
        self.agent = agent
        self.spec = f"agent:{agent.name}"
        self._before: Mapping[str, Any] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply; see `Backend.generate`."""
        turns, notes = quoted(request, hint=False)
        parts = [turn["content"] for turn in turns if turn["role"] != "system"]
        if request.thinking is None and parts[-1].endswith((DRAFT, REFLECT)):
            parts.append(TAG_HINT.strip())
        heard = _Heard(notes=(*notes, OWN_SAMPLING))
        token = CancellationToken()
        try:
            async with self._one_at_a_time:
                with failures_of(self.spec):
                    await self._forget()
                    message = TextMessage(content="\n\n".join(parts), source="user")
                    async with aclosing(self.agent.on_messages_stream([message], token)) as stream:
                        async for item in stream:
                            for delta in heard.take(item):
                                yield delta
                            if heard.pieces >= request.sampling.max_tok:
                                break
            completion = heard.completion(self.spec)
            if not heard.pieces:
                yield Delta("answer", completion.answer)
            yield completion
        finally:
            token.cancel()

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """An estimate from the number of characters."""
        return estimate_tok("".join(m.content for m in messages))

    async def aclose(self) -> None:
        """Close the agent."""
        await self.agent.close()

    async def _forget(self) -> None:
        if self._before is None:
            self._before = await self.agent.save_state()
            return
        await self.agent.on_reset(CancellationToken())
        await self.agent.load_state(self._before)


class _Heard:
    """What came of the agent's turn so far."""

    def __init__(self, *, notes: tuple[str, ...]) -> None:
        self.pieces = 0
        self._notes = notes
        self._parser = SectionParser()
        self._thoughts: list[str] = []
        self._usage = Usage()
        self._said: str | None = None

    def take(self, item: BaseAgentEvent | BaseChatMessage | Response) -> list[Delta]:
        """Take in an item of the agent's stream; returns the text that it adds."""
        message = item.chat_message if isinstance(item, Response) else item
        if message.models_usage is not None:
            used = message.models_usage
            self._usage += Usage(prompt=used.prompt_tokens, generated=used.completion_tokens)
        match item:
            case Response(chat_message=said):
                self._said = said.to_model_text()
            case ModelClientStreamingChunkEvent(content=text):
                self.pieces += 1
                return [Delta(channel, piece) for channel, piece in self._parser.feed(text) if piece]
            case ThoughtEvent(content=text):
                self._thoughts.append(text.strip())
        return []

    def completion(self, whose: str) -> Completion:
        """The whole reply; the text that was streamed stands in for it where the turn was cut."""
        if self._said is None and not self.pieces:
            raise BackendError(f"{whose} ended its turn without a response")
        sections = self._parser.finish() if self._said is None else parse(self._said)
        usage, notes = self._usage, self._notes
        if not usage.generated:
            texts = [*self._thoughts, *(s.text for s in sections.segments)]
            usage = Usage(prompt=usage.prompt, generated=estimate_tok("".join(texts)))
            notes = (*notes, "the agent counted no tokens; generated tokens are estimated")
        return Completion(
            thinking=sections.thinking or "\n".join(self._thoughts),
            reflection=sections.reflection,
            answer=sections.answer,
            finish_reason="length" if self._said is None else "stop",
            usage=usage,
            notes=notes,
        )
