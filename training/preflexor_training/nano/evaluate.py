"""Measure a GGUF: held-out questions about the shipped library, and held-out dialogues of every role.

Everything runs through llama.cpp, greedy, with the prompts that the agents use. A number counts only as a whole number
with its unit, and a citation only if the passage that it points to states the value.
"""

import hashlib
import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

import llama_cpp

from preflexor_agents import prompts
from preflexor_agents.config import ReflectConfig
from preflexor_agents.evaluation.scoring import names_first, states
from preflexor_agents.evaluation.statistics import wilson
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, Message
from preflexor_agents.store import Store
from preflexor_training.nano.dialogues import DRILLS, Dialogue, episode
from preflexor_training.nano.questions import Question, library_questions
from preflexor_training.nano.scoring import Reply
from preflexor_training.nano.suite import column_of
from preflexor_training.nano.tokenizer import END, chat_text

CONTEXT_TOK, REPLY_TOK = 2048, 200


class Voice(Protocol):
    """Whatever answers a prompt."""

    def reply(self, messages: Sequence[Message], *, given: str = "") -> Reply:
        """The rest of the reply that `given` begins."""


class Speaker:
    """The model file, answering greedily."""

    def __init__(self, gguf: Path) -> None:
        self._engine = llama_cpp.Llama(str(gguf), n_ctx=CONTEXT_TOK, n_threads=1, verbose=False)
        self._end = self._engine.tokenize(END.encode(), add_bos=False, special=True)[0]

    def reply(self, messages: Sequence[Message], *, given: str = "") -> Reply:
        """The rest of the reply that `given` begins; a prompt that leaves no room gets none."""
        ids = self._engine.tokenize(chat_text(messages, given=given).encode(), add_bos=False, special=True)
        said: list[int] = []
        if len(ids) + REPLY_TOK > CONTEXT_TOK:
            return Reply("", ended=False)
        for token in self._engine.generate(ids, temp=0.0, repeat_penalty=1.0):
            if token == self._end or len(said) == REPLY_TOK:
                break
            said.append(token)
        text = self._engine.detokenize(said, special=True).decode("utf-8", errors="replace")
        return Reply(text, ended=len(said) < REPLY_TOK)

    def close(self) -> None:
        """Free the model."""
        self._engine.close()


@dataclass(slots=True)
class Score:
    """Counts of what was right, per aspect, and some replies that were wrong."""

    of: dict[str, int] = field(default_factory=dict)
    right: dict[str, int] = field(default_factory=dict)
    wrong: list[dict[str, str]] = field(default_factory=list)

    def count(self, **aspects: bool) -> None:
        """Count one reply."""
        for name, good in aspects.items():
            self.of[name] = self.of.get(name, 0) + 1
            self.right[name] = self.right.get(name, 0) + good

    def report(self) -> dict[str, object]:
        """Counts, share and interval per aspect, and the first wrong replies."""
        shares: dict[str, object] = {}
        for name, of in self.of.items():
            found = wilson(self.right[name], of)
            interval = zip(("share", "low", "high"), found, strict=True)
            shares[name] = {"right": self.right[name], "of": of} | {key: round(v, 4) for key, v in interval}
        return {**shares, "wrong": self.wrong[:12]}


def score_dialogues(speaker: Voice, *, count: int, seed: int = 99) -> dict[str, Score]:
    """Held-out dialogues of every role, up to `count` of each task; nine in ten are about the notes."""
    rng = random.Random(seed)
    scores: dict[str, Score] = {}
    full = 0
    for _ in range(count * 8):
        for dialogue in episode(rng, split="heldout", stage=2).dialogues:
            score = scores.setdefault(dialogue.task, Score())
            if score.of.get("right", 0) >= count or dialogue.task in DRILLS:
                continue
            _score_dialogue(speaker, dialogue, score)
            full += score.of["right"] == count
        if full >= 9:
            break
    return {task: score for task, score in sorted(scores.items()) if score.of}


def _score_dialogue(speaker: Voice, dialogue: Dialogue, score: Score) -> None:
    reply = speaker.reply(dialogue.messages, given=dialogue.given)
    expected = Reply(dialogue.completion, ended=True)
    exact = reply.ended and reply.text == dialogue.completion
    right = exact or _as_good(dialogue, reply, expected)
    score.count(exact=exact, right=right)
    if dialogue.task in ("single", "comparison", "two-hop", "unanswerable", "reverse", "steered"):
        score.count(well_formed=reply.well_formed)
    if verdict := dialogue.gold.get("verdict"):
        score.count(**{f"verdict_{verdict}": _last_word(reply.text) == verdict})
    if not right:
        score.wrong.append(_shown(dialogue.messages, reply, dialogue.completion))


