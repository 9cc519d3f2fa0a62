"""The model in training, asked as a backend: together and alone, with seeds, and what it refuses."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from preflexor_agents.backends.base import Request, complete
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Message
from preflexor_training.torch_backend.learner import TorchLearner, open_learner
from tests.training import stories
from tests.training.learning import ask

pytestmark = [pytest.mark.train, stories.needs_data]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchLearner]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("student")
    recipe = stories.recipe(stories.base(folder / "base"))
    learner = open_learner(recipe, recipe.phases[1], folder / "base", folder / "learner")
    yield learner
    learner.close()


def test_the_student_says_together_what_it_says_alone(opened: TorchLearner) -> None:
    questions = ("What is a dog?", "Hi", "Once upon a time there was a little girl who", "Hi", "Hi")
    together = asyncio.run(ask(opened.student(), *questions, temperature=0.0))
    alone = [asyncio.run(ask(opened.student(), text, temperature=0.0))[0] for text in questions]
    assert [reply.answer for reply in together] == [reply.answer for reply in alone]
    assert all(reply.usage.generated == 12 and reply.finish_reason == "length" for reply in together)


def test_the_student_writes_what_transformers_would(opened: TorchLearner) -> None:
    (found,) = asyncio.run(ask(opened.student(), "Once upon a time", temperature=0.0))
    student = opened.student()
    prompt = student._text.prompt(Request(messages=(Message("user", "Once upon a time"),)), context_tok=512)
    ids = torch.tensor([prompt.tokens])
    made = opened._ready().generate(input_ids=ids, max_new_tokens=12, do_sample=False, use_cache=True)
    text = b"".join(student._text.vocabulary.piece(int(token)) for token in made[0, ids.shape[1] :]).decode()
    assert found.answer == text
    asyncio.run(student.aclose())


def test_seeds_decide_what_the_student_draws(opened: TorchLearner) -> None:
    def drawn(seed: int) -> str:
        return asyncio.run(ask(opened.student(), "Once upon a time", seed=seed, temperature=1.0))[0].answer

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1) != drawn(2)
    assert torch.equal(torch.random.get_rng_state(), state), "training's own source of chance is left alone"


def test_a_student_that_nobody_listens_to_stops(opened: TorchLearner) -> None:
    async def leave() -> int:
        student = opened.student()
        request = Request(messages=(Message("user", "Once upon a time"),), sampling=Sampling(max_tok=400))
        replies = student.generate(request)
        await anext(replies)
        await replies.aclose()
        (found,) = await ask(student, "Hi")
        return found.usage.generated

    assert asyncio.run(leave()) > 0


def test_the_student_refuses_what_it_cannot_do(opened: TorchLearner) -> None:
    student = opened.student()

    async def refuse(request: Request) -> None:
        await complete(student, request)

    asked = Request(messages=(Message("user", "Hi"),), json_schema={"type": "object"})
    with pytest.raises(BackendError, match="has no grammars"):
        asyncio.run(refuse(asked))
    long = Request(messages=(Message("user", "word " * 600),))
    with pytest.raises(BackendError, match="the context of"):
        asyncio.run(refuse(long))
    asyncio.run(student.aclose())
    with pytest.raises(BackendError, match="is closed"):
        asyncio.run(refuse(replace(asked, json_schema=None)))
