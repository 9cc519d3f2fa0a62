"""A backend as the judge of passages: it reads each one with the question and says how well it answers.

One short call per passage, in the order of the fused ranks; the answer is one number under a JSON schema, so any
model that follows instructions will do. A tie keeps the order of the fused ranks.
"""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Backend, Request, complete
from preflexor_agents.config import Sampling
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Message, one_line

BEST = 10
_SYSTEM = "You judge how well a passage answers a question. You answer with a number and nothing else."
_TASK = (
    f"Task: rate the passage. {BEST} means that it holds the whole answer, 0 that it is about something else. "
    'Answer as {"relevance": NUMBER}.'
)
_SCHEMA = {
    "type": "object",
    "properties": {"relevance": {"type": "integer", "enum": list(range(BEST + 1))}},
    "required": ["relevance"],
    "additionalProperties": False,
}
_SAMPLING = Sampling(temperature=0.0, max_tok=32)
_LONGEST_PASSAGE = 4000
"""Characters; a chunk is shorter, what is added to a store by hand need not be."""


async def relevance(backend: Backend, query: str, passage: Passage) -> float:
    """What the backend gives the passage, 0 to 1; 0 if its answer is no rating.

    Raises:
        BackendError: the backend failed.
    """
    text = one_line(passage.text)[:_LONGEST_PASSAGE]
    words = f"Question: {query.strip()}\n\nPassage: {one_line(passage.title)}: {text}\n\n{_TASK}"
    request = Request(
        messages=(Message("system", _SYSTEM), Message("user", words)), sampling=_SAMPLING, json_schema=_SCHEMA
    )
    reply = await complete(backend, request)
    try:
        rated = json.loads(reply.answer)["relevance"]
    except (ValueError, TypeError, KeyError):
        return 0.0
    return rated / BEST if isinstance(rated, int) and 0 <= rated <= BEST else 0.0


class Judge:
    """A reranker for `Store.search`: asks a backend from whatever thread searches, one passage after another."""

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        """Take a backend that lives in an event loop which runs in another thread than the one that searches."""
        self._backend = backend
        self._loop = loop

    def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """See `Reranker.scores`; 0 to 1."""
        future = asyncio.run_coroutine_threadsafe(self._scores(query, passages), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        return [await relevance(self._backend, query, passage) for passage in passages]


@contextmanager
def open_judge(spec: str) -> Iterator[Judge]:
    """Open the model that SPEC names in an event loop of its own; closed at the end of the block.

    Raises:
        ModelError: the SPEC has no known form, or its model cannot be used.
        BackendError: the server that has the model does not answer.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="judge", daemon=True)
    thread.start()
    try:
        backend = asyncio.run_coroutine_threadsafe(open_backend(spec), loop).result()
        try:
            yield Judge(backend, loop)
        finally:
            asyncio.run_coroutine_threadsafe(backend.aclose(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
