import io
import json
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from preflexor_agents.cli.show import Printer, inert
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import TraceError
from preflexor_agents.events import RunStarted, StepFinished, from_json, to_json
from preflexor_agents.report import SCHEMA, as_markdown, report
from preflexor_agents.trace import TraceWriter, read_trace
from tests.agents.driving import drive, passage
from tests.agents.test_protocol import IMPROVES, with_judge


@pytest.fixture
def run():
    return drive(replace(ReflectConfig(), candidates=2), with_judge(IMPROVES, "4.5"), passages=[passage(1)])


@pytest.fixture
def trace(run, tmp_path):
    path = tmp_path / "deep" / "run.jsonl"
    with TraceWriter(path) as writer:
        for event in run.events:
            writer.write(event)
    return path


def printed(events) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    printer = Printer(console)
    for event in events:
        printer.show(event)
    return console.export_text()


def test_a_trace_gives_back_every_event(run, trace):
    assert [t.event for t in read_trace(trace)] == run.events


def test_a_replayed_run_prints_the_same(run, trace):
    text = printed(t.event for t in read_trace(trace))
    assert text == printed(run.events)
    assert "the judge found it better" in text


def test_a_trace_cut_in_its_last_line_gives_what_came_before(run, trace):
    text = trace.read_text(encoding="utf-8")
    trace.write_text(text[:-20], encoding="utf-8")
    assert [t.event for t in read_trace(trace)] == run.events[:-1]


def test_a_trace_damaged_in_the_middle_is_refused_with_the_line(trace):
    lines = trace.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3][:10]
    trace.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TraceError, match="line 4"):
        list(read_trace(trace))


@pytest.mark.parametrize(
    "content", ["", "\n", "hello\n", "[1]\n", '{"format": "preflexor-trace", "version": 99}\n', '{"format": "x"}\n']
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, content):
    path = tmp_path / "t"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TraceError):
        list(read_trace(path))


def test_binary_missing_and_folder_are_refused(tmp_path):
    binary = tmp_path / "b"
    binary.write_bytes(bytes(range(256)))
    for path in (binary, tmp_path / "none", tmp_path):
        with pytest.raises(TraceError):
            list(read_trace(path))


def test_a_trace_is_never_overwritten(trace):
    with pytest.raises(TraceError, match="exists"):
        TraceWriter(trace)


def test_the_report_validates_and_adds_up(run):
    result = report(run.events)
    jsonschema.validate(json.loads(json.dumps(result)), SCHEMA)
    assert result["usage"]["calls"] == len(run.calls)
    assert result["usage"]["generated"] == run.state.usage.generated
    assert [r["accepted"] for r in result["rounds"]][:2] == [True, True]
    assert result["rounds"][1]["critique"] == "Wrong number. Verdict: revise"


@pytest.mark.parametrize("cut", range(0, 30, 3))
def test_the_report_of_a_cut_off_run_validates_too(run, cut):
    jsonschema.validate(json.loads(json.dumps(report(run.events[:cut]))), SCHEMA)


def test_markdown_holds_question_answer_and_rounds(run):
    text = as_markdown(report(run.events))
    assert text.startswith("# How tough is nacre?") and "## Round 2: taken" in text


@pytest.mark.parametrize(
    "data",
    [
        {"event": "Nope"},
        {},
        {"event": "RoundStarted"},
        {"event": "RoundStarted", "round": 1, "colour": "red"},
        {"event": "StepFinished", "round": 1, "role": "king", "stage": "gate"},
    ],
)
def test_an_event_that_is_none_is_refused(data):
    with pytest.raises(TraceError):
        from_json(data)


def test_steering_a_terminal_by_text_is_impossible(run):
    evil = StepFinished(round=1, role="critic", stage="critique", answer="\x1b]0;owned\x07 \x1b[2J \x9b31m \u202eabc")
    text = printed([*run.events[:2], evil])
    assert not any(c in text for c in "\x1b\x07\x9b\u202e")
    assert inert("a\tb\nc\x00") == "a\tb\nc\u2400"


def test_events_survive_json(run):
    for event in run.events:
        assert from_json(json.loads(json.dumps(to_json(event)))) == event
    assert isinstance(run.events[0], RunStarted)
