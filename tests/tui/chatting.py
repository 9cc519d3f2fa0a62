"""What the tests of the chat share: scripted models, a story of three rounds as events, an app on either."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from preflexor_agents import prompts
from preflexor_agents.backends.base import Backend, Completion, Delta, Request
from preflexor_agents.backends.scripted import Gate, Reply, ScriptedBackend
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import (
    Citation,
    Cited,
    Event,
    Passage,
    Retrieved,
    Role,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Stage,
    Steered,
    StepFinished,
    StepStarted,
    TextDelta,
    Timed,
    Usage,
)
from preflexor_agents.session import MODEL_ROLES
from preflexor_agents.settings import Settings
from preflexor_agents.store import Store
from preflexor_agents.trace import read_trace
from preflexor_tui.app import PreflexorApp
from preflexor_tui.engine import Engine, Tell
from preflexor_tui.screens.chat import ChatScreen
from preflexor_tui.setup import Setup
from preflexor_tui.widgets.composer import Composer

TASKS = {
    prompts.CRITIQUE: "critique",
    prompts.REVISE: "revise",
    prompts.JUDGE: "judge",
    prompts.INTEGRATE: "integrate",
}
WORDS = {
    "draft": "<|thinking|>Aragonite is brittle, so it is the glue.<|/thinking|>Nacre is tough because of its glue.",
    "critique": "It names no mechanism. Verdict: revise",
    "revise": "Tablets slide over each other.",
    "answer": "Nacre is tough because its tablets slide.",
    "judge": "The second names the mechanism. Better: tie",
    "integrate": "Nacre is tough because its tablets slide.",
}
NANO_TRACE = Path(__file__).parent / "data" / "nacre.jsonl"
UNTIL_S = 20.0


def stage_of(request: Request) -> str:
    """What a request asks for."""
    task = request.messages[-1].content.rsplit("\n\n", 1)[-1]
    return TASKS.get(task) or ("draft" if request.thinking is None else "answer")


def voices(*, gates: Mapping[int, Gate] | None = None, **words: Reply) -> ScriptedBackend:
    """A model that says the same at each stage; the call with a gate halts in the middle of its reply."""
    spoken: dict[str, Reply] = {**WORDS, **words}
    return ScriptedBackend(lambda request: spoken[stage_of(request)], gates=gates)


def make_app(
    backend: ScriptedBackend | Callable[[str], ScriptedBackend] | None = None,
    *,
    sessions: Path | None = None,
    store: Path | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    **settings: Any,
) -> PreflexorApp:
    """The app on a scripted model; settings as on the command line."""

    async def open_cast(model: str, others: Mapping[Role, str]) -> dict[Role, ScriptedBackend]:
        chosen = voices() if backend is None else backend if isinstance(backend, ScriptedBackend) else backend(model)
        return dict.fromkeys(MODEL_ROLES, chosen)

    def open_store(_: Settings, __: Tell) -> Store | None:
        return None if store is None else Store.open(store)

    setup = Setup(settings=Settings(**({"model": "scripted", "rounds": 2} | settings)))
    engine = Engine(open_cast=open_cast, open_store=open_store)
    return PreflexorApp(setup=setup, engine=engine, sessions=sessions, clock=clock)


class Halting:
    """A real model that halts in the middle of the reply of a call, so that a test can say when things happen."""

    def __init__(self, backend: Backend, gates: Mapping[int, Gate]) -> None:
        self._backend, self._gates = backend, gates
        self._calls = 0
        self.spec, self.context_tok, self.native_tags = backend.spec, backend.context_tok, backend.native_tags
        self.count_tok, self.aclose = backend.count_tok, backend.aclose

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        gate = self._gates.get(self._calls)
        self._calls += 1
        pieces = 0
        async with aclosing(self._backend.generate(request)) as stream:
            async for item in stream:
                yield item
                pieces += 1
                if gate is not None and pieces == 3:
                    gate.reached.set()
                    await gate.open.wait()


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Let the app work until something holds."""
    deadline = asyncio.get_running_loop().time() + UNTIL_S
    while not holds():
        await pilot.pause(0.01)
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited in vain; on the screen:\n{shown(pilot)}")
    await pilot.pause()


