"""Recipes: the shipped files are complete, a file reads back as what was written, and what is wrong is named."""

import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from preflexor_agents.errors import ConfigError
from preflexor_training import recipes, toml_text
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.recipes import Adapter, Data, Phase, Recipe
from preflexor_training.toml_text import table_of

SMALL = 'base = "b"\n[[phases]]\nname = "p"\nloss = "orpo"\nlearning_rate = 1e-4\n'
PAGE = Path(__file__).parents[2] / "docs" / "training_core.md"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def shipped(name: str) -> str:
    return resources.files("preflexor_training").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")


def tables(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    for name, field in model.model_fields.items():
        inner = table_of(field.annotation)
        if inner is not None and inner is not ForgeSettings:
            yield from tables(inner, f"{place}.{name}".strip("."))


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_is_a_complete_file_with_a_sentence_for_each_key(name: str) -> None:
    recipe = recipes.load(name)
    assert shipped(name) == recipes.dump(recipe), "a field is new or changed: write the file again with recipes.dump"
    assert recipe.about.endswith(".")


def test_the_published_schedule_is_the_published_one() -> None:
    first, second = recipes.load("paper").phases
    assert (first.loss, first.beta, first.learning_rate, first.passes) == ("orpo", 0.1, 5e-5, 6)
    assert (second.loss, second.beta, second.label_smoothing, second.passes) == ("exo_pair", 0.5, 0.005, 2)
    assert (second.learning_rate, second.max_grad_norm) == (1e-6, 0.3)
    assert [(p.rounds, p.rows_per_round, p.batch_pairs, p.accumulation) for p in (first, second)] == [
        (50, 50, 1, 2)
    ] * 2
    recipe = recipes.load("paper")
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.adapter.dropout) == (64, 64.0, 0.1)
    assert [recipe.mask(p).kind for p in (first, second)] == ["none", "answer_only"]
    assert recipe.mask(second).keep_tag


@pytest.mark.parametrize("name", recipes.names())
def test_what_is_written_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    recipe = recipes.load(name, changes=["seed=7", 'about="a \\"b\\" \\\\ c\\u007f\\u0001 é"'])
    assert recipe.seed == 7 and recipe.about == 'a "b" \\ c\x7f\x01 é'
    assert recipes.load(written(tmp_path, recipes.dump(recipe))) == recipe


@given(
    about=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    beta=st.floats(1e-9, 1e6),
    samples=st.lists(st.text(min_size=1, max_size=20), max_size=3),
)
def test_any_value_survives_being_written(about: str, beta: float, samples: list[str]) -> None:
    phase = {"name": "p", "loss": "orpo", "learning_rate": 1e-4, "beta": beta, "samples": samples}
    recipe = Recipe.model_validate({"base": "b", "about": about, "phases": [phase]})
    assert Recipe.model_validate(tomllib.loads(recipes.dump(recipe))) == recipe


def test_a_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    recipe = recipes.load(written(tmp_path, SMALL))
    assert recipe.phases[0].accumulation == 2 and recipe.adapter == Adapter()


