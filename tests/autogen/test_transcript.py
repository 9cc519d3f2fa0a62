from dataclasses import replace

import pytest
from autogen_agentchat.messages import HandoffMessage, TextMessage, ThoughtEvent
from autogen_core.models import AssistantMessage, UserMessage

from preflexor_agents.autogen.transcript import Teller, Transcript, lines_of, turn_message, watched
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Event, RunFinished, RunStarted, Steered, StepFailed, TextDelta
from preflexor_agents.reflection import engine
from preflexor_agents.reflection.perform import Control
from tests.autogen.voices import CONFIG, QUESTION, Shelf, Voices, cast_of, with_ids


async def run(question: str = QUESTION, **texts) -> list[Event]:
    """A run with passages, citations, a word from the user and a failed step."""
    cast, control = cast_of(Voices({"integrate": BackendError("out of words"), **texts})), Control()
    control.said.append("use SI units")
    events = engine.run(question, cast=cast, config=CONFIG, library=Shelf(), store="s", control=control)
    return [event async for event in events]


def heard(*turns: TextMessage, by: Transcript | None = None) -> Transcript:
    transcript = by or Transcript()
    for turn in turns:
        transcript.read([turn])
    return transcript


def turns_of(events: list[Event], size: int) -> list[TextMessage]:
    """The run as it is told in turns of some events each."""
    speaker, told = Transcript(), []
    for n, event in enumerate(events):
        speaker.take(event)
        if n % size == size - 1 or n == len(events) - 1:
            told.append(turn_message(speaker.tell(), source="thinker"))
    return told


@pytest.mark.parametrize("emit", ["events", "messages"])
async def test_a_live_message_gives_back_the_event_that_it_was_made_of(emit):
    events = await run()
    assert {type(e) for e in events} > {Steered, StepFailed, TextDelta, RunFinished}
    teller = Teller("thinker", emit=emit)
    assert [watched(teller.live(e)) for e in events] == events


@pytest.mark.parametrize(
    "end",
    [
        RunFinished(answer="", stop_reason="failed", error="no model", seconds=0.1),
        RunFinished(answer="No answer can be given.", stop_reason="budget_tokens", best_round=3, integrated=True),
    ],
)
def test_an_end_with_and_without_an_answer_is_told_apart(end):
    assert watched(Teller("a").live(end)) == end


def test_messages_of_others_carry_no_event():
    for message in (TextMessage(content="x", source="a"), ThoughtEvent(content="x", source="a"), "text", None):
        assert watched(message) is None


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_whoever_hears_all_turns_knows_the_run(size):
    events = await run()
    transcript = heard(*turns_of(events, size))
    assert transcript.heard == [e for e in events if not isinstance(e, TextDelta)]
    assert transcript.state is not None and transcript.state.finished == events[-1]


async def test_hearing_turns_twice_or_out_of_date_does_no_harm():
    first, second = turns_of(await run(), 5), turns_of(await run("And bone?"), 5)
    expected = heard(*second)
    assert heard(*first, *first[2:], *second, *first, *second[1:]).state == expected.state


async def test_a_gap_is_left_open_until_somebody_tells_it_all_again():
    events = await run()
    told = turns_of(events, 5)
    transcript = heard(*told[:2], *told[3:])
    assert len(transcript.heard) < len([e for e in events if not isinstance(e, TextDelta)])
    speaker = heard(*told)
    heard(turn_message(speaker.tell(again=True), source="critic"), by=transcript)
    assert transcript.state == speaker.state


async def test_a_transcript_comes_back_from_json():
    transcript = heard(*turns_of(await run(), 4))
    assert Transcript.from_json(transcript.to_json()).to_json() == transcript.to_json()


@with_ids
async def test_a_question_that_is_delivered_again_does_not_end_the_run():
    question = TextMessage(content=QUESTION, source="user")
    told = turns_of(await run(), 5)
    transcript = Transcript()
    transcript.read([question, *told[:2]])
    before = list(transcript.heard)
    transcript.read([question, *told[:2]])
    assert transcript.heard == before and transcript.question == QUESTION


async def test_a_new_question_begins_anew():
    transcript = heard(*turns_of(await run(), 5))
    transcript.read([TextMessage(content="And bone?", source="user"), TextMessage(content="Briefly.", source="boss")])
    assert transcript.question == "user: And bone?\nboss: Briefly." and transcript.state is None


def test_a_hand_over_says_what_it_brings_along():
    stock = HandoffMessage(
        content="Transferred to reflect, adopting the role of reflect immediately.", source="a", target="reflect"
    )
    words = HandoffMessage(content="How tough is nacre?", source="user", target="reflect")
    context = [UserMessage(content="q", source="user"), AssistantMessage(content="a", source="writer")]
    bringing = HandoffMessage(content="relevant", source="a", target="", context=context)
    assert lines_of([stock]) == []
    assert lines_of([words]) == [("user", "How tough is nacre?")]
    assert lines_of([bringing]) == [("user", "q"), ("writer", "a")]


async def test_the_clock_of_a_run_is_part_of_its_name():
    events = await run()
    later = [replace(e, started_at=e.started_at + 1) if isinstance(e, RunStarted) else e for e in events]
    transcript = heard(*turns_of(events, 5), *turns_of(later, 5)[:1])
    assert transcript.state is not None and not transcript.state.finished
