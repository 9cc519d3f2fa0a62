"""One phase's model in torch: opened from its base, taught in steps, asked in between, merged at the end."""

import gc
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import Module
from transformers import PreTrainedModel, TrainerState

from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.hf_tokens import load_tokenizer
from preflexor_agents.errors import TrainingError
from preflexor_training import bases, failures, tags
from preflexor_training.learner import Held, Metrics
from preflexor_training.needs import needs_reference, nll_scope
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.reference import References
from preflexor_training.scale.crew import processes
from preflexor_training.tokenized import Masked, Reference, Step
from preflexor_training.torch_backend import merging
from preflexor_training.torch_backend.adapter import WEIGHTS, attach, save_adapter
from preflexor_training.torch_backend.collate import Tensors, collate
from preflexor_training.torch_backend.engines import make_trainer
from preflexor_training.torch_backend.forward import Abilities, Tables, abilities, score
from preflexor_training.torch_backend.model import add_rows, check_whole, load_base, output_head, place, table_rows
from preflexor_training.torch_backend.objective import Scored, objective
from preflexor_training.torch_backend.student import TorchBackend
from preflexor_training.torch_backend.trainer import Planned, PlannedSteps, Report, checkpoints

BATCH_TOK = 4096
"""Most tokens of a forward without gradients: reference and held-out rows."""


