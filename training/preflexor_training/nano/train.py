"""Train nano from scratch, on CPU or GPU, within a budget of tokens and seconds; resume where a run stopped.

A run's folder holds `model/` (weights, tokenizer), `optimizer.pt`, `state.json` and `log.jsonl`. All are written to a
temporary name and renamed, so a run that is killed loses at most the minutes since its last checkpoint.
"""

import dataclasses
import json
import logging
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from preflexor_training.nano.batches import Forest, Mix, encode, forests, join, plant
from preflexor_training.nano.dialogues import episode
from preflexor_training.nano.forward import hidden_states, round_up
from preflexor_training.nano.group import Group, join_group
from preflexor_training.nano.model import copy_accuracy, load_model, new_model
from preflexor_training.nano.recipe import Recipe
from preflexor_training.nano.scoring import CLOSE
from preflexor_training.nano.tokenizer import chat_text, load_tokenizer, train_tokenizer

log = logging.getLogger("preflexor.nano")

LOG_EVERY_S, PROBE_EVERY_S, SAVE_EVERY_S = 30.0, 180.0, 300.0
TOKENIZER_EPISODES, PROBE_EPISODES = 3000, 40


@dataclass(slots=True)
class State:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def progress(self, recipe: Recipe) -> float:
        """Share of the budget that is spent."""
        return min(1.0, max(self.tokens / recipe.budget_tok, self.seconds / recipe.budget_seconds))


class Predictions(NamedTuple):
    """What the model made of a forest's P predictions."""

    loss: Tensor  # (P,) cross entropy, float32
    right: Tensor  # (P,) the likeliest token is the target


def predict(model: LlamaForCausalLM, forest: Forest) -> Predictions:
    """Run the forest; logits are made only where something is learnt."""
    n = len(forest.at)
    device = model.device
    at = torch.zeros(round_up(n, multiple=256), dtype=torch.long)
    at[:n] = torch.from_numpy(forest.at)
    target = torch.from_numpy(forest.target).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        hidden = hidden_states(model, forest).index_select(0, at.to(device))
        logits = linear(hidden, model.model.embed_tokens.weight)[:n].float()  # (P, V)
    return Predictions(cross_entropy(logits, target, reduction="none"), logits.detach().argmax(-1) == target)


def train(recipe: Recipe, *, out: Path, device: str = "cpu", resume: bool = False, start: Path | None = None) -> Path:
    """Run the recipe and return the folder of the trained model.

    Args:
        recipe: of the run.
        out: the run's folder.
        device: `cpu` or `cuda`.
        resume: go on from the last checkpoint in `out`.
        start: folder of a model to go on from, with its tokenizer, in place of a new one.
    """
    group = join_group()
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed + group.rank)
    state = State()
    if resume:
        state = State(**json.loads((out / "state.json").read_text(encoding="utf-8")))
        rng = random.Random(f"{recipe.seed + group.rank} from step {state.step}")
        tokenizer: PreTrainedTokenizerBase = load_tokenizer(out / "model")
        model = load_model(out / "model")
    elif start is not None:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer, model = load_tokenizer(start), load_model(start)
    else:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer = train_tokenizer(_texts(recipe), vocab_size=recipe.vocab_size, context=recipe.context)
        model = new_model(
            tokenizer,
            layers=recipe.layers,
            hidden=recipe.hidden,
            heads=recipe.heads,
            ffn=recipe.ffn,
            context=recipe.context,
        )
        log.info("copy accuracy before training %.2f", copy_accuracy(model))
    torch.nn.Module.to(model, torch.device(device))
    optimizers = _optimizers(model, recipe)
    if resume:
        saved = torch.load(out / "optimizer.pt", weights_only=True, map_location=device)
        for optimizer, values in zip(optimizers, saved, strict=True):
            optimizer.load_state_dict(values)
    probes = Probes(tokenizer)
    mix = Mix(
        batch_tok=recipe.batch_tok,
        context=recipe.context,
        prompt_share=recipe.prompt_share,
        prompt_weight=recipe.prompt_weight,
        stretched_share=recipe.stretched_share,
        weights=recipe.weights,
    )
    source = forests(lambda r: episode(r, split="train", stage=_stage(state, recipe)), tokenizer, rng, mix=mix)
    _loop(
        model, optimizers, source, recipe=recipe, state=state, probes=probes, out=out, tokenizer=tokenizer, group=group
    )
    return out / "model"


