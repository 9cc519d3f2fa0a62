"""The folder of an evaluation: what was asked (`eval.json`), and each result and judgement as it came (JSON lines).

Asking again with the same questions and systems goes on where it was broken off; results with an error are tried again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from preflexor_agents import __version__
from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.judging import Judgement
from preflexor_agents.evaluation.results import Result, from_json, to_json
from preflexor_agents.evaluation.systems import System
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.json_lines import Line, Lines, read_lines

ASKED, RESULTS, JUDGEMENTS = "eval.json", "results.jsonl", "judgements.jsonl"


class EvalFolder:
    """An evaluation that is being written. One process at a time; close it, or use it as a context manager."""

    def __init__(self, path: Path, tasks: Sequence[Task], systems: Sequence[System], *, library: str) -> None:
        """Begin it, or go on with it.

        Raises:
            InputError: it cannot be written, or holds an evaluation of other questions or systems; names what differs.
        """
        self.path = path
        self.results: dict[tuple[str, str, int], Result] = {}
        self.judgements: dict[tuple[str, int, str, str], Judgement] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}; name another folder") from None
        asked = _asked(tasks, systems, library)
        self._open = ExitStack()
        try:
            self._results = self._open.enter_context(
                Lines(path / RESULTS, durable=False, take=lambda line: self._keep(_result(path, line)))
            )
            self._judgements = self._open.enter_context(
                Lines(path / JUDGEMENTS, durable=False, take=lambda line: self._heard(_judgement(path, line)))
            )
            self._begin(asked)
        except BaseException:
            self._open.close()
            raise

    def _begin(self, asked: dict[str, Any]) -> None:
        file = self.path / ASKED
        if not file.exists():
            if self.results:
                raise InputError(f"{file} is missing beside {RESULTS}; restore it, or name another folder")
            fresh = file.with_name(file.name + ".partial")
            fresh.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            fresh.replace(file)
            return
        before = _read(file)
        for key in ("tasks_sha256", "library", "systems"):
            old, new = before.get(key), asked[key]
            if key == "systems" and isinstance(old, dict):
                old, new = ({name: all_[name] for name in old.keys() & new.keys()} for all_ in (old, new))
            if old != new:
                what = {"tasks_sha256": "other questions", "library": f"another store ({old})"}.get(
                    key, "other settings"
                )
                raise InputError(f"{self.path} holds an evaluation with {what}; name another folder with --out")
        asked["systems"] = {**before["systems"], **asked["systems"]}
        fresh = file.with_name(file.name + ".partial")
        fresh.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fresh.replace(file)

    def add(self, result: Result) -> None:
        """Write a result down. Raises DiskError: the disk is full."""
        self._results.append(json.dumps(to_json(result), ensure_ascii=False) + "\n")
        self._keep(result)

    def add_judgement(self, judgement: Judgement) -> None:
        """Write a judgement down, likewise."""
        self._judgements.append(json.dumps(dataclasses.asdict(judgement), ensure_ascii=False) + "\n")
        self._heard(judgement)

    def done(self) -> set[tuple[str, str, int]]:
        """Keys of the results that need not be asked for again."""
        return {key for key, result in self.results.items() if not result.error}

    def _keep(self, result: Result) -> None:
        self.results[result.key()] = result

    def _heard(self, judgement: Judgement) -> None:
        self.judgements[judgement.key()] = judgement

    def close(self) -> None:
        """Let the files go. Idempotent."""
        self._open.close()

    def __enter__(self) -> "EvalFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_results(path: Path) -> list[Result]:
    """The results of an evaluation, the last one of each question; also while it is running.

    Raises:
        InputError: the folder holds none, or they are damaged.
    """
    found: dict[tuple[str, str, int], Result] = {}
    for line in read_lines(path / RESULTS):
        result = _result(path, line)
        found[result.key()] = result
    if not found:
        raise InputError(f"{path} holds no results; name the folder of an evaluation")
    return list(found.values())


def read_judgements(path: Path) -> list[Judgement]:
    """The judgements of an evaluation, likewise; none where nothing was judged."""
    found = (_judgement(path, line) for line in read_lines(path / JUDGEMENTS))
    return list({judgement.key(): judgement for judgement in found}.values())


def _result(path: Path, line: Line) -> Result:
    return from_json(line.data, where=f"{path / RESULTS} at byte {line.start}")


def _judgement(path: Path, line: Line) -> Judgement:
    known = {f.name for f in dataclasses.fields(Judgement)}
    if line.data.keys() != known:
        raise InputError(f"{path / JUDGEMENTS} at byte {line.start} is no judgement; evaluate into a new folder")
    return Judgement(**{**line.data, "orders": tuple(line.data["orders"])})


def _asked(tasks: Sequence[Task], systems: Sequence[System], library: str) -> dict[str, Any]:
    """What tells one evaluation from another."""
    said = json.dumps([dataclasses.asdict(task) for task in tasks], sort_keys=True, ensure_ascii=False)
    return {
        "version": __version__,
        "questions": len(tasks),
        "tasks_sha256": hashlib.sha256(said.encode()).hexdigest(),
        "library": library,
        "systems": {
            s.name: json.loads(json.dumps({"model": s.model, "protocol": s.protocol, "config": _config(s)}))
            for s in systems
        },
    }


def _config(system: System) -> dict[str, Any] | None:
    return None if system.config is None else dataclasses.asdict(system.config)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; make it readable") from None
    except ValueError:
        raise InputError(f"{file} is damaged; restore a copy, or name another folder") from None
    if not isinstance(found, dict) or not isinstance(found.get("systems"), dict):
        raise InputError(f"{file} is damaged; restore a copy, or name another folder")
    return found
