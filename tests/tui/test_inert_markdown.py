"""Answers while they grow: the same lines as at once, one widget, text that can be selected, short pauses."""

import asyncio
import gc

import pytest
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll

from preflexor_agents.events import StepStarted
from preflexor_tui.collecting import short_pauses
from preflexor_tui.driver import Driver
from preflexor_tui.widgets.inert_markdown import InertMarkdown
from preflexor_tui.widgets.text import CUT_CHARS, TAIL_CHARS, Flow

PAGE = """# Title of *it*

Setext
------

With `code`, **bold**, a [link](https://example.org/x), an ![image](http://example.org/y.png), and [one below][1].

1. one
2. two, which is long enough to take more than one line of the screen, however narrow or wide it is
   - within

     with a paragraph

> quoted
> twice

```python
def f(x):

    return "a" * x
```

| name | value |
|---|---:|
| nacre | 10.5 |

1. a list that a line goes on
**lazily**

<b>html</b> \x1b[31mred 日本語 &#8238;

[1]: https://example.org/below
"""


class Page(App[None]):
    """One text on a screen."""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield InertMarkdown()
            yield Flow()


def lines(markdown: InertMarkdown) -> list[str]:
    return [markdown.render_line(y).text.rstrip() for y in range(markdown.size.height)]


async def written_whole(width: int) -> list[str]:
    app = Page()
    async with app.run_test(size=(width, 60)) as pilot:
        app.query_one(InertMarkdown).show(PAGE)
        await pilot.pause()
        return lines(app.query_one(InertMarkdown))


@pytest.mark.parametrize(("step", "width"), [(1, 70), (7, 30), (64, 70)])
async def test_text_that_grows_ends_as_if_it_had_come_at_once(step: int, width: int) -> None:
    app = Page()
    async with app.run_test(size=(width, 60)) as pilot:
        markdown = app.query_one(InertMarkdown)
        for end in range(0, len(PAGE), step):
            markdown.show(PAGE[:end])
            if end % 5 == 0:
                await pilot.pause()
        markdown.show(PAGE)
        await pilot.pause()
        assert lines(markdown) == await written_whole(width)


async def test_markdown_shows_what_it_means_and_nothing_that_could_steer_a_terminal() -> None:
    text = "\n".join(await written_whole(70))
    assert "https://example.org/below" in text and "🖼 image" in text and "http://example.org/y.png" not in text
    assert "<b>html</b>" in text and "␛[31mred" in text
    assert not any(mark in text for mark in ("\u202e", "**", "# "))


async def test_text_follows_the_width_and_other_text_takes_its_place() -> None:
    app = Page()
    async with app.run_test(size=(70, 60)) as pilot:
        markdown = app.query_one(InertMarkdown)
        markdown.show(PAGE)
        await pilot.pause()
        await pilot.resize_terminal(30, 60)
        await pilot.pause()
        assert lines(markdown) == await written_whole(30)
        markdown.show("something else")
        await pilot.pause()
        assert lines(markdown) == ["something else"]


async def test_an_answer_can_be_selected() -> None:
    app = Page()
    async with app.run_test(size=(70, 60)) as pilot:
        app.query_one(InertMarkdown).show("Nacre is **tough**.\n\n日本語 too.")
        await pilot.pause()
        app.query_one(InertMarkdown).text_select_all()
        await pilot.pause()
        assert app.screen.get_selected_text() == "Nacre is tough.\n\n日本語 too."
        assert lines(app.query_one(InertMarkdown)) == ["Nacre is tough.", "", "日本語 too."]


async def test_what_is_left_out_of_a_text_that_grows_changes_in_steps() -> None:
    app = Page()
    text = "word " * TAIL_CHARS
    async with app.run_test(size=(70, 60)) as pilot:
        flow = app.query_one(Flow)
        begins = []
        for end in range(TAIL_CHARS, TAIL_CHARS + 2 * CUT_CHARS, 10):
            flow.show(text[:end], growing=True)
            begins.append(str(flow.content)[0] == "…")
            await pilot.pause()
        assert begins == sorted(begins) and begins.count(False) == CUT_CHARS // 10
        flow.show(text, growing=False)
        assert str(flow.content) == text


async def test_the_garbage_collector_is_as_before_when_a_run_is_over() -> None:
    before, frozen = gc.get_threshold(), []

    async def events():  # type: ignore[no-untyped-def]
        yield StepStarted(round=1, stage="draft", role="thinker")
        frozen.append(gc.get_freeze_count())
        raise asyncio.CancelledError

    async def paint() -> None:
        pass

    with pytest.raises(asyncio.CancelledError):
        await Driver("q").follow(events(), paint)
    assert frozen[0] > 0 and gc.get_freeze_count() == 0 and gc.get_threshold() == before
    with short_pauses():
        assert gc.get_threshold() != before
