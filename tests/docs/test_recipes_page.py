"""The table of docs/recipes.md is what the recipe files say."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the train extra")

from preflexor_training import recipes

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
NAMES = ("tiny", "laptop", "paper", "graph")
SHARED = ("about", "seed", "phases.name", "phases.samples")
"""What tells nothing apart."""


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Key -> value; of a list of tables the values of all, in their order."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [flat(part, place) for part in value]
        return {key: [part.get(key) for part in parts] for key in parts[0]}
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{place}.{key}".strip(".")).items()}
    return {place: value}


def shown(value: Any, *, phases: bool) -> str:
    parts = list(dict.fromkeys(map(str, value))) if phases else [str(value)]
    said = " / ".join(
        f"{float(part):g}" if part.replace(".", "").replace("e-", "").isdigit() else part for part in parts
    )
    return {"True": "yes", "False": "no"}.get(said, said) or "–"


def table() -> list[str]:
    values = {name: flat(recipes.load(name).model_dump(mode="json")) for name in NAMES}
    rows = []
    for key in values["tiny"]:
        cells = [shown(values[name].get(key), phases=key.startswith("phases.")) for name in NAMES]
        differs = len(set(cells)) > 1 or (" / " in cells[0] and key not in SHARED)
        if key not in SHARED and differs:
            rows.append(f"| `{key}` | {' | '.join(cells)} |")
    return rows


def test_the_table_says_what_the_recipes_say() -> None:
    text = PAGE.read_text(encoding="utf-8").split("<!-- from the files -->\n")[1].split("<!-- end -->")[0]
    assert text.splitlines()[2:] == table(), "\n".join(table())


def test_every_recipe_has_its_line() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert set(recipes.names()) == set(NAMES)
    assert [name for name in NAMES if f"\n| `{name}` | " not in page] == []
