"""A run as one HTML file: whole, and inert whatever a model or a document says."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selectolax.lexbor import LexborHTMLParser

from preflexor_agents.cli.main import cli
from preflexor_agents.events import (
    Citation,
    Cited,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    StepFinished,
    Usage,
)
from preflexor_agents.report import report
from preflexor_agents.report_html import as_html
from preflexor_agents.trace import TraceWriter

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)> [go](javascript:alert(1)) ![i](http://evil.example/i)"
    ' <http://evil.example> "\' onload= \x1b[2J \u202egnp.exe \ud800 </title></style><iframe src="//evil.example">'
)


def events(text: str = EVIL) -> list[Any]:
    citation = Citation(number=1, chunk_id=1, source=text, title=text, page=3, start=0, end=4, quote=text, claim=text)
    return [
        RunStarted(question=text, models={"thinker": text}, config={"seed": 1, "preset": text}, started_at=0.0),
        RoundStarted(round=1, steering=(text,)),
        StepFinished(round=1, role="critic", stage="critique", answer=text, usage=Usage(generated=7), seconds=1.5),
        RoundFinished(round=1, thinking=text, reflection=text, answer=text, accepted=False, score=0.5, reason=text),
        Cited(citations=(citation,), unsupported=(text,)),
        RunFinished(answer=text, stop_reason="failed", error=text),
    ]


def test_nothing_that_is_said_becomes_markup() -> None:
    page = LexborHTMLParser(as_html(report(events())))
    allowed = "html head meta title style body h1 main p h2 h3 details summary span div blockquote ul li footer"
    assert {node.tag for node in page.css("*")} <= set(allowed.split())
    found = {(node.tag, name) for node in page.css("*") for name in node.attributes}
    assert {name for _, name in found} <= {"charset", "http-equiv", "content", "name", "class", "open", "lang"}
    assert page.body is not None and page.body.text().count("<script>alert(1)</script>") >= 10


def test_control_characters_are_shown_as_what_they_are_not() -> None:
    html = as_html(report(events()))
    html.encode("utf-8")
    assert not set(html) & {"\x1b", "\u202e"} and "\ufffd[2J" in html


def test_the_page_may_fetch_and_run_nothing() -> None:
    page = LexborHTMLParser(as_html(report(events("plain"))))
    policy = page.css_first('meta[http-equiv="Content-Security-Policy"]').attributes["content"]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_all_of_the_run_is_in_it() -> None:
    page = LexborHTMLParser(as_html(report(events("word"))))
    assert page.body is not None
    text = " ".join(page.body.text(separator=" ").split())
    for piece in (
        "[1] word word, page 3",
        "the answer before was kept, score 0.50",
        "You added: word",
        "7 tokens",
        "Critique",
        "Failed: word",
    ):
        assert piece in text, piece


def test_an_answer_keeps_its_markdown() -> None:
    page = LexborHTMLParser(as_html(report(events("- **tough**\n- light\n\n| a | b |\n|---|---|\n| 1 | 2 |"))))
    assert page.css_first("main li strong").text() == "tough"
    assert [cell.text() for cell in page.css("main td")] == ["1", "2"]


def test_a_run_that_has_only_begun_makes_a_page() -> None:
    assert "(no answer)" in as_html(report(events()[:1]))
    assert "(no answer)" in as_html(report([]))


@pytest.mark.parametrize("text", ["plain", "caf\u00e9 \u4e2d\u6587"])
def test_a_trace_is_exported_as_html(tmp_path: Path, text: str) -> None:
    trace, out = tmp_path / "run.jsonl", tmp_path / "run.html"
    with TraceWriter(trace) as writer:
        for event in events(text):
            writer.write(event)
    done = CliRunner().invoke(cli, ["trace", "export", str(trace), "--format", "html", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert text in out.read_text(encoding="utf-8")
