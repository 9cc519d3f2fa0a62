"""Does what a command in the composer says."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.errors import InputError
from preflexor_agents.trace import read_trace
from preflexor_tui.conversation import Turn
from preflexor_tui.screens import chat_acts
from preflexor_tui.setup import changed
from preflexor_tui.slash import Given
from preflexor_tui.state.run import Run

if TYPE_CHECKING:
    from preflexor_tui.screens.chat import ChatScreen

Handler = Callable[["ChatScreen", str], Awaitable[None]]
SETUP = (
    "model", "role", "rounds", "candidates", "temperature", "store", "preset", "variant", "seed", "budget_tokens",
    "budget_seconds",
)  # fmt: skip


async def run(screen: "ChatScreen", given: Given) -> None:
    """Do it.

    Raises:
        PreflexorError: it cannot be done, or not now.
    """
    if given.name in SETUP:
        _set(screen, given)
    else:
        await HANDLERS[given.name](screen, given.argument)
    screen.draw_frame()


def _set(screen: "ChatScreen", given: Given) -> None:
    app = screen.app
    app.setup = changed(app.setup, given.name, given.argument)
    when = "from the next run on" if screen.active else ""
    screen.notify(f"{given.name.replace('_', ' ')}: {given.argument} {when}".strip(), markup=False)
    if given.name in ("model", "role", "store") and screen.active is None:
        screen.load_model()


async def _setup(screen: "ChatScreen", _: str) -> None:
    setup = screen.app.setup
    config = setup.config
    lines = [
        f"model {setup.model}" + "".join(f", {role} {spec}" for role, spec in setup.roles.items()),
        f"store {screen.app.store_name or 'none'}",
        f"preset {config.preset}, {config.variant}, {config.rounds} rounds, {config.candidates} candidates",
        f"temperature {config.thinker.temperature:g}, seed {config.seed}",
        f"budget {config.budget_tok} tokens, {config.budget_s:g} s",
    ]
    screen.notify("\n".join(lines), title="the next run", timeout=12, markup=False)


async def _more(screen: "ChatScreen", _: str) -> None:
    chat_acts.more(screen)


async def _accept(screen: "ChatScreen", text: str) -> None:
    turn, round = _round(screen, text)
    chat_acts.rule(screen, turn, round, accepted=True)


async def _reject(screen: "ChatScreen", text: str) -> None:
    turn, round = _round(screen, text)
    chat_acts.rule(screen, turn, round, accepted=False)


async def _stop(screen: "ChatScreen", _: str) -> None:
    if screen.active is None:
        raise InputError("nothing is running")
    screen.active.driver.control.stop.set()


async def _next(screen: "ChatScreen", text: str) -> None:
    if not text:
        raise InputError("/next needs the question that is to be asked, as: /next And bone?")
    if screen.active is None:
        chat_acts.ask(screen, text)
    else:
        screen.queue.append(text)


async def _branch(screen: "ChatScreen", text: str) -> None:
    turn, round = _round(screen, text)
    await chat_acts.branch(screen, turn, round)


async def _edit(screen: "ChatScreen", _: str) -> None:
    chat_acts.edit(screen, chat_acts.last(screen))


async def _rewind(screen: "ChatScreen", _: str) -> None:
    await chat_acts.rewind(screen, chat_acts.last(screen))


async def _retry(screen: "ChatScreen", _: str) -> None:
    chat_acts.retry(screen, chat_acts.last(screen))


async def _compare(screen: "ChatScreen", text: str) -> None:
    chat_acts.compare(screen, chat_acts.last(screen), int(text) if text.isdecimal() else 1)


async def _sessions(screen: "ChatScreen", _: str) -> None:
    from preflexor_tui.screens.sessions import SessionsScreen

    chosen = await screen.app.push_screen_wait(SessionsScreen(screen.conversation.journal))
    if chosen is not None:
        await chat_acts.open_session(screen, chosen)


async def _resume(screen: "ChatScreen", _: str) -> None:
    found = await screen.conversation.journal.call(lambda sessions: sessions.find(most=1))
    if not found:
        raise InputError("there is no session yet")
    await chat_acts.open_session(screen, found[0].id)


async def _new(screen: "ChatScreen", _: str) -> None:
    await chat_acts.new_session(screen)


async def _rename(screen: "ChatScreen", text: str) -> None:
    session_id = screen.conversation.journal.session_id
    if session_id is None:
        raise InputError("this session is not begun; ask something first")
    await screen.conversation.journal.call(lambda sessions: sessions.rename(session_id, text))
    screen.conversation.name = text
    await screen.refresh_branches()


async def _export(screen: "ChatScreen", text: str) -> None:
    from preflexor_tui.exporting import hand_over_run

    if not text:
        raise InputError("/export needs a file, as: /export answer.md")
    hand_over_run(screen.app, Path(text).expanduser(), chat_acts.last(screen).driver.log.events)


async def _replay(screen: "ChatScreen", text: str) -> None:
    chat_acts.idle(screen)
    name, _, speed = text.rpartition(" ")
    if not name or not speed.replace(".", "", 1).isdecimal():
        name, speed = text, "1"
    if not name:
        raise InputError("/replay needs a trace file, as: /replay run.jsonl 10")
    chat_acts.replay(screen, list(read_trace(Path(name).expanduser())), speed=float(speed))


async def _copy(screen: "ChatScreen", _: str) -> None:
    answer = screen.shown.answer
    if not answer:
        raise InputError("there is no answer to copy yet")
    screen.app.copy_to_clipboard(answer)
    screen.notify("answer copied")


async def _help(screen: "ChatScreen", _: str) -> None:
    from preflexor_tui.screens.chat_help import ChatHelp

    screen.app.push_screen(ChatHelp())


async def _quit(screen: "ChatScreen", _: str) -> None:
    await screen.app.action_quit()


def _round(screen: "ChatScreen", text: str) -> tuple[Turn, int]:
    """The round that a command is about: of the last turn, by default the last one that proposes an answer."""
    turn = screen.active or chat_acts.last(screen)
    if text:
        if not text.isdecimal():
            raise InputError(f"{text!r} is no round; give its number")
        return turn, int(text)
    return turn, _latest(turn.run)


def _latest(run: Run) -> int:
    rounds = [r.number for r in run.rounds if r.proposes or r.finished is None]
    if not rounds:
        raise InputError("there is no round with an answer yet")
    return rounds[-1]


HANDLERS: dict[str, Handler] = {
    "setup": _setup,
    "more": _more,
    "accept": _accept,
    "reject": _reject,
    "stop": _stop,
    "next": _next,
    "branch": _branch,
    "edit": _edit,
    "rewind": _rewind,
    "retry": _retry,
    "compare": _compare,
    "sessions": _sessions,
    "resume": _resume,
    "new": _new,
    "rename": _rename,
    "export": _export,
    "replay": _replay,
    "copy": _copy,
    "help": _help,
    "quit": _quit,
}
