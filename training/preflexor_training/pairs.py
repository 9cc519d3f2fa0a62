"""What training needs of a preference row: the turns before the reply, and two replies with their sections told apart.

Sections are kept apart as values, so that a tag that is spelt inside a text never becomes a control token.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preflexor_agents.errors import InputError
from preflexor_agents.markup import TAGS, parse
from preflexor_agents.preference_rows import open_rows
from preflexor_agents.preference_turns import Turn, Turns, turns_of
from preflexor_agents.prompts import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply, without its tags."""

    thinking: str | None = None
    """What stands between the thinking tags; None if there is no such section."""
    reflection: str | None = None
    """What stands between the reflection tags, likewise; it follows the thinking."""
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One preference."""

    id: str
    """Unique in its file; the seed of everything that is drawn for this row."""
    prompt: tuple[Message, ...]
    """The turns before the reply; the last is the user's."""
    chosen: Reply
    rejected: Reply
    round: int = 0
    """Refresh that the row was made in, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row that is no pair."""

    row: int
    """Its number in the file, from 1."""
    reason: str
    """What is wrong with it and what to do, in one line."""
    question: str = ""
    """If the row is a question with one answer of which nothing is said: the question; likewise `answer`."""
    answer: str = ""

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A single answer that is said to be good or bad."""

    row: int
    prompt: tuple[Message, ...]
    reply: Reply
    is_good: bool


def read_pairs(path: Path) -> Iterator[Pair | Problem]:
    """The pairs in a file of preferences, whatever its shape, and what is wrong with the rows that are none.

    Understands the shapes of `preference_turns` as JSON lines, a JSON array or Parquet, a folder that the `datasets`
    library saved, and the log of a forge run (of which the kept rows alone are given). Labelled single answers become
    pairs where a prompt has a good and a bad one. Tags in texts are read as sections; where a row keeps its sections
    apart, tags in its texts are only spelt.

    Raises:
        InputError: the file cannot be read, or holds no rows; or a library is missing that reading it takes.
    """
    waiting: dict[tuple[Message, ...], list[_Labelled]] = {}
    ids: set[str] = set()
    for number, data in enumerate(_records(path), 1):
        found = _read(data, number)
        if isinstance(found, _Labelled):
            found = _matched(found, waiting)
        if isinstance(found, Pair):
            if found.id in ids:
                found = replace(found, id=f"{found.id}#{number}")
            ids.add(found.id)
        if found is not None:
            yield found
    for single in sorted((s for rest in waiting.values() for s in rest), key=lambda s: s.row):
        missing = "bad" if single.is_good else "good"
        yield Problem(
            row=single.row, reason=f"no other row has a {missing} answer to its prompt; add one or leave it out"
        )


def reply_of(text: str) -> Reply:
    """The sections of a reply's text. White space at their ends goes.

    Raises:
        InputError: a section is not closed, or they do not stand one after the other with the answer last.
    """
    sections = parse(text)
    problems = [p for p in sections.problems if not p.endswith("without an opening tag")]
    if problems:
        raise InputError(f"{problems[0]}; mend its tags or leave it out")
    order = [s.channel for s in sections.segments if s.text.strip()]
    if order != sorted(order, key=("thinking", "reflection", "answer").index):
        raise InputError("its sections are mixed; put the thinking first, then the reflection, then the answer")
    tags = {tag.channel for name, tag in TAGS.items() if name in text}
    return Reply(
        thinking=sections.thinking if "thinking" in tags else None,
        reflection=sections.reflection if "reflection" in tags else None,
        answer=sections.answer,
    )


def _records(path: Path) -> Iterator[object]:
    """What stands in the file for each row; in the place of one that cannot be read, why."""
    from preflexor_training import tables

    if tables.is_table(path):
        yield from tables.read_table(path)
        return
    rows = open_rows(path)
    for number in range(len(rows)):
        try:
            yield rows.data(number)
        except InputError as e:
            yield e


def _read(data: object, number: int) -> Pair | Problem | _Labelled | None:
    """What a row is; None if a forge run gave it up."""
    try:
        if isinstance(data, InputError):
            raise data
        if not isinstance(data, dict):
            raise InputError(f"it is no object: {str(data)[:40]!r}")
        if "schema" in data and "state" in data:
            from preflexor_training.forge import records

            row = records.from_json(data, where="it")
            return row.pair() if row.state == "kept" else None
        return _preference(data, number)
    except InputError as e:
        return Problem(row=number, reason=" ".join(str(e).split()))


def _preference(data: Mapping[str, Any], number: int) -> Pair | Problem | _Labelled:
    turns = turns_of(data)
    if not (turns.chosen or turns.rejected):
        return _only(turns, number, keys=", ".join(data)[:80])
    prompt = _prompt(turns.prompt)
    if not (turns.chosen and turns.rejected):
        side = "chosen" if turns.chosen else "rejected"
        if "label" not in data and "kto_tag" not in data:
            raise InputError(f"it has only a {side} answer; a pair needs two")
        return _Labelled(number, prompt, _reply(turns.chosen or turns.rejected, side), bool(turns.chosen))
    chosen, rejected = _reply(turns.chosen, "chosen"), _reply(turns.rejected, "rejected")
    if chosen == rejected:
        raise InputError("its two answers are the same; leave it out")
    id_, round_ = data.get("id"), data.get("round")
    return Pair(
        id=id_ if isinstance(id_, str) and id_ else str(number),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        round=round_ if isinstance(round_, int) and round_ >= 0 else 0,
    )


def _only(turns: Turns, number: int, *, keys: str) -> Problem:
    if not (turns.only and turns.prompt):
        return Problem(row=number, reason=f"it has neither a chosen nor a rejected answer; its keys: {keys}")
    return Problem(
        row=number,
        reason="it has one answer, not two; as a question with a known answer it is of use to `forge run --questions`",
        question="\n\n".join(turn.text for turn in turns.prompt),
        answer=turns.only[-1].text,
    )


def _prompt(turns: tuple[Turn, ...]) -> tuple[Message, ...]:
    if not turns or not turns[-1].whole().strip():
        raise InputError("it has no prompt; say what was asked under `prompt`")
    for turn in turns:
        if turn.role not in ("system", "user", "assistant"):
            raise InputError(f"it has a turn of {turn.role[:40]!r}; there can be system, user and assistant")
    if turns[-1].role != "user":
        raise InputError(f"its prompt ends with a turn of {turns[-1].role}; the last one must be the user's")
    return tuple(Message(turn.role, turn.whole()) for turn in turns)  # type: ignore[arg-type]


def _reply(turns: tuple[Turn, ...], side: str) -> Reply:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise InputError(f"its {side} answer is no single turn of the assistant; make it one")
    turn = turns[0]
    if turn.apart:
        reply = Reply(thinking=turn.thinking, reflection=turn.reflection, answer=turn.text)
    else:
        try:
            reply = reply_of(turn.text)
        except InputError as e:
            raise InputError(f"of its {side} answer: {e}") from None
        if turn.thinking is not None:
            if reply.thinking is not None:
                raise InputError(f"its {side} answer has thinking in a field and in the text; take one out")
            reply = replace(reply, thinking=turn.thinking)
    if not reply.answer.strip():
        raise InputError(f"its {side} answer is empty; leave it out")
    return reply


def _matched(single: _Labelled, waiting: dict[tuple[Message, ...], list[_Labelled]]) -> Pair | Problem | None:
    """The pair with the first answer to the same prompt that is labelled the other way; without one it waits."""
    rest = waiting.setdefault(single.prompt, [])
    other = next((w for w in rest if w.is_good != single.is_good), None)
    if other is None:
        rest.append(single)
        return None
    rest.remove(other)
    good, bad = (single, other) if single.is_good else (other, single)
    if good.reply == bad.reply:
        return Problem(row=single.row, reason=f"row {other.row} labels the same answer the other way; leave both out")
    id_ = f"{other.row}+{single.row}"
    return Pair(id=id_, prompt=single.prompt, chosen=good.reply, rejected=bad.reply)
