"""Writes the folder of a training run: what it was asked for, how far it is, and its curves, audits and samples.

`state.json` is written at the edges between rounds; lines about anything later are cut off when a run is resumed, so a
killed and resumed run leaves the same files as one that was not, apart from times.
"""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from preflexor_agents.errors import InputError, TrainingError
from preflexor_agents.run_folder import CONFIG, METRICS, SAMPLES
from preflexor_training.pair_log import PAIRS, ROUNDS, PairLog

STATE, VERSIONS, AUDITS, ORIGIN = "state.json", "versions.json", "audit.jsonl", "run.json"
FORGE = "forge"
"""Folder of the forge runs that made the rows."""
_FIRST = {name + end for name in (CONFIG, ORIGIN, VERSIONS, STATE) for end in ("", ".partial")} - {STATE} | {
    PAIRS,
    ROUNDS,
}
"""What a process that was killed while it began may have left."""
_PACKAGES = ("preflexor-agents", "torch", "transformers", "trl", "peft", "accelerate", "mlx", "mlx-lm", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is done, as of the last edge."""

    phase: int = 0
    """Phases that are done, their merge included."""
    round: int = 0
    """Rounds done of the phase at hand."""
    rounds: int = 0
    """Rounds done of the whole run."""
    step: int = 0
    """Optimizer steps of the whole run."""
    phase_step: int = 0
    """Those of the phase at hand."""
    margins: tuple[float | None, ...] = ()
    """Held-out margin after each of its rounds, nats; None without held-out rows."""
    seconds: float = 0.0
    """Working time of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrigin:
    """What decides the weights that come out, beside the recipe."""

    backend: str
    base: str
    base_sha256: str
    data: str
    """The file of rows, or what makes them."""
    data_sha256: str
    """Of the file's bytes; of forge's settings, models and store otherwise."""


class RunWriter:
    """The folder while one process works on it."""

    def __init__(self, folder: Path, state: State) -> None:
        """Open it; `begin` and `resume` are what to call."""
        self.folder = folder
        self.log = PairLog(folder)
        """The rows; it keeps other processes out of the folder."""
        self.state = state
        self._metrics: IO[str] | None = None

    @classmethod
    def begin(cls, folder: Path, config: str, origin: RunOrigin) -> "RunWriter":
        """Make the folder.

        Raises:
            InputError: it exists with something in it, or cannot be made.
        """
        try:
            if folder.exists() and {path.name for path in folder.iterdir()} - _FIRST:
                remedy = "go on with it by --resume" if (folder / STATE).exists() else "name another by --out"
                raise InputError(f"{folder} exists already; {remedy}")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"{folder} cannot be used: {e.strerror}; name a writable folder by --out") from None
        run = cls(folder, State())
        run._write(CONFIG, config)
        run._write(ORIGIN, _pretty(asdict(origin)))
        run._write(VERSIONS, _pretty(versions()))
        run.save(State())
        return run

    @classmethod
    def resume(cls, folder: Path) -> "RunWriter":
        """Open a folder that `begin` made, as of its last edge.

        Raises:
            InputError: it holds no run, a damaged one, or another process works on it.
        """
        try:
            found = json.loads((folder / STATE).read_text(encoding="utf-8"))
            state = State(**{**found, "margins": tuple(found["margins"])})
        except FileNotFoundError:
            raise InputError(f"{folder} holds no run to resume; begin one without --resume") from None
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise InputError(f"{folder / STATE} is damaged ({e}); begin another run") from None
        return cls(folder, state)

    def cut(self, learnt: int) -> float:
        """Forget what was logged after the last edge, but for the steps up to `learnt` that a checkpoint still holds.

        Args:
            learnt: optimizer steps of the whole run in the learner's checkpoint.

        Returns:
            Seconds at which the last line that is left was written; 0 if there is none.
        """

        def before(line: Mapping[str, Any]) -> bool:
            return bool(line["round"] <= self.state.rounds)

        self._close_metrics()
        left = self._keep(METRICS, lambda line: before(line) or ("loss" in line and line["step"] <= learnt))
        self._keep(SAMPLES, before)
        self._keep(AUDITS, before)
        return float(left[-1]["t_s"]) if left else 0.0

    def metric(self, line: Mapping[str, Any]) -> None:
        """Add a line of numbers."""
        with self._writing(METRICS):
            if self._metrics is None:
                self._metrics = (self.folder / METRICS).open("a", encoding="utf-8")
            self._metrics.write(_line(line))
            self._metrics.flush()

    def sample(self, line: Mapping[str, Any]) -> None:
        """Add what the model wrote."""
        self._append(SAMPLES, line)

    def audit(self, line: Mapping[str, Any]) -> None:
        """Add what the rows of a round look like."""
        self._append(AUDITS, line)

    def save(self, state: State) -> None:
        """Say what is done; when this returns it is on the disk."""
        self._write(STATE, _pretty(asdict(state)))
        self.state = state

    def close(self) -> None:
        """Let the folder go. Idempotent."""
        self._close_metrics()
        self.log.close()

    def discard(self) -> bool:
        """Remove a run that came to nothing: no step was taken and no row was made. Returns whether it was removed."""
        self.close()
        if any((self.folder / name).exists() for name in (METRICS, FORGE)):
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with self._writing(name), (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(_line(line))

    def _keep(self, name: str, wanted: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
        """Leave only some lines of a file; returns them. A last one that was cut off goes too."""
        path = self.folder / name
        if not path.exists():
            return []
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")
        found = [(line, data) for line in lines if (data := _parsed(line)) is not None]
        kept = [(line, data) for line, data in found if wanted(data)]
        if len(kept) < len([line for line in lines if line]):
            self._write(name, "".join(line + "\n" for line, _ in kept))
        return [data for _, data in kept]

    def _write(self, name: str, text: str) -> None:
        partial = self.folder / f"{name}.partial"
        with self._writing(name):
            try:
                with partial.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(self.folder / name)
            finally:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise TrainingError(
                f"{self.folder / name} cannot be written: {e.strerror}; make room, then --resume"
            ) from None


def read_origin(folder: Path) -> RunOrigin:
    """What a run was made of.

    Raises:
        InputError: the folder has no such file, or it is damaged.
    """
    try:
        return RunOrigin(**json.loads((folder / ORIGIN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no run; name the folder of one") from None
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"{folder / ORIGIN} is damaged ({e}); begin another run") from None


def read_versions(folder: Path) -> dict[str, str]:
    """The versions that a run began with; none if they were not kept."""
    try:
        found: dict[str, str] = json.loads((folder / VERSIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def versions() -> dict[str, str]:
    """What the numbers of a run can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
