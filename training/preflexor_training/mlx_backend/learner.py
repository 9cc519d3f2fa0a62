"""One phase's model in MLX: opened from its base, taught in steps, asked in between, merged at the end."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import get_total_parameters

from preflexor_agents.backends import mlx_adapter, mlx_rows
from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.hf_tokens import HfVocabulary, load_tokenizer, template_source
from preflexor_agents.backends.mlx import CONTEXT_TOK, MlxBackend
from preflexor_agents.backends.mlx_decoder import MlxDecoder
from preflexor_agents.backends.mlx_model import MlxFolder, check_folder, end_ids, keep_resident, trained_tok
from preflexor_agents.backends.model_text import ModelText
from preflexor_agents.errors import ConfigError, TrainingError
from preflexor_training import bases, failures, tags
from preflexor_training.learner import Held, Metrics
from preflexor_training.mlx_backend import checkpoint, memory, merging, model
from preflexor_training.mlx_backend.checkpointing import checkpoint_layers
from preflexor_training.mlx_backend.collate import Batch, collate
from preflexor_training.mlx_backend.forward import Abilities, abilities, score
from preflexor_training.mlx_backend.loop import Loop, make_optimizer
from preflexor_training.mlx_backend.objective import Scored, objective
from preflexor_training.mlx_backend.trees import flat, random_state
from preflexor_training.mlx_backend.trees import number as number_of
from preflexor_training.needs import needs_reference, nll_scope
from preflexor_training.rates import rate, total_steps
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.reference import References
from preflexor_training.tokenized import Masked, Reference, Step

BATCH_TOK = 4096
"""Most tokens of a forward without gradients: reference rows."""


class MlxLearner:
    """A `learner.Learner`. Its folder holds `checkpoints/` and `reference/`."""

    def __init__(self, recipe: Recipe, phase: Phase, base: Path, folder: Path) -> None:
        """Load the base and what was learnt in the folder before; see `open_learner`."""
        self._recipe, self._phase, self._base, self._folder = recipe, phase, base, folder
        check_folder(base)
        self.tokenizer = load_tokenizer(base)
        self._known = len(self.tokenizer)
        self._new = tags.add(self.tokenizer, recipe.tags)
        loaded, config = self._load_base()
        self._context_tok, self._ends = trained_tok(config), end_ids(config)
        self._tied = mlx_adapter.tied(loaded)
        self._check_memory(config, loaded)
        model.attach(loaded, recipe.adapter, new=self._new, seed=recipe.seed)
        self._check_names(loaded)
        self._vocabulary = mlx_rows.vocabulary(loaded)
        found = abilities(loaded)
        self._able = found if recipe.step.shared_prompt else Abilities(False, found.scored_head)
        if recipe.step.gradient_checkpointing:
            checkpoint_layers(loaded)
        self._model: Any = loaded
        self._frozen: Any = None
        self._optimizer = make_optimizer(phase)
        self._random = recipe.seed
        self._step = 0
        self._base_sha256 = bases.fingerprint(base)
        weights = f"mlx {self._base_sha256} {self._new} {model.dtype(phase)} {recipe.adapter.bits}"
        self._references = References(folder / "reference", weights=weights, batch_tok=BATCH_TOK)
        self._resume()
        keep_resident()

    @property
    def step(self) -> int:
        """Optimizer steps done in this phase, those before a resume included."""
        return self._step

    def refer(self, rows: Sequence[Masked]) -> None:
        """Make sure that the reference's log-probs of these rows are at hand."""
        if not needs_reference(self._phase) or not rows:
            return
        self._check(rows)
        self._references.add(rows, self._refer_group)
        self._frozen = None

    def train(self, steps: Sequence[Step], *, first: int, on_step: Callable[[int, Metrics], None]) -> None:
        """Take steps, as `learner.Learner.train` says."""
        if not steps or self._step >= first + len(steps):
            return
        if self._step < first:
            raise TrainingError(f"step {first + 1} is asked for, but only {self._step} are done; begin the phase again")
        rows = [row for step in steps for micro in step for row in micro]
        self._check(rows)
        if self._precomputes:
            self.refer(rows)
        loop = Loop(self._ready(), self._optimizer, self._phase, self._collate, self._loss_of)
        total, every = total_steps(self._phase, first=first, steps=len(steps)), self._phase.checkpoint_every
        self._ready().train()
        mx.random.seed(self._random)
        try:
            for number in range(self._step, first + len(steps)):
                metrics = loop.step(
                    steps[number - first], number=number + 1, rate=rate(self._phase, number, total=total)
                )
                self._step, self._random = number + 1, random_state()
                try:
                    on_step(number, metrics)
                except KeyboardInterrupt:
                    self._save()
                    raise
                if (every and self._step % every == 0) or self._step == first + len(steps):
                    self._save()
        finally:
            self._ready().eval()

    def evaluate(self, rows: Sequence[Masked]) -> Held:
        """Loss and margins, without learning."""
        if not rows:
            return Held(loss=float("nan"), margins=())
        self.refer(rows)
        self._check(rows)
        pairs: list[tuple[float, float]] = []
        for row in rows:
            scored = self._loss_of(self._ready(), self._collate((row,)))
            pairs.append((number_of(scored.loss), number_of(scored.margins[0])))
        return Held(loss=sum(loss for loss, _ in pairs) / len(pairs), margins=tuple(margin for _, margin in pairs))

    def student(self) -> Backend:
        """The model as it is at the moment, as a backend that can be asked."""
        folder = MlxFolder(
            path=self._folder,
            model=self._ready(),
            config={},
            tokenizer=self.tokenizer,
            trained_tok=self._context_tok,
            chat_template=template_source(self.tokenizer),
            ends=self._ends,
        )
        text = ModelText(folder, HfVocabulary(self.tokenizer, ends=self._ends))
        context_tok = min(CONTEXT_TOK, self._context_tok)
        decoder = MlxDecoder(folder.model, text, context_tok=context_tok, name=self._phase.name)
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlx student")
        return MlxBackend(f"mlx:{self._folder}", decoder, worker)

    def save_adapter(self, folder: Path) -> None:
        """Write what was learnt as a PEFT adapter with the tokenizer that it belongs to, or the whole model."""
        if self._recipe.adapter.kind == "full":
            self.merge(folder)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mlx_adapter.write_peft(mlx_adapter.taken(self._ready(), base=str(self._base)), folder)
            self.tokenizer.save_pretrained(str(folder))
        except (OSError, RuntimeError) as e:
            raise TrainingError(f"{folder} cannot be written: {failures.line(e)}; make room") from None

    def load_adapter(self, folder: Path) -> None:
        """Take over the weights that `save_adapter` wrote, to be asked or merged; no training goes on from them."""
        live = self._ready()
        if self._recipe.adapter.kind == "full":
            live.update(model.load_base(folder, settings=self._recipe.adapter, phase=self._phase)[0].parameters())
        else:
            saved = mlx_adapter.read(folder)
            weights = [(f"{name}.rows", rows.values) for name, rows in saved.rows.items()]
            for name, update in saved.updates.items():
                weights += [(f"{name}.lora_a", update.a.T), (f"{name}.lora_b", update.b.T)]
            live.load_weights(weights, strict=False)
        mx.eval(live.parameters())

    def merge(self, folder: Path) -> None:
        """Write base and adapter as one Hugging Face folder; tied embeddings stay tied."""
        live = self._ready()
        if self._recipe.adapter.kind == "full":
            merge = merging.Merge({}, {}, whole=flat(live.parameters()))
        else:
            adapter = mlx_adapter.taken(live)
            rows = {
                name: adapter.rows.get(name) or mlx_adapter.Rows(self._new, mlx_rows.rows_of(table, self._new))
                for name, table in mlx_rows.tables(live)
                if self._new
            }
            merge = merging.Merge(adapter.updates, rows)
        merging.write(self._base, folder, merge, vocabulary=self._vocabulary, tied=self._tied, tokenizer=self.tokenizer)

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are at the moment, adapter included."""
        digest = sha256(self._base_sha256.encode())
        for name, weight in sorted(flat(self._ready().trainable_parameters()).items()):
            digest.update(name.encode() + np.array(weight.astype(mx.float32)).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Let the model go. Idempotent."""
        self._model = self._frozen = None
        mx.clear_cache()

    @property
    def _precomputes(self) -> bool:
        """Without an adapter to switch off, the reference is gone once training has begun."""
        asked = self._recipe.step.precompute_reference or self._recipe.adapter.kind == "full"
        return needs_reference(self._phase) and asked

    def _load_base(self) -> tuple[Any, dict[str, Any]]:
        loaded, config = model.load_base(self._base, settings=self._recipe.adapter, phase=self._phase)
        model.add_rows(loaded, known=self._known, total=len(self.tokenizer), new=self._new)
        return loaded, config

    def _check_memory(self, config: dict[str, Any], loaded: Any) -> None:
        quantised = config.get("quantization")
        settings, phase = self._recipe.adapter, self._phase
        plan = memory.Plan(
            bits=int(quantised["bits"]) if isinstance(quantised, dict) else settings.bits,
            rank=settings.rank,
            batch_pairs=phase.batch_pairs,
            accumulation=phase.accumulation,
            max_length_tok=self._recipe.data.max_length_tok,
            gradient_checkpointing=self._recipe.step.gradient_checkpointing,
        )
        size = memory.size_of(config, parameters=get_total_parameters(loaded))  # type: ignore[no-untyped-call]
        memory.check(
            size,
            plan,
            memory.machine_bytes(),
            number_bytes=model.dtype(phase).size,
            full=settings.kind == "full",
        )

    def _check_names(self, loaded: Any) -> None:
        """What is learnt must be written back under the base's names; some architectures are renamed by mlx-lm."""
        known = merging.names(self._base)
        if self._recipe.adapter.kind == "full":
            live = set(flat(loaded.parameters()))
            strange = live ^ (known - ({"lm_head.weight"} if self._tied else set()))
        else:
            adapter = mlx_adapter.taken(loaded)
            strange = {f"{name}.weight" for name in (*adapter.updates, *adapter.rows)} - known
        if strange:
            raise ConfigError(
                f"{self._base} and mlx-lm name weights differently ({min(strange)}); train it with --backend trl"
            )

    def _ready(self) -> Any:
        if self._model is None:
            raise TrainingError("the learner is closed; open it again")
        return self._model

    def _check(self, rows: Sequence[Masked]) -> None:
        failures.check_rows(rows, vocabulary=self._vocabulary, context_tok=self._context_tok)

    def _collate(self, rows: Sequence[Masked]) -> Batch:
        references = None
        if needs_reference(self._phase) and all(row in self._references for row in rows):
            references = [self._references[row] for row in rows]
        return collate(rows, shared=self._able.shared_prompt, nll_scope=nll_scope(self._phase), references=references)

    def _loss_of(self, policy: Any, batch: Batch) -> Scored:
        """What has no reference yet gets it from the model with its adapter off."""
        if needs_reference(self._phase) and batch.chosen_reference is None:
            with model.adapter_off(policy):
                found = score(policy, batch, scored_head=self._able.scored_head)
            chosen, rejected = mx.stop_gradient(found.chosen), mx.stop_gradient(found.rejected)
            batch = batch._replace(chosen_reference=chosen, rejected_reference=rejected)
        return objective(self._phase, batch, score(policy, batch, scored_head=self._able.scored_head))

    def _refer_group(self, rows: Sequence[Masked]) -> list[Reference]:
        """The reference's numbers of a few rows: the base, which is the model without its adapter."""
        batch = collate(rows, shared=self._able.shared_prompt)
        live = self._ready()
        if self._recipe.adapter.kind == "full":
            live = self._frozen = self._frozen or self._load_base()[0]
        live.eval()
        try:
            with model.adapter_off(live):
                tables = score(live, batch, scored_head=self._able.scored_head)
                mx.eval(tables)
        except failures.MEMORY as e:
            failures.check_memory(e, step=self._step, rows=rows)
            raise
        chosen, rejected = np.array(tables.chosen), np.array(tables.rejected)
        return [
            Reference(chosen[n, : len(row.chosen)][row.chosen], rejected[n, : len(row.rejected)][row.rejected])
            for n, row in enumerate(rows)
        ]

    def _save(self) -> None:
        folder = self._folder / "checkpoints"
        if checkpoint.step_of(checkpoint.last(folder)) == self._step:
            return
        weights = flat(self._ready().trainable_parameters())
        checkpoint.save(folder, checkpoint.Saved(self._step, weights, self._optimizer.state, self._random))

    def _resume(self) -> None:
        """Take over weights, optimizer and random state of the last checkpoint, if there is one."""
        last = checkpoint.last(self._folder / "checkpoints")
        live = self._ready()
        live.eval()
        if last is None:
            return
        saved = checkpoint.load(last)
        wanted = {name: value.shape for name, value in flat(live.trainable_parameters()).items()}
        if {name: value.shape for name, value in saved.weights.items()} != wanted:
            raise TrainingError(
                f"checkpoint {last} is of another adapter; remove {self._folder} and begin the phase again"
            )
        live.load_weights(list(saved.weights.items()), strict=False)
        self._optimizer.state = saved.optimizer
        self._step, self._random = saved.step, saved.random
        mx.eval(live.parameters(), self._optimizer.state)


def open_learner(recipe: Recipe, phase: Phase, base: Path, folder: Path) -> MlxLearner:
    """Open a phase's model.

    Args:
        recipe: of the run.
        phase: one of the recipe's.
        base: folder of the model that the phase starts from; it is never written to.
        folder: the learner's own; what is there of an earlier run is gone on with.

    Raises:
        ModelError: the base cannot be used.
        ConfigError: the recipe does not fit the base or MLX.
        TrainingError: the last checkpoint is damaged.
    """
    if recipe.step.engine == "trl":
        raise ConfigError('step.engine is "trl" with --backend mlx; set it to "ours", or use --backend trl')
    return MlxLearner(recipe, phase, base, folder)
