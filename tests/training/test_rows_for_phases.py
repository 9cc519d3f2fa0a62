"""Rows that a later phase could not use are refused before the first one begins."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.errors import ConfigError, InputError
from preflexor_training import recipes
from preflexor_training.sources import FileSource


def source(tmp_path: Path, *changes: str, silent: int, of: int = 10) -> FileSource:
    """The rows of a file, so many of which have a rejected side without thinking."""
    rows = [
        {
            "id": f"row-{n}",
            "prompt": f"What is {n} and {n}?",
            "chosen": f"<|thinking|>Add.<|/thinking|>It is {2 * n}.",
            "rejected": ("" if n < silent else "<|thinking|>Hm.<|/thinking|>") + f"It is {n}.",
        }
        for n in range(of)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = recipes.load("tiny", changes=["data.held_out_share=0", *changes])
    values: dict[str, Any] = recipe.model_dump(exclude_none=True)
    values["data"]["pairs"] = str(path)
    return FileSource(recipes.with_values(recipe, {"data": values["data"], "forge": None}))


def test_rows_of_phase_one_are_refused_before_it_where_phase_two_needs_thinking(tmp_path: Path) -> None:
    said = r"10 of 10 rows of .*pairs\.jsonl do not think on both sides, which phase reason needs, .* student_thinking$"
    with pytest.raises(InputError, match=said):
        source(tmp_path, silent=10)


@pytest.mark.parametrize(
    ("changes", "silent"),
    [
        ((), 1),
        (("data.damaged_share=0.5",), 5),
        (("phases.1.mask.kind=none",), 10),
    ],
)
def test_rows_that_every_phase_can_use_are_taken(tmp_path: Path, changes: tuple[str, ...], silent: int) -> None:
    assert source(tmp_path, *changes, silent=silent)


def test_a_recipe_that_masks_the_thinking_of_replies_without_any_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"forge\.rejected is 'student', .* mask of reason needs it; use \"student_t"):
        recipes.load("tiny", changes=["forge.rejected=student"])
    with pytest.raises(ConfigError, match=r"forge\.rejected is 'teacher_wrong'"):
        recipes.load("tiny", changes=["forge.rejected=teacher_wrong"])
    assert recipes.load("tiny", changes=["forge.rejected=perturbed"]).forge