async def type_in(pilot: Pilot[None], text: str) -> None:
    """Put a text into the composer and press enter."""
    chat(pilot).query_one(Composer).load(text)
    await pilot.press("enter")
    await pilot.pause()


async def ask(pilot: Pilot[None], question: str) -> None:
    """Ask and wait for the end of the run."""
    await type_in(pilot, question)
    await over(pilot)


async def over(pilot: Pilot[None]) -> None:
    """Wait until nothing runs any more and everything is saved and drawn."""
    app = pilot.app
    assert isinstance(app, PreflexorApp)
    await until(pilot, lambda: app.chat.active is None and not running(app))


def running(app: PreflexorApp) -> list[str]:
    """Work that is going on."""
    return [worker.name for worker in app.workers if not worker.is_finished and worker.name in ("run", "load", "act")]


def chat(pilot: Pilot[None]) -> ChatScreen:
    """The chat on the screen."""
    assert isinstance(pilot.app, PreflexorApp)
    return pilot.app.chat


def shown(pilot: Pilot[None]) -> str:
    """Every line on the screen."""
    screen = pilot.app.screen
    return "\n".join(
        "".join(segment.text for segment in strip).rstrip() for strip in screen._compositor.render_strips()
    )


def nano_events() -> list[Timed]:
    """A run of nano, as recorded."""
    return list(read_trace(NANO_TRACE))


# ---- a story for the eyes: three rounds, three drafts, one word from the user, with fixed times

SOURCE = Passage(
    chunk_id=7,
    source="papers/nacre-review.pdf",
    title="Toughness of nacre: a review",
    page=4,
    start=100,
    end=190,
    text="Cracks in nacre are deflected along the weak interfaces, and the tablets slide before they break.",
)
OTHER = Passage(
    chunk_id=9,
    source="papers/biominerals.md",
    title="Biominerals",
    start=0,
    end=80,
    text="Aragonite alone is brittle: its toughness is about 0.25 MPa m^0.5, some 20 times less than that of nacre.",
)
THINKING = (
    "The question is about toughness, not stiffness. Aragonite is brittle, so the mineral alone cannot explain it. "
    "Something between the tablets must dissipate energy when a crack grows."
)
DRAFTS = (
    "Nacre is tough because the protein between its tablets works as a glue.",
    "Nacre resists cracks because its **tablets slide** and the crack is deflected.",
    "Nacre is tough since it is mostly aragonite.",
)
CRITIQUE = (
    "The draft names the mechanism but gives no number, and it does not say what happens at the crack tip. "
    "Verdict: revise"
)
REVISED = "Name both mechanisms, sliding and deflection, and give the factor against aragonite from passage 2."
ANSWERS = (
    DRAFTS[1],
    "Nacre resists cracks in two ways:\n\n- its **tablets slide** over each other, which spends energy;\n"
    "- weak interfaces **deflect** the crack.\n\nIt is about 20 times tougher than aragonite.",
    "Nacre resists cracks because it is layered, about 20 times better than aragonite.",
)
QUESTION = "Why does nacre resist cracks?"


def story(*, until_round: int = 3, ended: bool = True) -> list[Event]:
    """The run, or its beginning."""
    config = ReflectConfig(rounds=3, candidates=3, budget_tok=4096, budget_s=300.0)
    models = dict.fromkeys(MODEL_ROLES, "ollama:qwen3:4b")
    events: list[Event] = [
        RunStarted(
            question=QUESTION, models=models, config=asdict(config), store="papers.db", started_at=0.0, version="0"
        )
    ]
    rounds = (_first, _second, _third)
    for make in rounds[:until_round]:
        events += make()
    if ended:
        citation = Citation(
            number=1,
            chunk_id=SOURCE.chunk_id,
            source=SOURCE.source,
            title=SOURCE.title,
            page=SOURCE.page,
            start=SOURCE.start,
            end=SOURCE.end,
            quote=SOURCE.text,
            claim="its tablets slide",
        )
        unsupported = ("It is about 20 times tougher than aragonite.",)
        events += [
            StepStarted(round=3, role="librarian", stage="cite"),
            Cited(citations=(citation,), unsupported=unsupported),
            RunFinished(
                answer=ANSWERS[1].replace("energy;", "energy [1];"),
                stop_reason="rounds",
                best_round=2,
                usage=Usage(prompt=9120, cached=7000, generated=1480),
                seconds=41.5,
            ),
        ]
    return events