def test_a_file_of_another_system_is_read(tmp_path: Path) -> None:
    assert recipes.load(written(tmp_path, b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())).base == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = ", "is not TOML: Invalid value (at end of document); correct that line"),
        (b"\xff\xfe", "is not UTF-8 text; save it as UTF-8"),
        ("", "base is missing; add it"),
        ('base = "b"', "phases is missing; add it"),
        ('base = "b"\nphases = []', "phases is []; tuple should have at least 1 item"),
        (f"sead = 1\n{SMALL}", "sead = 1 is no key; did you mean seed?"),
        (f"{SMALL}lerning_rate = 2", "phases.0.lerning_rate = 2 is no key; did you mean learning_rate?"),
        (f"{SMALL}zzz = 2", "phases.0.zzz = 2 is no key; remove it; known here: name, loss, beta"),
        (f"{SMALL}rounds = true", "phases.0.rounds is True; input should be a valid integer"),
        (f"{SMALL}rounds = 0", "phases.0.rounds is 0; input should be greater than or equal to 1"),
        (f'{SMALL}rounds = "3"', "phases.0.rounds is '3'; input should be a valid integer"),
        (f"{SMALL}beta = inf", "phases.0.beta is inf; input should be"),
        (f"{SMALL}beta = nan", "phases.0.beta is nan; input should be"),
        (f"{SMALL}replay_share = 1.0", "phases.0.replay_share is 1.0; input should be less than 1"),
        (f"{SMALL}label_smoothing = 0.1", "phases.0: label_smoothing is 0.1 with orpo, which does not read it"),
        (SMALL.replace("orpo", "exo_pair"), "phases.0: label_smoothing is 0 with exo_pair; set it to more than 0"),
        (SMALL.replace("orpo", "ppo"), "phases.0.loss is 'ppo'; input should be 'orpo', 'exo_pair'"),
        (SMALL.replace("orpo", "discopop"), "loss 'discopop' is one of TRL's own trainers; set step.engine = \"trl\""),
        (f"{SMALL}{SMALL.partition(chr(10))[2]}", "phases has two of the name 'p'; give each its own"),
        (f'{SMALL}[phases.mask]\nkind = "all"', "phases.0.mask.kind is 'all'; input should be 'none'"),
        (f'{SMALL}[adapter]\ntargets = ["q_proj", "lm_head"]', "adapter: targets holds 'lm_head'; tied embeddings"),
        (f'{SMALL}[adapter]\nkind = "full"\nbits = 4', 'adapter: bits is 4 with kind = "full"'),
        (f'{SMALL}[tags]\nmode = "text"', 'tags: mode is "text"'),
        (f'{SMALL}[data]\npairs = "x"\n[forge]\n', "data.pairs is 'x' and there is a [forge] table"),
        (
            f'{SMALL}[tags]\nthinking = "<think>"\n[forge]\n',
            "forge.trigger is ' Use <|thinking|>.' and tags.thinking \"<think>\"",
        ),
        (f"{SMALL}rounds = {'9' * 5000}", "is not TOML: Exceeds the limit"),
        (f'"\\u001b[2J" = 1\n{SMALL}', "'\\x1b[2J' = 1 is no key"),
        (f"{SMALL}[forge]\nrows = 0", "forge.rows is 0; input should be greater than or equal to 1"),
        (SMALL.replace('"p"', '"../p"'), "phases.0.name is '../p'; string should match pattern"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_with_key_value_and_remedy(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        recipes.load(path)
    message = str(caught.value)
    assert message.startswith(f"recipe {path}") and said in message
    assert len(message.splitlines()) == 1 and "\x1b" not in message and caught.value.exit_code == 2


def test_a_file_that_nests_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a = \{'a': .*\} is no key; remove it"):
        recipes.load(written(tmp_path, f"a{'.a' * 3000} = 1\n{SMALL}"))


def test_a_value_that_is_no_use_to_a_terminal_is_shown_escaped_and_short(tmp_path: Path) -> None:
    hostile = SMALL.replace('"orpo"', '"\\u001b[2J' + "x" * 5000 + '"')
    with pytest.raises(ConfigError) as caught:
        recipes.load(written(tmp_path, hostile))
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("papre", "recipe 'papre' is unknown; use graph, laptop, paper, tiny, or the path of a .toml file"),
        ("gone.toml", "recipe 'gone.toml' cannot be read: No such file or directory"),
        ("a\0b.toml", "recipe 'a\\x00b.toml' cannot be read: embedded null byte"),
        ("", "recipe '' is unknown"),
    ],
)
def test_a_recipe_that_is_not_there_is_named(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.load(name)
    assert str(caught.value).startswith(said)


def test_a_file_of_data_is_not_read_as_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has more than 200000 bytes; name a recipe, not data"):
        recipes.load(written(tmp_path, "#" * 200_001))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        (tmp_path / "folder.toml").mkdir()
        recipes.load(tmp_path / "folder.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        recipes.load(written(tmp_path, "a = " + "[" * 100_000))


def test_single_values_can_be_changed_from_outside() -> None:
    changes = ["phases.1.rounds=3", "base=some/model", "data.mask.kind = fraction", "adapter.dropout=0.0"]
    recipe = recipes.load("tiny", changes=changes)
    assert (recipe.phases[1].rounds, recipe.base, recipe.data.mask.kind) == (3, "some/model", "fraction")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rounds", "change 'rounds' is no key=value, as in phases.0.rounds=3"),
        ("phases.7.rounds=1", "change 'phases.7.rounds=1': there is no phases.7"),
        ("base.x=1", "change 'base.x=1': there is no base.x"),
        ("phases.0.rounds=many", "recipe tiny with changes: phases.0.rounds is 'many'"),
        ("phases.0.round=1", "phases.0.round = 1 is no key; did you mean rounds?"),
    ],
)
def test_a_wrong_change_is_named(change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.load("tiny", changes=[change])
    assert said in str(caught.value)


def test_top_level_values_are_checked_when_they_are_replaced() -> None:
    recipe = recipes.load("tiny")
    data = {**recipe.data.model_dump(), "pairs": "rows.jsonl"}
    assert recipes.with_values(recipe, {"data": data, "forge": None}).data == Data(**data)
    with pytest.raises(ConfigError, match="keep one of them"):
        recipes.with_values(recipe, {"data": data})


def rows_of_the_page() -> list[str]:
    """The table of all fields, as the page has it."""
    made = []
    for place, model in tables(Recipe):
        for name, field in model.model_fields.items():
            if table_of(field.annotation) is not None:
                continue
            default: Any = field.default
            shown = "needed" if field.is_required() else toml_text.word(default)
            words = " ".join((field.description or "").split())
            made.append(
                f"| `{f'{place}.{name}'.strip('.')}` | {shown if shown == 'needed' else f'`{shown}`'} | {words} |"
            )
    return made


def test_the_page_has_every_field_with_its_default() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| Key | Default | |") + 2
    assert lines[start : start + len(rows_of_the_page())] == rows_of_the_page()


def test_every_field_says_where_its_default_comes_from() -> None:
    for place, model in tables(Recipe):
        for name, field in model.model_fields.items():
            told = field.description or ""
            source = any(word in told.lower() for word in ("published", "chosen", "measured", "default: trl"))
            exempt = place == "" or table_of(field.annotation) is not None
            assert told and (source or exempt), f"{place}.{name}"


def test_a_phase_of_its_own_needs_only_what_has_no_default() -> None:
    required = [name for name, field in Phase.model_fields.items() if field.is_required()]
    assert required == ["name", "loss", "learning_rate"]
