"""Prints a run as it happens: a fold over its events onto a terminal, or onto plain lines elsewhere."""

from typing import assert_never

from rich.console import Console
from rich.text import Text

from preflexor_agents.events import (
    Channel,
    Cited,
    Event,
    Resumed,
    Retrieved,
    RoundFinished,
    RoundsAdded,
    RoundStarted,
    RoundStopped,
    Ruled,
    RunFinished,
    RunStarted,
    Stage,
    Steered,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    Usage,
)
from preflexor_agents.prompts import one_line

VERBS: dict[Stage, str] = {
    "retrieve": "searches",
    "draft": "drafts",
    "select": "compares drafts",
    "critique": "criticises",
    "revise": "rewrites the thinking",
    "answer": "answers again",
    "gate": "compares, blind",
    "integrate": "merges the answers",
    "choose": "compares the merged answer, blind",
    "cite": "finds the quotes",
}
STOPS = {
    "rounds": "all rounds done",
    "converged": "nothing left to improve",
    "budget_tokens": "token budget spent",
    "budget_seconds": "time budget spent",
    "cancelled": "stopped by the user",
    "failed": "failed",
}
Key = tuple[int, Stage, int]


def inert(text: str) -> str:
    """The text with control characters shown as symbols, so that no model and no document can steer a terminal."""
    return "".join(_symbol(c) for c in text)


def _symbol(c: str) -> str:
    code = ord(c)
    if c in "\n\t" or 0x20 <= code < 0x7F or code > 0x9F:
        return "\ufffd" if code in _BIDI else c
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


