"""What must not bring the chat down, nor cost anybody a word: crashes, dead servers, locks, sizes, hostile text."""

from pathlib import Path

import pytest
from textual import events

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.errors import ModelError
from preflexor_agents.session import open_cast
from preflexor_agents.store import Store
from preflexor_agents.store import driver as sqlite
from preflexor_agents.store.sessions import Sessions
from preflexor_tui.engine import Engine
from preflexor_tui.widgets.composer import Composer
from preflexor_tui.widgets.inert_markdown import InertMarkdown
from preflexor_tui.widgets.notice import Notice
from preflexor_tui.widgets.round_card import RoundCard
from tests.fakes.ollama_stub import Gate, OllamaStub, StubModel, says
from tests.tui import chatting
from tests.tui.chatting import ask, make_app, over, shown, type_in, until, voices

EVIL = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07 \x9b31m bell\x07 back\x08space \r return "
    "[link=https://example.org]markup[/link] <b>html</b> <|/thinking|> \u202egnp.exe"
)


async def test_a_crash_inside_the_engine_is_shown_and_can_be_retried() -> None:
    calls: list[Request] = []

    def crash_once(request: Request) -> Reply:
        calls.append(request)
        if len(calls) == 1:
            raise ZeroDivisionError("boom")
        return chatting.WORDS[chatting.stage_of(request)]

    app = make_app(ScriptedBackend(crash_once))
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        assert "ZeroDivisionError: boom" in shown(pilot) and "Traceback" not in shown(pilot)
        await pilot.click("TurnView .retry")
        await until(pilot, lambda: bool(app.chat.shown and app.chat.shown.answer))


async def test_a_model_that_cannot_be_opened_is_said_and_another_can_be_chosen() -> None:
    def choose(model: str) -> ScriptedBackend:
        if model == "broken":
            raise ModelError("there is no model file broken.gguf; name another")
        return voices()

    app = make_app(choose, model="broken")
    async with app.run_test(size=(120, 30)) as pilot:
        await over(pilot)
        assert "no model file broken.gguf" in shown(pilot)
        await ask(pilot, "How tough is nacre?")
        assert "no model file broken.gguf" in app.chat.conversation.turns[0].failure
        await type_in(pilot, "/model scripted")
        await over(pilot)
        assert not app.chat.query_one(Notice).display
        await pilot.click("TurnView .retry")
        await over(pilot)
        assert app.chat.shown.answer and len(app.chat.conversation.turns) == 1


async def test_a_server_that_stops_in_the_middle_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with OllamaStub(StubModel()) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        name = next(iter(stub.models))
        stub.script.append(says("<|thinking|>hm<|/thinking|>A first half", gate, " and a second"))
        app = make_app(model=f"ollama:{name}")
        app.engine = Engine(open_cast=open_cast, open_store=lambda *_: None)
        async with app.run_test(size=(120, 30)) as pilot:
            await over(pilot)
            await type_in(pilot, "How tough is nacre?")
            await until(pilot, gate.reached.is_set)
            stub.stop()
            await over(pilot)
            assert app.chat.shown.finished is not None and app.chat.shown.finished.stop_reason == "failed"
            assert "✗" in shown(pilot) and "How tough is nacre?" in shown(pilot)


async def test_a_locked_store_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "store.db"
    Sessions.open(path).close()
    lock = sqlite.connect(path)
    lock.conn.execute("BEGIN IMMEDIATE")
    app = make_app(sessions=path)
    async with app.run_test(size=(120, 30)) as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        assert app.chat.shown.answer and "not saved yet" in shown(pilot) and "locked" in shown(pilot)
        lock.close()
        await pilot.click("#notice .retry")
        await over(pilot)
        assert not app.chat.query_one(Notice).display
        saved = app.chat.conversation.turns[0].entry.run_id or 0
        log = await app.journal.call(lambda sessions: sessions.events(saved))
        assert log == app.chat.conversation.turns[0].driver.log.events