def call(
    round: int, role: Role, stage: Stage, *, answer: str = "", thinking: str = "", candidate: int = 0, tok: int = 100
) -> list[Event]:
    """A whole call: begun, written in two pieces, finished."""
    at: dict[str, Any] = {"round": round, "role": role, "stage": stage, "candidate": candidate}
    half = len(answer) // 2
    return [
        StepStarted(**at),
        *([TextDelta(**at, channel="thinking", text=thinking)] if thinking else []),
        TextDelta(**at, channel="answer", text=answer[:half]),
        TextDelta(**at, channel="answer", text=answer[half:]),
        StepFinished(
            **at,
            thinking=thinking,
            answer=answer,
            usage=Usage(prompt=900, cached=700, generated=tok),
            seconds=tok / 50,
            model="ollama:qwen3:4b",
        ),
    ]


def _first() -> list[Event]:
    drafts = [
        e
        for n, text in enumerate(DRAFTS)
        for e in call(1, "thinker", "draft", answer=text, thinking=THINKING, candidate=n)
    ]
    duels = [
        *call(1, "judge", "select", answer="Better: B", candidate=2, tok=20),
        *call(1, "judge", "select", answer="Better: A", candidate=3, tok=20),
        *call(1, "judge", "select", answer="Better: A", candidate=4, tok=20),
        *call(1, "judge", "select", answer="Better: B", candidate=5, tok=20),
    ]
    return [
        RoundStarted(round=1),
        StepStarted(round=1, role="librarian", stage="retrieve"),
        Retrieved(round=1, query=QUESTION, passages=(SOURCE, OTHER), seconds=0.02),
        *drafts,
        *duels,
        RoundFinished(round=1, thinking=THINKING, answer=ANSWERS[0], accepted=True, reason="draft 2 of 3 chosen"),
    ]


def _second() -> list[Event]:
    return [
        Steered(text="Say what happens at the crack tip, with a number."),
        RoundStarted(round=2, steering=("Say what happens at the crack tip, with a number.",)),
        *call(2, "critic", "critique", answer=CRITIQUE, tok=80),
        *call(2, "reviser", "revise", answer=REVISED, tok=90),
        *call(2, "thinker", "answer", answer=ANSWERS[1], tok=120),
        RoundFinished(
            round=2, thinking=REVISED, answer=ANSWERS[1], accepted=True, score=0.75,
            reason="the judge found it better (0.75)",
        ),
    ]  # fmt: skip


def _third() -> list[Event]:
    return [
        RoundStarted(round=3),
        *call(3, "critic", "critique", answer="Shorter would do. Verdict: revise", tok=30),
        *call(3, "reviser", "revise", answer="Say it in one sentence.", tok=40),
        *call(3, "thinker", "answer", answer=ANSWERS[2], tok=60),
        RoundFinished(
            round=3, thinking="Say it in one sentence.", answer=ANSWERS[2], accepted=False, score=0.25,
            reason="the judge found it not better (0.25)",
        ),
    ]  # fmt: skip


async def held(events: Iterable[Event], gate: asyncio.Event) -> AsyncGenerator[Event, None]:
    """The events, and then nothing until the gate is opened."""
    for event in events:
        yield event
    await gate.wait()


async def play(pilot: Pilot[None], events: list[Event], *, gate: asyncio.Event | None = None) -> None:
    """Show events as a run; with a gate the run is still going afterwards."""
    screen = chat(pilot)
    opened = gate or asyncio.Event()
    if gate is None:
        opened.set()
    question = next((e.question for e in events if isinstance(e, RunStarted)), QUESTION)
    turn = screen.conversation.begin(question)
    screen.start(turn, held(events, opened))
    if gate is None:
        await over(pilot)
    else:
        await until(pilot, lambda: len(turn.driver.run.rounds) == sum(isinstance(e, RoundStarted) for e in events))
        await pilot.pause(0.15)
