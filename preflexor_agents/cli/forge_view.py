"""Rows of preference data on a terminal: a line each, or one in full with its two answers side by side."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from preflexor_agents.cli.show import inert
from preflexor_agents.prompts import one_line
from preflexor_agents.word_diff import Piece, change, word_diff
from preflexor_training.forge.browsing import sections

if TYPE_CHECKING:
    from preflexor_training.forge.browsing import Shown, Words
    from preflexor_training.forge.records import CallRecord, Row
    from preflexor_training.pairs import Reply

SIDE_BY_SIDE = 80
"""Columns; on a narrower terminal the answers stand one below the other."""
_STATES = {"kept": "green", "dropped": "yellow", "failed": "red"}
_DIFF = {"same": "", "gone": "red strike", "new": "green bold underline"}
_MARKS = {"gone": ("[-", "-]"), "new": ("{+", "+}"), "quote": ("»", "«")}
"""Around a stretch where there are no colours."""


def listed(row: "Row", width: int) -> Text:
    """A row in one line: number, state, why or what the rejected side is, margin, question."""
    fact = (row.rejected_kind or "imported") if row.state == "kept" else one_line(inert(row.reason))
    margin = row.scores.get("margin")
    told = f"{fact}, margin {margin:.2f}" if row.state == "kept" and margin is not None else fact
    line = Text(f"{row.number:6}  ")
    line.append(f"{row.state:<8}", style=_STATES[row.state])
    line.append(f"{_cut(told, 32):<32}  ", style="dim")
    line.append(_cut(one_line(inert(row.question)) or "(no question)", max(20, width - 50)))
    return line


def compared(row: "Row", console: Console) -> RenderableType:
    """What leads from a row's rejected answer to the chosen one, word by word, indented below its line."""
    return _indented(_differing(word_diff(row.rejected.answer, row.chosen.answer), "", console))


def drawn(row: "Row", context: "Sequence[Shown]", console: Console, *, diff: bool) -> Group:
    """A row in full.

    Args:
        row: to be shown.
        context: its passages with their words; empty if no store is at hand.
        console: decides the width, and whether there are colours.
        diff: mark what is in one answer only, word by word.
    """
    return Group(*_parts(row, context, console, diff=diff))


def _parts(row: "Row", context: "Sequence[Shown]", console: Console, *, diff: bool) -> Iterator[RenderableType]:
    made = (
        f"  {row.variant}, phase {row.phase}, round {row.round}, pack {row.pack}, seed {row.seed}" if row.pack else ""
    )
    yield Text.assemble((f"row {row.number} ", "bold"), (row.state, _STATES[row.state]), inert(made))
    if row.reason:
        yield Text(one_line(inert(row.reason)), style=_STATES[row.state])
    yield _headed("question", row.question or "(none)", style="bold")
    if row.gold:
        yield _headed("known answer", row.gold)
    for message in row.prompt:
        if message.content != row.question:
            yield _headed(f"prompt, {message.role}", message.content, style="dim")
    yield from _context(row, context, console)
    if row.chosen.answer or row.rejected.answer:
        yield _answers(row, console, diff=diff)
    if row.scores:
        yield _heading("scores")
        yield Text("  " + ", ".join(f"{inert(one_line(k))} {v:g}" for k, v in row.scores.items()))
    if row.calls:
        yield _heading("calls")
        yield _calls(row.calls)


def _context(row: "Row", context: "Sequence[Shown]", console: Console) -> Iterator[RenderableType]:
    if row.context:
        yield _heading("context")
    words = {shown.span: shown.words for shown in context}
    for number, span in enumerate(row.context, 1):
        page = f", page {span.page}" if span.page is not None else ""
        place = f"  [{number}] {span.title} ({span.source}{page}, characters {span.start}-{span.end})"
        yield Text(one_line(inert(place)), style="cyan")
        if words.get(span):
            yield _indented(_passage(words[span], console))
        elif context:
            yield _indented(Text("the document in the store says something else there, or is gone", style="yellow"))


def _passage(words: "Sequence[Words]", console: Console) -> Text:
    """The passage, bright among the dim words around it, or in brackets where there are no colours."""
    before, *inside, after = words
    bracket = "" if _has_colours(console) else "|"
    text = Text()
    text.append(f"…{inert(before.text)}{bracket}" if before.text else bracket, style="dim")
    for piece in inside:
        _add(text, piece.kind, piece.text, "bold reverse" if piece.kind == "quote" else "", console)
    return text.append(f"{bracket}{inert(after.text)}…" if after.text else bracket, style="dim")


def _answers(row: "Row", console: Console, *, diff: bool) -> RenderableType:
    pieces = word_diff(_whole(row.rejected), _whole(row.chosen)) if diff else ()
    gone, new = change(pieces)
    kind = f" ({row.rejected_kind})" if row.rejected_kind else ""
    heads = [
        Text("chosen" + (f", +{new} words" if diff else ""), style="bold green"),
        Text(f"rejected{kind}" + (f", -{gone} words" if diff else ""), style="bold red"),
    ]
    sides = [
        _differing(pieces, "gone", console) if diff else _replied(row.chosen),
        _differing(pieces, "new", console) if diff else _replied(row.rejected),
    ]
    if console.width < SIDE_BY_SIDE:
        return Group(Text(), heads[0], sides[0], Text(), heads[1], sides[1])
    table = Table(expand=True, show_edge=False, pad_edge=False, header_style="")
    for head in heads:
        table.add_column(head, ratio=1, overflow="fold")
    table.add_row(*sides)
    return Group(Text(), table)


def _differing(pieces: Iterable[Piece], skip: str, console: Console) -> Text:
    text = Text()
    for piece in pieces:
        if piece.kind != skip:
            _add(text, piece.kind, piece.text, _DIFF[piece.kind], console)
    return text


def _add(text: Text, kind: str, words: str, style: str, console: Console) -> None:
    """Add a stretch, marked by its style, or by signs where there are no colours."""
    before, after = ("", "") if _has_colours(console) else _MARKS.get(kind, ("", ""))
    text.append(f"{before}{inert(words)}{after}", style=style)


def _has_colours(console: Console) -> bool:
    return console.is_terminal and not console.no_color


def _whole(reply: "Reply") -> str:
    return "\n\n".join(f"{name}:\n{text}" for name, text in sections(reply))


def _replied(reply: "Reply") -> Text:
    text = Text()
    for n, (name, words) in enumerate(sections(reply)):
        text.append(("\n\n" if n else "") + f"{name}\n", style="cyan")
        text.append(inert(words), style="" if name == "answer" else "dim")
    return text


def _calls(calls: "Sequence[CallRecord]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("  step", "who", "model"):
        table.add_column(name, overflow="fold")
    for name in ("read", "cached", "written", "seconds", "tries"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("error", overflow="fold")
    for call in calls:
        adapter = f" +{call.adapter_sha256[:8]}" if call.adapter_sha256 else ""
        numbers = (call.tokens_prompt, call.tokens_cached, call.tokens_generated, f"{call.seconds:.2f}", call.tries)
        cells = (f"  {call.step}", call.who, call.model + adapter, *map(str, numbers), call.error)
        table.add_row(*(Text(inert(cell)) for cell in cells))
    return table


def _headed(name: str, words: str, *, style: str = "") -> RenderableType:
    return Group(_heading(name), _indented(Text(inert(words), style=style)))


def _heading(name: str) -> Text:
    return Text(f"\n{name}", style="cyan")


def _indented(text: Text) -> RenderableType:
    from rich.padding import Padding

    return Padding(text, (0, 0, 0, 2))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