async def test_a_terminal_of_20_by_5_and_back() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await over(pilot)
        await chatting.play(pilot, chatting.story())
        before = shown(pilot)
        for size in ((20, 5), (1, 1), (250, 3), (20, 5)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await ask(pilot, "in a small terminal?")
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert "Why does nacre resist cracks?" in before and app.chat.shown.answer
        assert "in a small terminal?" in shown(pilot)


async def test_a_megabyte_pasted_stays_whole_and_is_refused_in_one_line() -> None:
    app = make_app(ScriptedBackend(lambda _: "x", context_tok=1000))
    megabyte = "word " * 200_000
    async with app.run_test() as pilot:
        await over(pilot)
        composer = app.chat.query_one(Composer)
        composer.post_message(events.Paste(megabyte))
        await until(pilot, lambda: "pasted text 1: 1,000,000 characters" in composer.text)
        assert composer.whole_text == megabyte
        await pilot.press("enter")
        await over(pilot)
        assert "takes 200" in app.chat.conversation.turns[0].failure and "shorten it" in shown(pilot)
        await type_in(pilot, "/edit")
        await over(pilot)
        assert composer.whole_text == megabyte.strip()


async def test_hostile_text_is_inert_wherever_it_is_shown(tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text(f"# Nacre {EVIL}\n\nNacre is tough {EVIL}.\n", encoding="utf-8")
    with Store.open(tmp_path / "store.db") as store:
        store.ingest([note])
    backend = voices(
        draft=f"<|thinking|>{EVIL}<|/thinking|>Nacre is tough {EVIL}", critique=f"{EVIL} Verdict: revise", revise=EVIL
    )
    app = make_app(backend, store=tmp_path / "store.db", sessions=tmp_path / "sessions.db")
    async with app.run_test(size=(140, 50)) as pilot:
        await over(pilot)
        await ask(pilot, f"Is nacre tough? {EVIL}")
        for card in app.query(RoundCard):
            card.focus()
            for key in ("enter", "t", "c", "d", "d"):
                await pilot.press(key)
                text = shown(pilot)
                assert not [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e"]
        assert "␛[2J" in text and "<b>html</b>" in text and "[link=" in text
        await pilot.press("escape")
        await ask(pilot, "another?")
        settled = app.query_one(".final InertMarkdown", InertMarkdown)
        written = "".join(settled.render_line(y).text for y in range(settled.size.height))
        assert "<b>html</b>" in written and not [c for c in written if ord(c) < 32 or 127 <= ord(c) < 160]


async def test_a_link_in_an_answer_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    app = make_app(
        voices(draft="<|thinking|>t<|/thinking|>[here](https://example.org/x) ![i](http://example.org/y.png)"), rounds=1
    )
    monkeypatch.setattr(app, "open_url", lambda url, **_: opened.append(url))
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "q")
        await pilot.click(".final InertMarkdown", offset=(1, 1))
        await pilot.pause()
        assert opened == [] and "here" in shown(pilot)


async def test_the_first_picture_comes_before_the_model() -> None:
    import asyncio

    loading = asyncio.Event()

    async def slow(model: str, others: object) -> dict[object, object]:
        await loading.wait()
        return dict.fromkeys(chatting.MODEL_ROLES, voices())

    app = make_app()
    app.engine = Engine(open_cast=slow, open_store=lambda *_: None)  # type: ignore[arg-type]
    async with app.run_test() as pilot:
        await until(pilot, lambda: "loading scripted" in shown(pilot))
        assert "Ask a question." in shown(pilot)
        await type_in(pilot, "How tough is nacre?")
        assert "How tough is nacre?" in shown(pilot)
        loading.set()
        await over(pilot)
        assert app.chat.shown.answer


async def test_finished_rounds_cost_one_line_until_they_are_opened() -> None:
    app = make_app(rounds=2)
    async with app.run_test() as pilot:
        await over(pilot)
        await chatting.play(pilot, chatting.story())
        assert all(len(card.children) == 1 for card in app.query(RoundCard))
        await pilot.press("ctrl+o", "enter")
        await pilot.pause()
        assert len(list(app.query(RoundCard))[-1].children) == 2


async def test_ctrl_t_shows_the_thinking_of_open_rounds() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await over(pilot)
        await chatting.play(pilot, chatting.story())
        await pilot.press("ctrl+o", "up", "enter", "ctrl+t")
        await pilot.pause()
        assert "Name both mechanisms" in shown(pilot)
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert "Name both mechanisms" not in shown(pilot)