def _as_good(dialogue: Dialogue, reply: Reply, expected: Reply) -> bool:
    """Right though not word for word: the verdict, the value, or the winner is what counts."""
    if verdict := dialogue.gold.get("verdict"):
        return _last_word(reply.text) == verdict
    kind = dialogue.gold.get("kind", dialogue.task)
    if dialogue.task == "revise":
        return False
    if kind in ("single", "steered", "reverse", "two-hop") and dialogue.gold.get("value"):
        return states(reply.answer, dialogue.gold["value"])
    return _uncited(reply.answer) == _uncited(expected.answer)


def _last_word(text: str) -> str:
    return text.split()[-1] if text.split() else ""


def _uncited(answer: str) -> str:
    return re.sub(r" \[\d+\]", "", answer)


def _shown(messages: Sequence[Message], reply: Reply, expected: str) -> dict[str, str]:
    question = messages[-1].content.split("Question: ", 1)[-1].split("\n", 1)[0]
    return {"question": question, "said": reply.text, "expected": expected}


def score_library(
    speaker: Voice, questions: Sequence[Question], *, retrieve: Callable[[str], Sequence[Passage]]
) -> dict[str, Score]:
    """Questions about the shipped library, per kind, with the passages that `retrieve` finds."""
    scores: dict[str, Score] = {}
    for question in questions:
        passages = tuple(retrieve(question.text))
        messages = prompts.draft(Grounds(question=question.text, passages=passages))
        reply = speaker.reply(messages)
        score = scores.setdefault(question.kind, Score())
        right = _answers(question, reply)
        score.count(right=right, well_formed=reply.well_formed)
        if question.held_out and question.kind == "single":
            score.count(right_never_asked_in_training=right)
        if passages:
            cited = [passages[n - 1] for n in reply.cited if 0 < n <= len(passages)]
            found = all(any(states(p.text, value) for p in passages) for value in _wanted(question))
            supported = all(any(states(p.text, value) for p in cited) for value in _wanted(question))
            score.count(retrieved=found, right_and_cited=right and supported)
            if found:
                score.count(right_when_retrieved=right)
        if not right:
            score.wrong.append(_shown(messages, reply, question.value))
    return scores


def _wanted(question: Question) -> tuple[str, ...]:
    return question.numbers or (question.value,)


def _answers(question: Question, reply: Reply) -> bool:
    """The value is stated; of a comparison the winner comes first and both values are stated."""
    if not all(states(reply.answer, value) for value in _wanted(question)):
        return False
    if question.kind != "comparison":
        return True
    loser = question.other if question.value == question.material else question.material
    return names_first(reply.answer, question.value, loser)


def _drawn(questions: Sequence[Question], column: str, count: int) -> list[Question]:
    mine = [q for q in questions if column_of(q) == column]
    random.Random(5).shuffle(mine)
    return mine[:count]


def evaluate(gguf: Path, *, out: Path, limit: int = 0) -> dict[str, Any]:
    """Measure the file and write what was found as JSON; `limit` shortens every part, 0 does not."""
    questions = library_questions("heldout")
    singles = [q for q in questions if q.kind == "single"][: limit or None]
    others = [q for column in ("comparison", "two-hop") for q in _drawn(questions, column, limit or 400)]
    speaker = Speaker(gguf)
    try:
        with tempfile.TemporaryDirectory() as work, Store.open(Path(work) / "library.db", embedder="hash") as store:
            with as_file(files("preflexor_agents") / "data" / "library") as notes:
                store.ingest([notes])
            shown = ReflectConfig().passages
            with_passages = score_library(
                speaker, [*singles, *others], retrieve=lambda text: store.search(text, k=shown)
            )
        without = score_library(speaker, singles, retrieve=lambda _: ())
        dialogues = score_dialogues(speaker, count=limit or 200)
    finally:
        speaker.close()
    found = {
        "file": gguf.name,
        "sha256": hashlib.sha256(gguf.read_bytes()).hexdigest(),
        "passages_shown": shown,
        "library": {kind: score.report() for kind, score in with_passages.items()},
        "library_without_retrieval": {kind: score.report() for kind, score in without.items()},
        "dialogues": {task: score.report() for task, score in dialogues.items()},
    }
    fresh = out.with_name(out.name + ".partial")
    fresh.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(out)
    return found
