"""A backend as judge of the passages that a search found."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.growth.rerank import Judge, open_judge
from preflexor_agents.store import Store


@pytest.fixture
def judge() -> Iterator[Callable[..., Judge]]:
    """Makes judges that answer by a script, in a loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda reply: Judge(ScriptedBackend(reply), loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def by_material(request: Request) -> str:
    """Finds that only what speaks of geckos answers."""
    return '{"relevance": 9}' if "Gecko feet" in request.messages[-1].content else '{"relevance": 2}'


def test_the_judge_decides_the_order_and_the_fused_order_breaks_ties(
    library: Store, judge: Callable[..., Judge]
) -> None:
    plain = library.search("tensile strength of silk", k=6)
    judged = library.search("tensile strength of silk", k=6, reranker=judge(by_material))
    assert plain[0].title != "gecko" and judged[0].title == "gecko"
    assert judged[1:] == [p for p in plain if p.title != "gecko"]


def test_it_judges_more_passages_than_are_shown(library: Store, judge: Callable[..., Judge]) -> None:
    assert library.search("tensile strength of silk", k=1, reranker=judge(by_material))[0].title == "gecko"


@pytest.mark.parametrize("answer", ["", "nine", '{"relevance": 11}', '{"relevance": "9"}', "[]", '{"relevance": 9'])
def test_an_answer_that_is_no_rating_counts_as_the_lowest(
    library: Store, judge: Callable[..., Judge], answer: str
) -> None:
    assert library.search("silk", k=6, reranker=judge(lambda _: answer)) == library.search("silk", k=6)


def test_a_judge_that_fails_is_an_error(library: Store, judge: Callable[..., Judge]) -> None:
    with pytest.raises(BackendError, match="gone"):
        library.search("silk", reranker=judge([BackendError("the model is gone")]))


def test_a_judge_may_be_asked_from_a_running_loop_by_way_of_a_thread(
    library: Store, judge: Callable[..., Judge]
) -> None:
    asked = judge(by_material)

    async def search() -> str:
        return (await asyncio.to_thread(library.search, "silk", k=1, reranker=asked))[0].title

    assert asyncio.run(search()) == "gecko"


def test_nano_rates_under_its_grammar(library: Store) -> None:
    with open_judge("nano") as nano:
        scores = nano.scores("how strong is silk?", library.search("silk", k=2))
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)


def test_a_model_that_is_none_is_refused_and_leaves_no_thread() -> None:
    with pytest.raises(ModelError), open_judge("no-model"):
        pass
    assert "judge" not in {thread.name for thread in threading.enumerate()}
