"""Both phases teach a real model under chat templates of different families, and under none."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from preflexor_training.torch_backend.learner import open_learner
from tests.quantize.folders import DATA
from tests.training import learning, stories

TEMPLATES = DATA / "chat-templates" / "chujiezheng" / "chat_templates"
pytestmark = [pytest.mark.train, stories.needs_data]


@pytest.mark.parametrize("template", ["llama-3-instruct", "chatml", "mistral-instruct", ""])
def test_a_model_learns_to_prefer_under_its_own_template(tmp_path: Path, template: str) -> None:
    base = stories.base(tmp_path / "base")
    _put(base, template)
    for phase, loss in enumerate(("orpo", "exo_pair")):
        recipe = stories.recipe(base, f"phases.{phase}.passes=2")
        rows = stories.rows(recipe, stories.pairs(learning.ROUNDS * learning.EACH), phase=phase)
        untaught = open_learner(recipe, recipe.phases[phase], base, tmp_path / f"{loss} before")
        untaught.refer(rows)
        before = untaught.evaluate(rows)
        untaught.close()
        learner = learning.learn(base, tmp_path / loss, (f"phases.{phase}.passes=2",), phase=phase)
        after = learner.evaluate(rows)
        learner.close()
        assert after.loss < before.loss, loss
    # Of EXO, in nats; the first steps of ORPO raise the likelihood of both replies.
    assert fmean(after.margins) > fmean(before.margins) + 0.1


def _put(base: Path, template: str) -> None:
    """Give the base this template and no other."""
    config = base / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    told.pop("chat_template", None)
    config.write_text(json.dumps(told), encoding="utf-8")
    (base / "chat_template.jinja").unlink(missing_ok=True)
    if template:
        text = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
        (base / "chat_template.jinja").write_text(text, encoding="utf-8")