def _loop(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    source: Iterator[Forest],
    *,
    recipe: Recipe,
    state: State,
    probes: "Probes",
    out: Path,
    tokenizer: PreTrainedTokenizerBase,
    group: Group,
) -> None:
    tally = Tally()
    begun, before = time.monotonic(), state.seconds
    logged = probed = saved = begun
    while (progress := group.agree(state.progress(recipe))) < 1:
        forest = next(source)
        rate = recipe.learning_rate * _schedule(state.step, progress, recipe)
        found = predict(model, forest)
        weight = torch.from_numpy(forest.weight).to(model.device)
        torch.autograd.backward((found.loss * weight).sum() / weight.sum())
        group.average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for part in optimizer.param_groups:
                part["lr"] = rate * part["share"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tally.add(forest, found)
        now = time.monotonic()
        state.step += 1
        state.tokens += len(forest.ids) * group.size
        state.seconds = before + now - begun
        if group.rank:
            continue
        if now - logged > LOG_EVERY_S:
            _write_log(out, {**dataclasses.asdict(state), "lr": round(rate, 6), **tally.report()})
            tally, logged = Tally(), now
        if now - probed > PROBE_EVERY_S:
            _write_log(out, {"step": state.step, "heldout_exact": probes.run(model)})
            probed = time.monotonic()
        if now - saved > SAVE_EVERY_S:
            _save(out, model, optimizers, tokenizer, state)
            saved = time.monotonic()
    if group.rank == 0:
        _save(out, model, optimizers, tokenizer, state)
        _write_log(out, {"step": state.step, "heldout_exact": probes.run(model), "ended": True})


def _schedule(step: int, progress: float, recipe: Recipe) -> float:
    """Factor on the learning rate: warm-up, constant, then linear to zero."""
    return min(1.0, (step + 1) / recipe.warmup_steps, (1 - progress) / recipe.decay_share)


def _stage(state: State, recipe: Recipe) -> int:
    progress = state.progress(recipe)
    return sum(progress >= end for end in recipe.stage_ends)


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms; each group knows its share of the rate."""
    circuit = [p for layer in model.model.layers[:2] for p in layer.self_attn.parameters()]
    chosen = {id(p) for p in circuit}
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2 and id(p) not in chosen]
    norms = [p for p in model.parameters() if p.ndim == 1]
    rate = recipe.learning_rate
    return [
        torch.optim.Muon(
            [{"params": circuit, "share": recipe.circuit_rate}, {"params": matrices, "share": 1.0}],
            lr=rate,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [
                {"params": [model.model.embed_tokens.weight], "share": recipe.embedding_rate},
                {"params": norms, "share": 1.0},
            ],
            lr=rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def _texts(recipe: Recipe) -> Iterable[str]:
    """What the tokenizer learns its merges from: one dialogue of each episode, and the replies of all."""
    rng = random.Random(recipe.seed)
    for n in range(TOKENIZER_EPISODES):
        made = episode(rng, split="train", stage=n % 3).dialogues
        yield chat_text(made[0].messages)
        yield from (d.given + d.completion for d in made)


class Tally:
    """Loss and share of right tokens per task since the last line of the log."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, forest: Forest, found: Predictions) -> None:
        """Count a step's predictions."""
        loss, right = found.loss.detach().cpu().numpy(), found.right.cpu().numpy()
        for name, values in zip(
            (forest.tasks[d] if d >= 0 else "prompt" for d in forest.dialogue.tolist()),
            zip(loss.tolist(), right.tolist(), strict=True),
            strict=True,
        ):
            sums = self._sums[name]
            sums[0] += values[0]
            sums[1] += values[1]
            sums[2] += 1

    def report(self) -> dict[str, dict[str, float]]:
        """Mean loss and share right, per task."""
        return {
            "loss": {t: round(s[0] / s[2], 3) for t, s in sorted(self._sums.items())},
            "right": {t: round(s[1] / s[2], 3) for t, s in sorted(self._sums.items())},
        }


class Probes:
    """Held-out dialogues, scored by the likeliest token at each place, which is what greedy decoding would write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        rng = random.Random(4711)
        made = [d for _ in range(PROBE_EPISODES) for d in episode(rng, split="heldout", stage=2).dialogues]
        self._tokens = [encode(d, tokenizer) for d in made]
        self._close = tokenizer.convert_tokens_to_ids(CLOSE)

    @torch.no_grad()
    def run(self, model: LlamaForCausalLM) -> dict[str, str]:
        """Per task: whole replies right, thinkings right, of how many."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for n in range(0, len(self._tokens), 8):
            forest = join([plant([t]) for t in self._tokens[n : n + 8]])
            right = predict(model, forest).right.cpu().numpy()
            for number, task in enumerate(forest.tasks):
                mine = forest.dialogue == number
                ends = np.flatnonzero(forest.target[mine] == self._close)
                counts[task][0] += bool(right[mine].all())
                counts[task][1] += bool(right[mine][: ends[0] if len(ends) else None].all())
                counts[task][2] += 1
        return {task: f"{whole}/{thought}/{n}" for task, (whole, thought, n) in sorted(counts.items())}


def _write_log(out: Path, line: dict[str, object]) -> None:
    log.info("%s", json.dumps(line))
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _save(
    out: Path,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    tokenizer: PreTrainedTokenizerBase,
    state: State,
) -> None:
    fresh = out / "checkpoint.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    torch.save([o.state_dict() for o in optimizers], out / "optimizer.pt.partial")
    (out / "state.json.partial").write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
    old = out / "model.old"
    if (out / "model").exists():
        shutil.rmtree(old, ignore_errors=True)
        (out / "model").rename(old)
    fresh.rename(out / "model")
    (out / "optimizer.pt.partial").replace(out / "optimizer.pt")
    (out / "state.json.partial").replace(out / "state.json")
    shutil.rmtree(old, ignore_errors=True)
