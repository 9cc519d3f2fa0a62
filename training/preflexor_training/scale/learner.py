"""A phase's model with several processes: what needs them all is told to them, the rest the leader does alone.

Each process holds a learner of its own over the same folder. Between two trainings all hold the same whole model, so
that the leader can evaluate, ask, save and merge it as one process would.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from preflexor_agents.backends.base import Backend
from preflexor_training.learner import Held, Metrics
from preflexor_training.phases import OpenLearner
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.scale import wire
from preflexor_training.scale.crew import Crew, processes, rank, reaching
from preflexor_training.tokenized import Masked, Step
from preflexor_training.torch_backend.learner import TorchLearner, open_learner


class LeadingLearner:
    """A `learner.Learner` of the leader."""

    def __init__(self, crew: Crew, own: TorchLearner) -> None:
        """Take the leader's own learner; the others have opened theirs."""
        self._crew, self._own = crew, own

    @property
    def step(self) -> int:
        """Optimizer steps done in this phase, those before a resume included."""
        return self._own.step

    def refer(self, rows: Sequence[Masked]) -> None:
        """Make sure that the reference's log-probs of these rows are at hand: each process computes some of them."""
        self._crew.tell({"do": "refer", **wire.packed([(tuple(rows),)])})
        _refer(self._crew, self._own, rows)

    def train(self, steps: Sequence[Step], *, first: int, on_step: Callable[[int, Metrics], None]) -> None:
        """Take steps, as `learner.Learner.train` says; a stop that `on_step` asks for takes one step more.

        Raises:
            TrainingError: also if another process has gone.
        """
        self._crew.tell({"do": "train", "first": first, **wire.packed(steps)})
        with reaching():
            self._own.train(steps, first=first, on_step=on_step)

    def evaluate(self, rows: Sequence[Masked]) -> Held:
        """Loss and margins, without learning."""
        return self._own.evaluate(rows)

    def student(self) -> Backend:
        """The model as it is at the moment, as a backend that can be asked."""
        return self._own.student()

    def save_adapter(self, folder: Path) -> None:
        """Write what was learnt."""
        self._own.save_adapter(folder)

    def load_adapter(self, folder: Path) -> None:
        """Take over the weights that `save_adapter` wrote, to be asked or merged."""
        self._own.load_adapter(folder)

    def merge(self, folder: Path) -> None:
        """Write base and adapter as one Hugging Face folder."""
        self._own.merge(folder)

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are at the moment."""
        return self._own.fingerprint()

    def close(self) -> None:
        """Let the model go in this process; the others let theirs go when they open the next. Idempotent."""
        self._own.close()


def opener(crew: Crew) -> OpenLearner:
    """What opens a phase's model in all processes."""

    def open_all(recipe: Recipe, phase: Phase, base: Path, folder: Path) -> LeadingLearner:
        crew.tell(
            {
                "do": "open",
                "recipe": recipe.model_dump_json(),
                "phase": recipe.phases.index(phase),
                "base": str(base),
                "folder": str(folder),
            }
        )
        return LeadingLearner(crew, open_learner(recipe, phase, base, folder))

    return open_all


def follow(crew: Crew) -> None:
    """Do what the leader tells until it ends.

    Raises:
        TrainingError: as the learner's methods do.
        RuntimeError: the leader has gone.
    """
    own: TorchLearner | None = None
    while (told := crew.hear())["do"] != "end":
        if told["do"] == "open":
            if own is not None:
                own.close()
            recipe = Recipe.model_validate_json(told["recipe"])
            own = open_learner(recipe, recipe.phases[told["phase"]], Path(told["base"]), Path(told["folder"]))
            continue
        assert own is not None
        steps = wire.unpacked(told)
        if told["do"] == "refer":
            _refer(crew, own, steps[0][0])
        else:
            own.train(steps, first=told["first"], on_step=lambda *_: None)


def _refer(crew: Crew, own: TorchLearner, rows: Sequence[Masked]) -> None:
    own.refer(rows, share=(rank(), processes()))
    crew.wait()
    own.refer(rows)