class TorchLearner:
    """A `learner.Learner`. Its folder holds `checkpoints/` and `reference/`."""

    def __init__(self, recipe: Recipe, phase: Phase, base: Path, folder: Path) -> None:
        """Load the base and what was learnt in the folder before; see `open_learner`."""
        self._recipe, self._phase, self._base, self._folder = recipe, phase, base, folder
        with failures.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._place = place(phase)
        self.tokenizer = load_tokenizer(base)
        self._known = len(self.tokenizer)
        self._new = tags.add(self.tokenizer, recipe.tags)
        self._model: PreTrainedModel | peft.PeftModel | None = None
        loaded = self._attach()
        self._context_tok = int(getattr(loaded.config.get_text_config(), "max_position_embeddings", None) or 2**31)
        self._vocabulary = table_rows(loaded)
        self._able = self._find_abilities()
        self._frozen: PreTrainedModel | None = None
        self._base_sha256 = bases.fingerprint(base)
        self._references = References(
            folder / "reference", weights=f"{self._base_sha256} {self._new} {self._place.dtype}", batch_tok=BATCH_TOK
        )
        self._resume()

    @property
    def step(self) -> int:
        """Optimizer steps done in this phase, those before a resume included."""
        last = self._last_checkpoint()
        return 0 if last is None else int(last.name.removeprefix("checkpoint-"))

    def refer(self, rows: Sequence[Masked], *, share: tuple[int, int] = (0, 1)) -> None:
        """Make sure that the reference's log-probs of these rows are at hand.

        Args:
            rows: of a round.
            share: this process and how many there are. Each computes its part; when all have, each calls this once
                more without it to read the others' parts.
        """
        if not needs_reference(self._phase) or not rows:
            return
        self._check(rows)
        self._references.reload(rows)
        self._references.add(rows, self._refer_group, share=share)
        self._frozen = None

    def train(self, steps: Sequence[Step], *, first: int, on_step: Callable[[int, Metrics], None]) -> None:
        """Take steps, as `learner.Learner.train` says."""
        done = self.step
        if not steps or done >= first + len(steps):
            return
        if done < first:
            raise TrainingError(f"step {first + 1} is asked for, but only {done} are done; begin the phase again")
        rows = [row for step in steps for micro in step for row in micro]
        self._check(rows)
        if self._precomputes:
            self.refer(rows)
        own = self._recipe.step.engine == "ours"
        collate = self._collate if own else self._collate_plain
        plan = PlannedSteps(steps, first=first, collate=collate, processes=processes())
        report = Report(on_step)
        last = self._last_checkpoint()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of TRL's use of Transformers
                warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing changes it
                trainer = self._trainer(plan, report)
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except failures.MEMORY as e:
            failures.check_memory(e, step=self.step + 1, rows=rows)
            raise
        finally:
            self._put_right()
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            self._open_again()
        if report.stopped is not None:
            raise report.stopped

    def evaluate(self, rows: Sequence[Masked]) -> Held:
        """Loss and margins, without learning."""
        if not rows:
            return Held(loss=float("nan"), margins=())
        self._check(rows)
        if needs_reference(self._phase):
            self.refer(rows)
        found: dict[int, tuple[float, float]] = {}
        model = self._ready()
        order = sorted(range(len(rows)), key=lambda n: len(rows[n].pair.prompt) + len(rows[n].pair.chosen.ids))
        with torch.no_grad(), self._autocast():
            for n in order:
                batch = self._to_device(self._collate((rows[n],)))
                scored = objective(self._phase, batch, self._score(model, batch))
                found[n] = (float(scored.loss), float(scored.margins[0]))
        pairs = [found[n] for n in range(len(rows))]
        return Held(loss=sum(loss for loss, _ in pairs) / len(pairs), margins=tuple(margin for _, margin in pairs))

    def student(self) -> Backend:
        """The model as it is at the moment, as a backend that can be asked."""
        return TorchBackend(
            self._ready(), self.tokenizer, folder=self._folder, context_tok=self._context_tok, autocast=self._autocast
        )

    def save_adapter(self, folder: Path) -> None:
        """Write what was learnt as a PEFT adapter with the tokenizer that it belongs to, or the whole model."""
        model = self._ready()
        with failures.writing(folder):
            if isinstance(model, peft.PeftModel):
                save_adapter(model, folder)
                self.tokenizer.save_pretrained(folder)
            else:
                merging.write(model, self.tokenizer, folder)

    def load_adapter(self, folder: Path) -> None:
        """Take over the weights that `save_adapter` wrote, to be asked or merged; no training goes on from them."""
        self._take_weights(folder)

    def merge(self, folder: Path) -> None:
        """Write base and adapter as one Hugging Face folder; tied embeddings stay tied."""
        model = self._ready()
        if not isinstance(model, peft.PeftModel):
            with failures.writing(folder):
                merging.write(model, self.tokenizer, folder)
            return
        whole = self._recipe.adapter.model_copy(update={"bits": 16})
        base = load_base(self._base, settings=whole, place=merging.merge_place(self._base))
        add_rows(base, known=self._known, total=len(self.tokenizer), new=self._new)
        with failures.writing(folder):
            merging.merge(base, model, self.tokenizer, folder, settings=whole, new_ids=self._new)

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are at the moment, adapter included."""
        digest = sha256(self._base_sha256.encode())
        for name, weight in sorted(self._ready().named_parameters()):
            if weight.requires_grad:
                digest.update(name.encode() + weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Let the model go. Idempotent."""
        self._model = self._frozen = None
        gc.collect()
        if self._place.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _precomputes(self) -> bool:
        """Without an adapter to switch off, the reference is gone once training has begun."""
        step = self._recipe.step
        asked = step.precompute_reference or self._recipe.adapter.kind == "full"
        return needs_reference(self._phase) and asked and step.engine == "ours"

    def _load_base(self) -> PreTrainedModel:
        loaded = load_base(self._base, settings=self._recipe.adapter, place=self._place)
        add_rows(loaded, known=self._known, total=len(self.tokenizer), new=self._new)
        return loaded

    def _attach(self) -> PreTrainedModel:
        """Load the base and put beside it what is trained of it; returns the base."""
        loaded = self._load_base()
        if self._recipe.step.gradient_checkpointing:
            loaded.activation_checkpointing_enable({"use_reentrant": False})
        self._model = attach(loaded, self._recipe.adapter, new_ids=self._new, seed=self._recipe.seed)
        return loaded

    def _open_again(self) -> None:
        """A model that was cut into shards stays cut: take a whole one, as of the last checkpoint, in its place."""
        self.close()
        self._attach()
        self._resume()

    def _find_abilities(self) -> Abilities:
        model = self._ready()
        with self._autocast():
            found = abilities(model, output_head(model))
        return found if self._recipe.step.shared_prompt else Abilities(False, found.scored_head, found.window_tok)

    def _ready(self) -> Any:
        if self._model is None:
            raise TrainingError("the learner is closed; open it again")
        return self._model

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._place.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._place.device.type, dtype=self._place.dtype)

    def _check(self, rows: Sequence[Masked]) -> None:
        failures.check_rows(rows, vocabulary=self._vocabulary, context_tok=self._context_tok)

    def _collate(self, rows: Sequence[Masked]) -> Tensors:
        fits = all(
            len(row.pair.prompt) + max(len(row.pair.chosen.ids), len(row.pair.rejected.ids)) <= self._able.window_tok
            for row in rows
        )
        references = None
        if needs_reference(self._phase) and all(row in self._references for row in rows):
            references = [self._references[row] for row in rows]
        shared = self._able.shared_prompt and fits
        return collate(rows, shared=shared, nll_scope=nll_scope(self._phase), references=references)

    def _collate_plain(self, rows: Sequence[Masked]) -> Tensors:
        """For TRL, which makes the rest itself."""
        return collate(rows, shared=False)

    def _score(self, model: Module, batch: Tensors) -> Tables:
        return score(model, output_head(self._ready()), batch, scored_head=self._able.scored_head)

    def _loss_of(self, model: Module, batch: Tensors) -> Scored:
        """In training. What has no reference yet gets it from the model with its adapter off."""
        if needs_reference(self._phase) and "chosen_reference" not in batch:
            with torch.no_grad(), self._autocast(), self._ready().disable_adapter():
                reference = self._score(model, batch)
            batch = {**batch, "chosen_reference": reference.chosen, "rejected_reference": reference.rejected}
        with self._autocast():  # a wrapped model has its own, but for FSDP2
            tables = self._score(model, batch)
        return objective(self._phase, batch, tables)

    def _refer_group(self, rows: Sequence[Masked]) -> list[Reference]:
        """The reference's numbers of a few rows: the base, which is the model without its adapter."""
        model = self._ready()
        if not isinstance(model, peft.PeftModel):
            model = self._frozen = self._frozen or self._load_base()
        shared = self._able.shared_prompt and all(
            len(row.pair.prompt) + max(len(row.pair.chosen.ids), len(row.pair.rejected.ids)) <= self._able.window_tok
            for row in rows
        )
        batch = self._to_device(collate(rows, shared=shared))
        off = model.disable_adapter() if isinstance(model, peft.PeftModel) else nullcontext()
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._autocast(), off:
                tables = score(model, output_head(model), batch, scored_head=self._able.scored_head)
        except failures.MEMORY as e:
            failures.check_memory(e, step=self.step, rows=rows)
            raise
        finally:
            model.train(training)
        chosen, rejected = tables.chosen.float().cpu().numpy(), tables.rejected.float().cpu().numpy()
        return [
            Reference(
                chosen[n, : len(row.chosen)][row.chosen].copy(), rejected[n, : len(row.rejected)][row.rejected].copy()
            )
            for n, row in enumerate(rows)
        ]

    def _to_device(self, batch: Tensors) -> Tensors:
        return {name: value.to(self._place.device) for name, value in batch.items()}

    def _trainer(self, plan: PlannedSteps, report: Report) -> Planned:
        return make_trainer(
            self._ready(),
            self._recipe,
            self._phase,
            place=self._place,
            folder=self._folder / "checkpoints",
            plan=plan,
            report=report,
            loss_of=self._loss_of,
            tokenizer=self.tokenizer,
        )

    def _put_right(self) -> None:
        """After training: as it was, for whoever asks the model next, without what accelerate and TRL put around it."""
        model = self._ready()
        model.eval()
        model.zero_grad(set_to_none=True)
        inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
        for module in (model, inner):
            for name in ("forward", "_original_forward"):
                module.__dict__.pop(name, None)

    def _last_checkpoint(self) -> Path | None:
        found = checkpoints(self._folder / "checkpoints")
        return found[-1] if found else None

    def _resume(self) -> None:
        """Take over the weights of the last checkpoint, if there is one."""
        last = self._last_checkpoint()
        self._ready().eval()
        if last is None:
            return
        try:
            TrainerState.load_from_json(str(last / "trainer_state.json"))
            self._take_weights(last)
        except (OSError, ValueError, KeyError, TypeError, TrainingError) as e:
            raise TrainingError(
                f"checkpoint {last} is damaged: {failures.line(e)}; remove it, and training goes on from the one before"
            ) from None

    def _take_weights(self, folder: Path) -> None:
        model = self._ready()
        try:
            if isinstance(model, peft.PeftModel):
                set_peft_model_state_dict(model, load_file(folder / WEIGHTS, device=str(self._place.device)))
                return
            files = sorted(folder.glob("model*.safetensors"))
            if not files:
                raise FileNotFoundError(f"{folder} has no model*.safetensors")
            known: set[str] = set()
            for file in files:
                state = load_file(file, device=str(self._place.device))
                model.load_state_dict(state, strict=False)
                known |= state.keys()
            check_whole(model, lacking={name for name, _ in model.named_parameters()} - known)
        except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as e:
            raise TrainingError(f"{folder} holds no weights of this model: {failures.line(e)}") from None


def open_learner(recipe: Recipe, phase: Phase, base: Path, folder: Path) -> TorchLearner:
    """Open a phase's model.

    Args:
        recipe: of the run.
        phase: one of the recipe's.
        base: folder of the model that the phase starts from; it is never written to.
        folder: the learner's own; what is there of an earlier run is gone on with.

    Raises:
        ModelError: the base cannot be used.
        ConfigError: the recipe does not fit the base or this machine.
        TrainingError: the last checkpoint is damaged.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        return TorchLearner(recipe, phase, base, folder)