_BIDI = frozenset((0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def by_hand(event: RoundStopped | Ruled | RoundsAdded | Resumed) -> str:
    """What the user did, in words."""
    match event:
        case RoundStopped(round=n):
            return f"you stopped round {n}"
        case Ruled(round=n, accepted=accepted):
            return f"you {'took' if accepted else 'refused'} the answer of round {n}"
        case RoundsAdded(rounds=n):
            return f"you asked for {n} more {'round' if n == 1 else 'rounds'}"
        case Resumed(models=models):
            return f"the run goes on with {', '.join(dict.fromkeys(models.values()))}"


class Printer:
    """Shows events on a console. Of calls that run side by side the first streams, the others appear when done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._streams = console.is_terminal
        self._live: Key | None = None
        self._column = 0
        self._channel: Channel | None = None
        self._usage = Usage()
        self._calls = 0
        self._passages: list[int] = []

    def show(self, event: Event) -> None:  # noqa: C901 - one case per event
        """Print what an event adds."""
        match event:
            case RunStarted():
                models = ", ".join(dict.fromkeys(event.models.values()))
                library = f" · library {event.store}" if event.store else ""
                self._line(Text(event.question and inert(event.question), style="bold"))
                self._line(Text(f"{models} · preset {event.config['preset']}{library}", style="dim"))
            case RoundStarted(round=n, steering=steering):
                self._line(Text(f"\nRound {n}", style="bold cyan"))
                for words in steering:
                    self._line(Text(f"  you add: {inert(words)}", style="magenta"))
            case Steered(text=text):
                self._line(Text(f"  (for the next round: {inert(text)})", style="magenta"))
            case RoundStopped() | Ruled() | RoundsAdded() | Resumed():
                self._line(Text(f"  {by_hand(event)}", style="magenta"))
            case StepStarted():
                self._begin(event)
            case TextDelta():
                self._stream(event)
            case StepFinished():
                self._end(event)
            case StepFailed():
                self._leave((event.round, event.stage, event.candidate))
                self._line(Text(f"  {event.role} failed: {inert(event.error)}", style="red"))
            case Retrieved():
                self._found(event)
            case RoundFinished():
                self._decide(event)
            case Cited():
                pass
            case RunFinished():
                self._finish(event)
            case _:
                assert_never(event)

    def _found(self, event: Retrieved) -> None:
        """Passages are numbered over the whole run; a later search adds its best new one."""
        new = [p for p in event.passages if p.chunk_id not in self._passages]
        for p in new if not self._passages else new[:1]:
            self._passages.append(p.chunk_id)
            number = len(self._passages)
            self._line(Text(f"    [{number}] {inert(p.title)}: {_short(inert(one_line(p.text)))}", style="dim"))
        if not new:
            self._line(Text("    nothing new" if self._passages else "    nothing found", style="dim"))

    def _begin(self, event: StepStarted) -> None:
        if event.stage == "cite" or self._live is not None:
            return
        if event.stage != "retrieve":
            self._live = (event.round, event.stage, event.candidate)
        self._channel = None
        self._line(Text(f"  {event.role} {VERBS[event.stage]}", style="bold"))

    def _stream(self, event: TextDelta) -> None:
        if not self._streams or self._live != (event.round, event.stage, event.candidate):
            return
        text = inert(event.text)
        if event.channel != self._channel:
            text = text.lstrip("\n")
            if self._column:
                self._write("\n", "")
            self._channel = event.channel if text else self._channel
        self._write(text, _style(event.stage, event.channel))

    def _write(self, text: str, style: str) -> None:
        for piece in text.splitlines(keepends=True):
            if not self._column and piece.strip("\n"):
                piece = "    " + piece
            self._console.print(Text(piece, style=style), end="", soft_wrap=True)
            self._column = 0 if piece.endswith("\n") else self._column + len(piece)

    def _leave(self, key: Key) -> None:
        """End the streamed line if it was this call's."""
        if self._live == key:
            self._live = None
        if self._column:
            self._write("\n", "")

    def _end(self, event: StepFinished) -> None:
        key = (event.round, event.stage, event.candidate)
        streamed = self._streams and self._live == key
        self._usage += event.usage
        self._calls += 1
        self._leave(key)
        if not streamed:
            if event.candidate:
                self._line(Text(f"  ({event.candidate + 1})", style="dim"))
            for channel in ("thinking", "reflection", "answer"):
                text = inert(getattr(event, channel)).strip()
                if text:
                    self._write(text + "\n", _style(event.stage, channel))
        if event.finish_reason not in ("stop", "cancelled"):
            self._line(Text(f"    (cut: {event.finish_reason.replace('_', ' ')})", style="yellow"))

    def _decide(self, event: RoundFinished) -> None:
        verdict, style = ("taken", "green") if event.accepted else ("the answer so far stays", "yellow")
        self._line(Text(f"  → {verdict}: {inert(event.reason)}", style=style))
        self._line(Text(f"    {self._meter()}", style="dim"))

    def _finish(self, event: RunFinished) -> None:
        if self._column:
            self._write("\n", "")
        tail = f"{STOPS[event.stop_reason]} · {self._meter()} · {event.seconds:.1f} s"
        self._line(Text(f"\n{tail}", style="dim"))
        if event.error:
            self._line(Text(inert(event.error), style="red"))

    def _meter(self) -> str:
        u = self._usage
        return f"{self._calls} calls · {u.generated} tokens written, {u.prompt} read ({u.cached} from cache)"

    def _line(self, text: Text) -> None:
        if self._column:
            self._write("\n", "")
        self._console.print(text, soft_wrap=True)


def show_answer(console: Console, end: RunFinished, cited: Cited | None) -> None:
    """Print the answer, the quotes that it stands on, and what of it no passage supports."""
    console.print(Text("\nAnswer" + (" (merged)" if end.integrated else ""), style="bold green"))
    console.print(Text(inert(end.answer) or "(none)"), soft_wrap=True)
    for c in cited.citations if cited else ():
        page = f", page {c.page}" if c.page is not None else ""
        where = f"  [{c.number}] {inert(c.title)} ({inert(c.source)}{page}, characters {c.start}-{c.end})"
        console.print(Text(where, style="cyan"), soft_wrap=True)
        console.print(Text(f"      “{inert(one_line(c.quote))}”", style="dim"), soft_wrap=True)
    for claim in cited.unsupported if cited else ():
        console.print(Text(f"  no passage supports: {inert(one_line(claim))}", style="yellow"), soft_wrap=True)


def _style(stage: Stage, channel: Channel) -> str:
    if channel == "thinking":
        return "dim"
    if channel == "reflection":
        return "dim italic"
    return {"critique": "yellow", "revise": "dim", "gate": "dim", "select": "dim", "choose": "dim"}.get(stage, "")


def _short(text: str, width: int = 72) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
