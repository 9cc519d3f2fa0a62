"""What the pages state is so: keys of packs, measured numbers, modules, figures, links, the parts of the site."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from preflexor_agents import packs
from preflexor_agents.errors import ConfigError
from tests.docs.following import DOCS, ROOT, blocks

PAGES = sorted(DOCS.rglob("*.md"))


def test_the_page_on_packs_has_every_key_with_its_bounds(tmp_path: Path) -> None:
    page = (DOCS / "packs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    keys = set(packs.Pack.model_fields)
    for name, part in (("categories", packs.Category), ("roles", packs.Roles), ("questions", packs.Questions)):
        keys |= {f"{name}.{key}" for key in part.model_fields}
    assert set(rows) == keys - {"roles", "questions"}
    schema = packs.Pack.model_json_schema()
    for key in ("entity_types", "relations", "categories"):
        bounds = schema["properties"][key]
        assert rows[key].startswith(f"{bounds['minItems']} to {bounds['maxItems']}")
    assert f"{schema['properties']['about']['maxLength']:,} characters" == rows["about"]


def test_the_pack_of_the_page_is_one_and_its_error_is_the_one_shown(tmp_path: Path) -> None:
    (pack,) = [block.text for block in blocks(DOCS / "packs.md") if block.title == "law.toml"]
    (shown,) = [block.text for block in blocks(DOCS / "packs.md") if block.language == "text"]
    file = tmp_path / "law.toml"
    file.write_text(pack, encoding="utf-8")
    assert packs.load(str(file)).categories[-1].retrieved
    file.write_text(re.sub(r"entity_types = \[.*\]", "entity_types = []", pack), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        packs.load(str(file))
    assert shown.strip() == f"preflexor: {error.value}".replace(str(file), "law.toml")


def test_every_measured_number_is_on_the_page_that_tells_of_it() -> None:
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| \[[^]]+\]\(([\w/.]+)[^)]*\) \| `python ([\w/.]+)` \|$", page, re.MULTILINE
    )
    assert len(rows) >= 14
    for what, measured, target, program in rows:
        there = (DOCS / target).read_text(encoding="utf-8")
        numbers = re.findall(r"\d+(?:,\d{3})+|\d+\.\d+|\d{2,}", re.sub(r"\([^)]*\)", "", measured))
        rounded = {*re.findall(r"[\d.,]+\d", there), *(f"{float(n):.0f}" for n in re.findall(r"\d+\.\d+", there))}
        assert [n for n in numbers if n not in rounded] == [], what
        assert (ROOT / program).is_file(), program


def test_every_module_that_the_page_on_security_names_exists() -> None:
    named = re.findall(
        r"`((?:preflexor_agents|training|quantize|tui)/[\w/.]+)`", (DOCS / "security.md").read_text("utf-8")
    )
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_figures_are_those_that_the_script_draws() -> None:
    pytest.importorskip("transformers", reason="needs the train extra")
    for name, draw in runpy.run_path(str(ROOT / "scripts" / "docs_figures.py"))["FIGURES"].items():
        assert (DOCS / "figures" / name).read_text(encoding="utf-8") == draw(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def site() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


def pages_of(nav: list[Any]) -> list[str]:
    found: list[str] = []
    for entry in nav:
        (part,) = entry.values()
        found += pages_of(part) if isinstance(part, list) else [part]
    return found


def test_every_page_is_in_the_menu_once() -> None:
    listed = pages_of(site()["nav"])
    made = {"index.md", "reference/commands.md"}
    assert sorted(listed) == sorted({str(page.relative_to(DOCS)) for page in PAGES} | made)


def test_the_site_knows_which_links_it_can_keep_and_shows_formulas_without_a_script() -> None:
    pytest.importorskip("latex2mathml", reason="needs the docs extra")
    made = runpy.run_path(str(ROOT / "scripts" / "docs_pages.py"))
    page = SimpleNamespace(file=SimpleNamespace(src_uri="tutorials/one.md"))
    text = (
        "[start](../../README.md) [in](../papers.md#ask) [out](../../examples/spans.py) [web](https://x.org) "
        "![p](../p.svg)\n"
        "```sh\necho $HOME [a](../../b)\n```\n$$\na^2\n$$\nwith $x$ and `$y$`\n"
    )
    shown = made["on_page_markdown"](text, page=page)
    assert shown.startswith("[start](../index.md) [in](../papers.md#ask) out [web](https://x.org) ![p](../p.svg)\n")
    assert "echo $HOME [a](../../b)" in shown and "`$y$`" in shown
    assert shown.count("<math") == 2 and "<msup>" in shown
    assert made["on_page_markdown"]("$5 and $6", page=page) == "$5 and $6"


def test_the_pages_that_are_made_hold_every_command_and_the_start() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "docs_pages.py"))
    commands = made["commands_page"]()
    assert (
        "## preflexor ask\n" in commands and "### preflexor forge run\n" in commands and "--budget-tokens" in commands
    )
    assert made["start_page"]().startswith("# preflexor\n")


def test_the_site_is_built_without_a_warning_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the docs extra")
    pytest.importorskip("mkdocstrings", reason="needs the docs extra")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"(https?:[^\"]+)", page.read_text("utf-8")
        )
        assert fetched == [], page.name
