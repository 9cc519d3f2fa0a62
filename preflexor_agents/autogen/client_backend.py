"""Any AutoGen `ChatCompletionClient` as a backend of the engine.

A chat endpoint takes no half-written reply, so finished thinking is quoted in the user's turn; whatever the client
cannot be told (sampling, seed, a schema) is said in `Completion.notes`.
"""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    SystemMessage,
    UserMessage,
)

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.ollama_prompt import PREFILL_NOTES, control_strings, turns, with_thinking
from preflexor_agents.errors import BackendError, PreflexorError
from preflexor_agents.events import Usage
from preflexor_agents.markup import SectionParser
from preflexor_agents.prompts import Message, hinted

CHARS_PER_TOK = 3
"""For estimates, where there is no tokenizer at hand: too many tokens rather than too few."""
_CONTROL = control_strings("")


class ClientBackend:
    """Asks a model through its client. Closing the backend closes the client."""

    def __init__(self, client: ChatCompletionClient, *, context_tok: int = 0) -> None:
        """Wrap a client.

        Args:
            client: asked once per call, streaming where it can.
            context_tok: tokens of prompt and reply together that fit; 0 if unknown.
        """
        self.client = client
        self._context_tok = context_tok
        self._spec = f"autogen:{_name(client)}"

    @property
    def spec(self) -> str:
        """The client's class and model; for the record, cannot be opened."""
        return self._spec

    @property
    def context_tok(self) -> int:
        """As given; clients of other makers may need the network to find out."""
        return self._context_tok

    @property
    def native_tags(self) -> bool:
        """Whether the client says that its model reasons by itself."""
        return self.client.model_info["family"] == ModelFamily.R1

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply; see `Backend.generate`."""
        messages, notes = quoted(request, hint=not self.native_tags)
        args, unheard = _arguments(self.client, request)
        reply = Reply(max_tok=request.sampling.max_tok, notes=(*notes, *unheard))
        token = CancellationToken()
        try:
            with failures_of(self.spec):
                stream = _stream(self.client, _turns(messages), request, args, token)
                async with aclosing(stream) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, CreateResult):
                            reply.end(piece)
                            continue  # clients count and log behind their last item
                        for delta in reply.add(piece):
                            yield delta
                        if reply.full:
                            break
            yield reply.completion()
        finally:
            token.cancel()

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """An estimate from the number of characters."""
        return estimate_tok("".join(m.content for m in messages))

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.close()


class Reply:
    """A reply as it comes in: text told apart, counted, and cut at its limit."""

    def __init__(self, *, max_tok: int, notes: tuple[str, ...] = ()) -> None:
        self._parser = SectionParser()
        self._notes = notes
        self._max_tok = max_tok
        self._pieces = 0
        self._thought = ""
        self._usage = Usage()
        self._stopped: str | None = None

    @property
    def full(self) -> bool:
        """Whether as many pieces came as tokens were asked for."""
        return self._pieces >= self._max_tok

    def add(self, text: str) -> list[Delta]:
        """Take in a piece of the reply."""
        self._pieces += 1
        return [Delta(channel, piece) for channel, piece in self._parser.feed(text) if piece]

    def end(self, result: CreateResult) -> None:
        """Take in what the client says of the whole reply; its text counts if none was streamed."""
        if not isinstance(result.content, str):
            raise BackendError("the model called a tool instead of answering; give the client no tools")
        if not self._pieces:
            self._parser.feed(result.content)
        self._thought = result.thought or ""
        self._usage = Usage(prompt=result.usage.prompt_tokens, generated=result.usage.completion_tokens)
        self._stopped = result.finish_reason

    def completion(self) -> Completion:
        """The whole reply."""
        sections = self._parser.finish()
        notes = (*self._notes, *sections.problems)
        cut = self._stopped is None and self.full
        usage, text = self._usage, "".join(s.text for s in sections.segments)
        if not usage.generated:
            usage = replace(usage, generated=max(self._pieces, estimate_tok(self._thought + text)))
            notes = (*notes, "the client counted no tokens; generated tokens are estimated")
        if self._stopped not in (None, "stop", "length"):
            notes = (*notes, f"the client ended the reply with {self._stopped!r}")
        return Completion(
            thinking=sections.thinking or self._thought.strip(),
            reflection=sections.reflection,
            answer=sections.answer,
            finish_reason="length" if cut or self._stopped == "length" else "stop",
            usage=usage,
            notes=notes,
        )


def quoted(request: Request, *, hint: bool) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """A request for a chat endpoint: role and content of each turn, and what is to be noted about it.

    Args:
        request: control strings in its text are broken up; finished thinking is quoted at its end.
        hint: whether the model must be told how to mark its thinking.
    """
    messages = request.messages
    if hint and request.thinking is None:
        messages = hinted(messages)
    disarmed = turns(messages, _CONTROL)
    sent, notes = list(disarmed.messages), list(disarmed.notes)
    if request.thinking is not None:
        thinking = turns([Message("assistant", request.thinking)], _CONTROL)
        sent = with_thinking(sent, ("", ""), thinking.messages[0]["content"], way="quoted")
        notes = [*dict.fromkeys((*notes, *thinking.notes)), PREFILL_NOTES["quoted"]]
    if request.json_schema is not None:
        schema = json.dumps(request.json_schema, ensure_ascii=False)
        sent[-1] = {**sent[-1], "content": f"{sent[-1]['content']}\n\nAnswer in JSON of this schema: {schema}"}
        notes.append("the JSON schema was asked for, not enforced")
    return sent, tuple(notes)


def estimate_tok(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text) // CHARS_PER_TOK)


@contextmanager
def failures_of(whose: str) -> Iterator[None]:
    """Turn whatever other makers' code raises into a BackendError, so that a failed call stays data of the run.

    Clients raise their libraries' own errors, which share no base but Exception.
    """
    try:
        yield
    except PreflexorError:
        raise
    except Exception as e:
        text = " ".join(str(e).split())
        raise BackendError(f"{whose} failed: {type(e).__name__}{': ' if text else ''}{text}") from e


async def _stream(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    request: Request,
    args: Mapping[str, Any],
    token: CancellationToken,
) -> AsyncGenerator[str | CreateResult, None]:
    json_output = True if request.json_schema is not None and client.model_info["json_output"] else None
    try:
        stream = client.create_stream(
            messages, json_output=json_output, extra_create_args=args, cancellation_token=token
        )
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece
        return
    except NotImplementedError:  # some clients cannot stream
        pass
    yield await client.create(messages, json_output=json_output, extra_create_args=args, cancellation_token=token)


def _turns(messages: Sequence[Mapping[str, str]]) -> list[LLMMessage]:
    made: list[LLMMessage] = []
    for message in messages:
        content = message["content"]
        match message["role"]:
            case "system":
                made.append(SystemMessage(content=content))
            case "assistant":
                made.append(AssistantMessage(content=content, source="assistant"))
            case _:
                made.append(UserMessage(content=content, source="user"))
    return made


def _arguments(client: ChatCompletionClient, request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What one call can be told, by the kind of client, and a note on what it cannot."""
    kinds = {base.__name__ for base in type(client).__mro__}  # names: importing the classes is not for free
    s = request.sampling
    args: dict[str, Any] = {"temperature": s.temperature, "top_p": s.top_p, "seed": request.seed}
    if request.stop:
        args["stop"] = list(request.stop)
    ranks = {"top_k": s.top_k, "repeat_penalty": s.repeat_penalty}
    if "LlamaCppClient" in kinds:
        return {**args, **ranks, "max_tokens": s.max_tok}, ()
    if "OllamaClient" in kinds:
        return {"options": {**args, **ranks, "num_predict": s.max_tok}}, ()
    if "BaseOpenAIChatCompletionClient" in kinds:
        return {**args, "max_tokens": s.max_tok}, ("top_k and repeat_penalty are the server's own",)
    return {}, ("sampling and seed are the client's own",)


def _name(client: ChatCompletionClient) -> str:
    """The client's class, with the model's name if its config tells it."""
    name = type(client).__name__
    try:
        model = client.dump_component().config.get("model")
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return name
    return f"{name}/{model}" if isinstance(model, str) else name
