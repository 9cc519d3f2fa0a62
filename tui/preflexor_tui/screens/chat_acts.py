"""What the user can do with a conversation: ask, rule, go on, branch, edit, rewind, replay."""

import asyncio
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.events import RunStarted, Timed
from preflexor_tui.conversation import Turn
from preflexor_tui.driver import replayed
from preflexor_tui.setup import Setup
from preflexor_tui.state.facts import facts_about
from preflexor_tui.widgets.composer import Composer
from preflexor_tui.widgets.graph_tree import GraphTree
from preflexor_tui.widgets.text import plural

if TYPE_CHECKING:
    from preflexor_tui.screens.chat import ChatScreen
    from preflexor_tui.widgets.round_card import Act


def ask(screen: "ChatScreen", question: str) -> None:
    """Ask a question after the last one, or in place of the one that is edited."""
    edited, screen.editing = screen.editing, None
    conversation = screen.conversation
    if edited in conversation.turns and edited is not None:
        _begin(screen, conversation.reask(edited, question))
    else:
        _begin(screen, conversation.begin(question))


def _begin(screen: "ChatScreen", turn: Turn) -> None:
    """Run a turn from its beginning."""
    app = screen.app
    turns = screen.conversation.turns
    before = [(t.run.question, t.run.answer) for t in turns[: turns.index(turn)] if t.run.answer]
    events = app.engine.ask(turn.entry.question, app.setup, turn.driver.control, screen.tell, before=before)
    screen.start(turn, events)


def go_on(screen: "ChatScreen", turn: Turn, *, rounds: int, setup: Setup | None = None) -> None:
    """Let a run that has ended, or a branch of one, go on for some rounds; each brings a share of the budget."""
    setup = setup or screen.app.setup
    done = len(turn.run.rounds)
    config = setup.config
    share = max(1, rounds) / max(1, config.rounds)
    wanted = {
        "rounds": max(1, min(100, done + rounds)),
        "budget_tokens": turn.run.usage.generated + max(1, round(config.budget_tok * share)),
        "budget_seconds": turn.driver.offset_s + config.budget_s * share,
    }
    settings = setup.settings.model_copy(update=wanted)
    screen.start(
        turn, screen.app.engine.resume(turn.events, replace(setup, settings=settings), turn.driver.control, screen.tell)
    )


def idle(screen: "ChatScreen") -> None:
    """Raises InputError while a run is going."""
    if screen.active is not None:
        raise InputError("a run is going; stop it first (esc twice), or wait for its end")


def last(screen: "ChatScreen") -> Turn:
    """The last turn. Raises InputError if there is none."""
    if not screen.conversation.turns:
        raise InputError("nothing was asked yet")
    return screen.conversation.turns[-1]


def more(screen: "ChatScreen") -> None:
    """One more round: of the run that goes, else of the last one."""
    if screen.active is not None:
        screen.active.driver.add_round()
        screen.notify("one more round")
        return
    _continue(screen, last(screen), rounds=1)


def _continue(screen: "ChatScreen", turn: Turn, *, rounds: int) -> None:
    if not turn.driver.log.events:
        retry(screen, turn)
        return
    orders = turn.driver.control.orders
    following = screen.conversation.turns[screen.conversation.turns.index(turn) + 1 :]
    if following:
        raise InputError("only the last run can go on; branch from a round of this one instead (b)")
    resumed = screen.conversation.extend(turn)
    resumed.driver.control.orders[:] = orders
    go_on(screen, resumed, rounds=rounds)


def rule(screen: "ChatScreen", turn: Turn, round: int, *, accepted: bool) -> None:
    """Take or refuse a round's answer by hand, whatever the gate said."""
    found = turn.run.numbered(round)
    if found is None:
        raise InputError(f"there is no round {round}; this run has {plural(len(turn.run.rounds), 'round')}")
    if found.finished is not None and not found.proposes:
        raise InputError(f"round {round} proposes no answer")
    if not accepted and found.finished is not None and not [n for n in turn.run.taken if n != round]:
        raise InputError(f"the answer of round {round} is the only one; ask for one more round instead (/more)")
    turn.driver.rule(round, accepted=accepted)
    if turn is screen.active:
        screen.notify(f"round {round} will be {'taken' if accepted else 'refused'} at the end of the round")
    else:
        idle(screen)
        _continue(screen, turn, rounds=0)


async def branch(screen: "ChatScreen", turn: Turn, round: int) -> None:
    """Go on from the end of a round, as a new branch, with another seed than before."""
    idle(screen)
    found = turn.run.numbered(round)
    if found is None or found.finished is None:
        raise InputError(f"round {round} is not finished; branch from one that is")
    forked = screen.conversation.fork(turn, round=round)
    forked.driver.control.said.extend(_take_text(screen))
    setup = screen.app.setup
    left = max(1, setup.config.rounds - round)
    seed = (setup.config.seed + len(screen.conversation.runs) + 1) % 2**31
    setup = replace(setup, settings=setup.settings.model_copy(update={"seed": seed}))
    await screen.paint()
    go_on(screen, forked, rounds=left, setup=setup)


def edit(screen: "ChatScreen", turn: Turn) -> None:
    """Put the question back into the composer; sent, it begins a branch in this turn's place."""
    idle(screen)
    composer = screen.query_one(Composer)
    composer.remember(composer.whole_text)
    composer.load(turn.entry.question)
    composer.focus()
    screen.editing = turn
    screen.draw_frame()


