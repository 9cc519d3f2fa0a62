"""Whether a model that Ollama made behaves as its file does: same prompts, and thinking apart from the answer."""

from typing import Any, NamedTuple

import httpx
import ollama

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.ollama_prompt import with_thinking
from preflexor_agents.backends.ollama_server import FAILURES, failure, rendered
from preflexor_agents.events import Passage
from preflexor_agents.markup import TAGS
from preflexor_agents.prompts import Grounds, Message, draft, one_line
from preflexor_quantize.modelfile import Modelfile, OpenModel

PASSAGE = "Spider silk is a protein fibre. Its tensile strength is 1.1 GPa."
QUESTION = draft(
    Grounds(
        question="What is the tensile strength of spider silk?",
        passages=(Passage(chunk_id=1, source="silk.md", title="Silk", start=0, end=len(PASSAGE), text=PASSAGE),),
    )
)
THOUGHT = "Passage 1 states the strength."
REPLY_TOK = 512
_AMPLE_TOK = 1 << 16


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    ok: bool | None
    """None where the server gives no answer."""
    detail: str = ""


def question_tok(model: OpenModel) -> int:
    """Tokens of the longest prompt that is compared. Raises ModelError if the template cannot render it."""
    longest = Request(messages=QUESTION, thinking=THOUGHT)
    return len(model.text.prompt(longest, context_tok=model.text.trained_tok + _AMPLE_TOK).tokens)


async def prove(
    client: ollama.AsyncClient, http: httpx.AsyncClient, name: str, *, model: OpenModel, file: Modelfile
) -> list[Finding]:
    """Look at the server's prompts for the model, then ask it a question.

    Raises:
        BackendError: the server is gone.
    """
    shown = await _told(client, name, http)
    found = [_capability(shown, file)]
    found += [await _same_prompt(http, name, model=model, file=file, thinking=t) for t in (None, THOUGHT)]
    if file.marks is None:
        del found[2]
    return found + await _asked(client, http, name, model=model, file=file)


async def _told(client: ollama.AsyncClient, name: str, http: httpx.AsyncClient) -> ollama.ShowResponse:
    try:
        return await client.show(name)
    except FAILURES as e:
        raise failure(e, url=str(http.base_url), name=name) from e


def _capability(shown: ollama.ShowResponse, file: Modelfile) -> Finding:
    if shown.capabilities is None:
        return Finding("capabilities", None, "the server does not say")
    ok = ("thinking" in shown.capabilities) == (file.marks is not None)
    return Finding("capabilities", ok, ", ".join(shown.capabilities))


async def _same_prompt(
    http: httpx.AsyncClient, name: str, *, model: OpenModel, file: Modelfile, thinking: str | None
) -> Finding:
    """The server's rendering as token ids, against ours."""
    what = "prompt" if thinking is None else "prompt with finished thinking"
    sent: list[dict[str, str]] = [{"role": m.role, "content": m.content} for m in QUESTION]
    if thinking is not None and file.marks is not None:
        tags = (file.marks.open.strip(), file.marks.close.strip())
        sent = with_thinking(sent, tags, thinking, way="thinking")
    body: dict[str, Any] = {"model": name, "messages": sent, "options": {"num_ctx": file.context_tok}}
    prompt = await rendered(http, body)
    if prompt is None:
        return Finding(what, None, "the server does not show it")
    ours = _tokens(model, file, QUESTION, thinking)
    theirs = model.vocabulary.tokenize(prompt, special=True)
    if model.adds_bos and theirs[:1] != [model.vocabulary.bos]:
        theirs.insert(0, model.vocabulary.bos)
    if ours == theirs:
        return Finding(what, True, f"the same {len(ours)} tokens as from the model's own template")
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return Finding(what, False, f"parts from the model's own template at token {at} of {len(ours)}")


def _tokens(model: OpenModel, file: Modelfile, messages: tuple[Message, ...], thinking: str | None) -> list[int]:
    return model.text.prompt(Request(messages=messages, thinking=thinking), context_tok=file.context_tok).tokens


async def _asked(
    client: ollama.AsyncClient, http: httpx.AsyncClient, name: str, *, model: OpenModel, file: Modelfile
) -> list[Finding]:
    options = {"num_ctx": file.context_tok, "num_predict": REPLY_TOK, "temperature": 0.0, "seed": 1}
    messages = [{"role": m.role, "content": m.content} for m in QUESTION]
    try:
        reply = await client.chat(name, messages, think=True if file.marks else None, options=options)
    except ollama.ResponseError as e:
        return [Finding("reply", False, one_line(e.error)[:300])]
    except FAILURES as e:
        raise failure(e, url=str(http.base_url), name=name) from e
    thinking, content = (reply.message.thinking or "").strip(), (reply.message.content or "").strip()
    found = []
    if reply.prompt_eval_count:
        ours = len(_tokens(model, file, QUESTION, None))
        detail = f"the server read {reply.prompt_eval_count}, the model's own template makes {ours}"
        found.append(Finding("prompt tokens", reply.prompt_eval_count == ours, detail))
    return [*found, _apart(thinking, content, reply.done_reason or "", file)]


def _apart(thinking: str, content: str, ended: str, file: Modelfile) -> Finding:
    what = "thinking and answer" if file.marks else "answer"
    strays = [text for text in (*TAGS, *file.stops) if text in thinking or (text in content and "reflect" not in text)]
    if strays:
        return Finding(what, False, f"{strays[0]} is left in the reply: {_short(content or thinking)}")
    if file.marks and not thinking:
        return Finding(what, False, f"no thinking came apart from the reply: {_short(content)}")
    if not content:
        cut = f", cut after {REPLY_TOK} tokens" if ended == "length" else ""
        return Finding(what, False, f"there is no answer{cut}; thinking: {_short(thinking)}")
    detail = f"thinking: {_short(thinking)} · answer: {_short(content)}" if thinking else _short(content)
    return Finding(what, True, detail)


def _short(text: str) -> str:
    line = one_line(text)
    return repr(line if len(line) <= 80 else line[:79] + "…")
