"""The explorer: one page that loads nothing, runs nothing but its own script, and does what it says in a browser."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.graph import explorer
from preflexor_agents.graph.values import Entity, Evidence, Graph, Relation, Run
from tests.store.chromium import BROWSER, Page, browser
from tests.store.graph_files import LATER, RUN, quote, small

EVIL = '<img src=x onerror="document.title=1">\u202e</script>\u2028'
TITLE = 'A <b>title</b> & "more"'
DONE = """new Promise(done => { const look = setInterval(() => {
    if (document.documentElement.dataset.layout === "done") { clearInterval(look); done(true); } }, 20); })"""
CLICKED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def ring(count: int) -> Graph:
    """Entities in a ring, each related to the next, and one more relation of the second run across."""
    entities = tuple(Entity(id=n, name=f"entity {n}", type=f"type {n % 3}") for n in range(1, count + 1))
    relations = [Relation(id=n, source=n, kind="next to", target=n % count + 1) for n in range(1, count + 1)]
    relations.append(Relation(id=count + 1, source=1, kind="across", target=count // 2))
    evidence = {r.id: (quote(r.id, f"quote {r.id} {EVIL}", RUN, start=r.id, page=2),) for r in relations[:-1]}
    evidence[count + 1] = (quote(count + 1, "the later one", LATER, start=0),)
    return Graph(entities=entities, relations=tuple(relations), evidence=evidence)


def page_of(graph: Graph, **more: object) -> str:
    return explorer.write(graph, title=TITLE, **more)  # type: ignore[arg-type]


def test_the_page_names_no_address_anywhere() -> None:
    html = page_of(Graph(entities=(Entity(id=1, name="a"),)))
    assert re.findall(r"https?:|//[a-z]|url\(|@import|<link|src=", html) == []


def test_the_policy_forbids_everything_but_the_script_and_style_of_the_page() -> None:
    html = page_of(small())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules and "unsafe" not in policy[1]
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_no_text_of_the_graph_ends_its_element() -> None:
    graph = Graph(entities=(Entity(id=1, name=EVIL, type=EVIL),), relations=())
    html = page_of(graph)
    [data] = re.findall(r'<script id="graph" type="application/json">(.*?)</script>', html, re.S)
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["entities"][0][0] == EVIL
    assert "<b>title" not in html and html.count("<script") == 2


def test_the_scripts_never_set_markup() -> None:
    html = page_of(small())
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", html)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def show(chromium: Page, tmp_path: Path) -> Iterator[Page]:
    """The ring of twelve in the browser, at rest; afterwards the page must not have complained or loaded anything."""
    (tmp_path / "graph.html").write_text(page_of(ring(12), communities=[(1, 2, 3, 4, 5), (6, 7)]), encoding="utf-8")
    chromium.open(tmp_path / "graph.html")
    assert chromium.evaluate(DONE)
    yield chromium
    assert chromium.problems() == []
    assert {address.split(":")[0] for address in chromium.requests()} <= {"file", "blob"}


def text(page: Page, selector: str) -> str:
    found: str = page.evaluate(f"document.querySelector({selector!r}).innerText")
    return found


def pick(page: Page, field: str, words: str) -> None:
    page.evaluate(f"document.getElementById({field!r}).select()")
    page.type(words)
    page.press("Enter")
    page.evaluate(CLICKED)


def test_searching_shows_an_entity_with_its_relations(show: Page) -> None:
    assert text(show, "#counts") == "12 entities, 13 relations"
    pick(show, "search", "entity 1")
    assert text(show, "#detail h2") == "entity 1"
    kinds = [line for line in text(show, "#detail").splitlines() if "→" in line or "←" in line]
    assert sorted(kinds) == ["across → (1)", "next to → (1)", "← next to (1)"]


def test_quotes_are_shown_as_text_with_their_place(show: Page) -> None:
    pick(show, "search", "entity 2")
    show.evaluate("for (const row of document.querySelectorAll('#detail details')) row.open = true")
    show.evaluate(CLICKED)
    quotes = text(show, "#detail")
    assert '<img src=x onerror="document.title=1">\ufffd</script>' in quotes
    assert "Nacre, page 2 (characters" in quotes and "papers/nacre.pdf" in quotes and "extract · nano" in quotes
    assert show.evaluate("document.querySelectorAll('#detail img').length") == 0
    assert show.evaluate("document.title") == TITLE


def test_going_to_a_neighbour_by_keys_keeps_the_focus_in_the_panel(show: Page) -> None:
    pick(show, "search", "entity 9")
    show.evaluate("document.querySelector('#detail summary button').focus()")
    show.press("Enter")
    assert text(show, "#detail h2") != "entity 9"
    assert show.evaluate("document.activeElement === document.querySelector('#detail h2')")


def test_a_path_goes_over_the_shortest_way_and_follows_the_filters(show: Page) -> None:
    show.evaluate("document.getElementById('path-box').open = true")
    pick(show, "from", "entity 1")
    pick(show, "to", "entity 6")
    assert text(show, "#detail h2") == "entity 1 to entity 6" and text(show, "#detail .dim") == "1 step"
    show.evaluate("[...document.querySelectorAll('#kinds label')].find(l => l.innerText.includes('across')).click()")
    assert text(show, "#counts") == "12 entities, 12 of 13 relations"
    pick(show, "to", "entity 6")
    assert text(show, "#detail .dim") == "5 steps"


def test_time_goes_back_to_what_was_known_first(show: Page) -> None:
    assert text(show, "#when") == "2 of 2: 2026-11-22 09:30"
    slide = "const t = document.getElementById('time'); t.value = 0; t.dispatchEvent(new Event('input'))"
    show.evaluate(slide)
    assert text(show, "#counts") == "12 entities, 12 of 13 relations"
    assert text(show, "#when") == "1 of 2: 2026-11-21 10:00"


def test_types_can_be_hidden(show: Page) -> None:
    show.evaluate("document.querySelector('#types button:nth-of-type(2)').click()")
    assert text(show, "#counts") == "0 of 12 entities, 0 of 13 relations"
    assert text(show, "#hint") == "the filters hide everything"


def test_communities_are_told_apart_by_shape_too(show: Page) -> None:
    assert text(show, "#colour-by").split("\n") == ["by type", "by community"]
    pick(show, "search", "entity 7")
    assert "community 2" in text(show, "#detail")


def test_clicking_finds_nodes_and_edges_where_they_are_drawn(chromium: Page, tmp_path: Path) -> None:
    pair = Graph(
        entities=(Entity(id=1, name="left"), Entity(id=2, name="right")),
        relations=(Relation(id=1, source=1, kind="likes", target=2),),
        evidence={1: (quote(1, "so it says", RUN, start=0),)},
    )
    (tmp_path / "pair.html").write_text(page_of(pair), encoding="utf-8")
    chromium.open(tmp_path / "pair.html")
    assert chromium.evaluate(DONE)
    middle = chromium.evaluate(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])(canvas.getBoundingClientRect())"
    )
    chromium.click(*middle)
    assert text(chromium, "#detail .fact") == "left likes right" and "so it says" in text(chromium, "#detail")
    chromium.click(30, 100)
    assert "Select an entity" in text(chromium, "#detail")
    pick(chromium, "search", "right")
    chromium.press("Escape")
    assert "Select an entity" in text(chromium, "#detail")
    chromium.click(*middle)
    assert text(chromium, "#detail h2") == "right"


def test_dragging_moves_the_picture(show: Page) -> None:
    before = show.picture()
    show.mouse("mousePressed", 30, 100, button="left", clickCount=1)
    show.mouse("mouseMoved", 130, 200, button="left", buttons=1)
    show.mouse("mouseReleased", 130, 200, button="left", clickCount=1)
    show.evaluate(CLICKED)
    assert show.picture() != before


def test_keys_move_and_zoom_the_picture(show: Page) -> None:
    show.evaluate("canvas.focus()")
    before = show.picture()
    for key in ("+", "ArrowLeft"):
        show.press(key)
        show.evaluate(CLICKED)
        after = show.picture()
        assert after != before
        before = after


def test_light_and_dark_follow_the_system_and_the_button(show: Page) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = show.evaluate(paper)
    show.evaluate("document.getElementById('theme').click()")
    assert show.evaluate(paper) != light
    show.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = show.evaluate("document.documentElement.dataset.theme")
    assert dark == "dark"


@pytest.mark.parametrize(
    "graph",
    [
        Graph(),
        Graph(entities=(Entity(id=1, name="alone"),)),
        Graph(entities=(Entity(id=1, name="self"),), relations=(Relation(id=1, source=1, kind="is", target=1),)),
    ],
    ids=["empty", "one entity", "a relation with itself"],
)
def test_the_smallest_graphs_are_shown_without_complaint(chromium: Page, tmp_path: Path, graph: Graph) -> None:
    (tmp_path / "graph.html").write_text(page_of(graph), encoding="utf-8")
    chromium.open(tmp_path / "graph.html")
    chromium.evaluate(CLICKED)
    assert chromium.problems() == []
    assert text(chromium, "#counts").endswith(f"{len(graph.relations)} relations")


def test_a_browser_that_gives_a_file_no_worker_lays_out_the_page_itself(chromium: Page, tmp_path: Path) -> None:
    script = "window.Worker = class { constructor() { throw new Error('no worker') } }"
    added = chromium.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    (tmp_path / "graph.html").write_text(page_of(ring(12)), encoding="utf-8")
    chromium.open(tmp_path / "graph.html")
    assert chromium.evaluate(DONE)
    chromium.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    assert [address for address in chromium.requests() if address.startswith("blob")] == []
    assert chromium.problems() == []


def test_five_thousand_entities_come_to_rest_and_can_be_searched(chromium: Page, tmp_path: Path) -> None:
    entities = tuple(Entity(id=n, name=f"entity {n}", type=f"type {n % 40}") for n in range(5000))
    run = Run(id=1, kind="extract")
    relations = []
    evidence: dict[int, tuple[Evidence, ...]] = {}
    for n in range(15_000):
        relations.append(Relation(id=n, source=n % 5000, kind=f"kind {n % 60}", target=(n * n * 7 + n) % 5000))
        evidence[n] = (quote(n, f"quote {n}", run, start=n),)
    graph = Graph(entities=entities, relations=tuple(relations), evidence=evidence)
    (tmp_path / "graph.html").write_text(page_of(graph), encoding="utf-8")
    chromium.open(tmp_path / "graph.html")
    pick(chromium, "search", "entity 4321")
    assert text(chromium, "#detail h2") == "entity 4321"
    assert chromium.evaluate(DONE)
    assert chromium.problems() == []