def retry(screen: "ChatScreen", turn: Turn) -> None:
    """Ask again: in place if nothing came of it, else as a new branch."""
    idle(screen)
    if turn.driver.log.events:
        _begin(screen, screen.conversation.reask(turn, turn.entry.question))
        return
    turn.failure = ""
    _begin(screen, turn)


async def rewind(screen: "ChatScreen", turn: Turn) -> None:
    """Go back to before a turn; its question comes back into the composer."""
    idle(screen)
    screen.conversation.rewind(turn)
    composer = screen.query_one(Composer)
    composer.remember(composer.whole_text)
    composer.load(turn.entry.question)
    await screen.conversation.keep_head()
    await screen.refresh_branches()
    await screen.paint()


async def with_round(screen: "ChatScreen", turn: Turn, round: int, act: "Act") -> None:
    """What was asked for on a round's card."""
    match act:
        case "take" | "refuse":
            rule(screen, turn, round, accepted=act == "take")
        case "branch":
            await branch(screen, turn, round)
        case "edit":
            edit(screen, turn)
        case "retry":
            retry(screen, turn)
        case "compare":
            compare(screen, turn, round)
        case "copy":
            found = turn.run.numbered(round)
            screen.app.copy_to_clipboard(found.answer if found else "")
            screen.notify(f"answer of round {round} copied")


def compare(screen: "ChatScreen", turn: Turn, round: int) -> None:
    """The drafts of a round side by side. Raises InputError if there is only one."""
    from preflexor_tui.screens.compare import CompareScreen
    from preflexor_tui.state.candidates import candidates

    found = turn.run.numbered(round)
    drafts = candidates(found) if found else ()
    if not drafts:
        raise InputError(f"round {round} has one draft only; /candidates 3 writes several in the first round")
    screen.app.push_screen(CompareScreen(turn.run.question, drafts))


async def show_branch(screen: "ChatScreen", run_id: int) -> None:
    """Go to another branch of the session."""
    idle(screen)
    await screen.conversation.show_branch(run_id)
    await screen.refresh_branches()
    await screen.paint()


async def open_session(screen: "ChatScreen", session_id: int) -> None:
    """Show another session as it was left; what is typed here is kept with this one."""
    idle(screen)
    await keep_draft(screen)
    session = await screen.conversation.load(session_id)
    history = [turn.entry.question for turn in screen.conversation.turns]
    screen.query_one(Composer).load(session.draft, history=history)
    await screen.refresh_branches()
    await screen.paint()


async def new_session(screen: "ChatScreen") -> None:
    """An empty conversation."""
    idle(screen)
    await keep_draft(screen)
    screen.conversation.clear()
    await screen.refresh_branches()
    await screen.paint()


async def keep_draft(screen: "ChatScreen") -> None:
    """Keep what is typed and not sent with the session that it was typed in."""
    journal, text = screen.conversation.journal, screen.query_one(Composer).whole_text
    session_id = journal.session_id
    if session_id is not None:
        await journal.call(lambda sessions: sessions.keep_draft(session_id, text))


def replay(screen: "ChatScreen", events: list[Timed], *, speed: float) -> None:
    """Show a trace as it happened; nothing of it is saved."""
    question = next((t.event.question for t in events if isinstance(t.event, RunStarted)), "")
    turn = screen.conversation.begin(question)
    turn.entry.kept = False
    screen.start(turn, replayed(events, speed=speed, stop=turn.driver.control.stop))


def look_up(screen: "ChatScreen") -> None:
    """Ask the graph about the run that is shown, off the loop, when its question or answer is new."""
    run, store = screen.shown, screen.app.engine.store
    texts = (run.question, run.finished.answer if run.finished else "")
    if store is None or texts == screen.looked_up:
        return
    screen.looked_up = texts

    async def ask_graph() -> None:
        try:
            facts = await asyncio.to_thread(facts_about, store.graph, texts)
        except PreflexorError as e:
            screen.notify(f"the graph could not be read: {e}", severity="warning", markup=False)
            return
        screen.query_one(GraphTree).show(facts)

    screen.run_worker(ask_graph(), name="act", group="graph", exclusive=True, exit_on_error=False)


def after(screen: "ChatScreen", turn: Turn) -> None:
    """What follows a run: the next question that waits; what no round took in goes back to the composer."""
    left = turn.driver.control.said
    if left:
        composer = screen.query_one(Composer)
        text = composer.whole_text
        composer.load("\n".join((*left, text)).strip())
        left.clear()
    stopped = turn.run.finished is None or turn.run.finished.stop_reason in ("cancelled", "failed")
    if screen.queue and not stopped:
        ask(screen, screen.queue.pop(0))


def open_source(screen: "ChatScreen", source: str) -> None:
    """Open a file with the system's program for it; an address is shown."""
    path = Path(source)
    opener = shutil.which("xdg-open") or shutil.which("open")
    if not path.is_file():
        screen.notify(f"{source} is not a file on this machine", severity="warning", markup=False)
    elif opener is None or screen.app.is_web:
        screen.notify(f"{source}", title="the source is here", markup=False)
    else:
        subprocess.Popen([opener, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _take_text(screen: "ChatScreen") -> list[str]:
    """What is typed, taken out of the composer: it steers what begins."""
    composer = screen.query_one(Composer)
    text = composer.whole_text.strip()
    if text:
        composer.remember(text)
        composer.load("")
    return [text] if text and not text.startswith("/") else []
