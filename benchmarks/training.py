"""Time and memory of an optimizer step: ours beside TRL's own trainers and a bare loop, on a CPU or a GPU.

All run by turns in one process, so that the ratios mean something on a busy machine; memory is taken from a process of
its own for each. The models are random Llamas, the rows are random tokens of given lengths; every reply token is in the
loss. Contract on a CPU: our EXO step takes at most 1 / 1.8 of TRL's where the prompt is 24 % of a text, and 1 / 2.2
where it is 69 %; TRL makes the reference in every step, as it does by default. `--small` shows that it runs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True, slots=True)
class Size:
    """A random Llama."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int


@dataclass(frozen=True, slots=True)
class Texts:
    """Lengths of rows, in tokens; replies vary by a quarter."""

    prompt: int
    reply: int
    least: float = 0.0
    """Contract: how many times as fast as TRL's EXO step ours is at least, on a CPU."""


SIZES = {
    "tiny": Size(64, 2, 1024, 2),
    "small": Size(128, 4, 1024, 4),
    "mid": Size(256, 6, 8192, 8),
    "1b": Size(2048, 16, 128_256, 32),
}
TEXTS = {"24 % prompt": Texts(42, 133, 1.8), "69 % prompt": Texts(121, 54, 2.2)}
LONG = {"24 % prompt": Texts(384, 1216), "69 % prompt": Texts(1104, 496)}
"""For a GPU."""
MODES = ("TRL", "bare loop", "ours, TRL's step", "ours, two rows", "ours, reference on the fly", "ours")
BATCH = 4
RANK = 8
Run = Callable[[int], list[float]]
"""Takes so many steps, and returns the seconds of all but the first."""


def rows(texts: Texts, count: int, vocabulary: int) -> list[Any]:
    """Random pairs, all of whose reply tokens are in the loss."""
    from preflexor_training.tokenized import Masked, TokenizedPair, TokenizedReply

    chance = np.random.default_rng(0)

    def ids(size: int) -> Any:
        return chance.integers(10, vocabulary - 10, size).astype(np.int32)

    made = []
    for number in range(count):
        c, r = (round(texts.reply * chance.uniform(0.75, 1.25)) for _ in range(2))
        replies = [TokenizedReply(ids=ids(size)) for size in (c, r)]
        pair = TokenizedPair(id=f"r{number}", round=0, prompt=ids(texts.prompt), chosen=replies[0], rejected=replies[1])
        made.append(Masked(pair=pair, chosen=np.ones(c, np.bool_), rejected=np.ones(r, np.bool_)))
    return made


def make_base(size: Size, folder: Path) -> Path:
    """The model's folder, with a tokenizer that has our tags already."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.quantize.folders import own_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    own_tokenizer().save_pretrained(folder)
    return folder


def recipe(base: Path, loss: str, *changes: str) -> Any:
    """One phase, without dropout, so that all do the same work."""
    from preflexor_training import recipes

    number = 0 if loss == "orpo" else 1
    found = recipes.load(
        "tiny", changes=[f"base={base}", f"adapter.rank={RANK}", f"phases.{number}.checkpoint_every=0", *changes]
    )
    return found, found.phases[number]


def ours(base: Path, work: Path, loss: str, data: Sequence[Any], *changes: str) -> Run:
    """Through the learner, loader and bookkeeping included."""
    from preflexor_training.torch_backend.learner import open_learner

    whole, phase = recipe(base, loss, *changes)
    learner = open_learner(whole, phase, base, work / "-".join(changes or ("ours",)))
    if "step.precompute_reference=false" not in changes:
        learner.refer(data)

    def run(steps: int) -> list[float]:
        told: list[float] = []
        taken = [(tuple(data[n * BATCH : (n + 1) * BATCH]),) for n in range(steps)]
        learner.train(taken, first=learner.step, on_step=lambda _, metrics: told.append(metrics["seconds"]))
        return told[1:]

    return run


def trl(base: Path, work: Path, loss: str, data: Sequence[Any]) -> Run:
    """TRL's trainer as it is, with its own collator; only its tokenising is spared."""
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

    columns = {
        "prompt_ids": [row.pair.prompt.tolist() for row in data],
        "chosen_ids": [row.pair.chosen.ids.tolist() for row in data],
        "rejected_ids": [row.pair.rejected.ids.tolist() for row in data],
    }
    _, phase = recipe(base, loss)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait()
            times.append(time.perf_counter())

    common = {
        "output_dir": str(work / "trl"), "per_device_train_batch_size": BATCH, "beta": phase.beta,
        "max_length": 10**6, "use_cpu": _device() == "cpu", "bf16": _device() == "cuda", "report_to": "none",
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "activation_checkpointing": False,
        "train_sampling_strategy": "sequential", "max_grad_norm": phase.max_grad_norm,
        "learning_rate": phase.learning_rate, "lr_scheduler_type": "constant",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16" if _device() == "cuda" else "float32")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=16, target_modules=list(recipe(base, loss)[0].adapter.targets)
    )
    datasets.disable_progress_bars()
    if loss == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        class Orpo(ORPOTrainer):
            def tokenize_row(self, feature: Any, model: Any = None) -> Any:
                return {"prompt_input_ids": feature["prompt_ids"]} | _orpo_row(feature)

        texts = {name: [""] * len(data) for name in ("prompt", "chosen", "rejected")}
        made: Any = Orpo
        args: Any = ORPOConfig(**common)
        table = datasets.Dataset.from_dict({**columns, **texts})
    else:
        from trl import DPOConfig, DPOTrainer

        class Dpo(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

        made = Dpo
        args = DPOConfig(**common, loss_type=[phase.loss], label_smoothing=phase.label_smoothing)
        table = datasets.Dataset.from_dict(columns)
    trainer = made(
        model=model, args=args, train_dataset=table, processing_class=tokenizer, peft_config=lora, callbacks=[Clock()]
    )
    trainer.remove_callback(PrinterCallback)

    def run(steps: int) -> list[float]:
        times.clear()
        trainer.args.max_steps = steps
        trainer.train()
        return [b - a for a, b in pairwise(times)]

    return run


def _orpo_row(feature: Any) -> dict[str, list[int]]:
    """What ORPOTrainer's own tokenising would have left."""
    found = {}
    for side in ("chosen", "rejected"):
        prompt, reply = feature["prompt_ids"], feature[f"{side}_ids"]
        found |= {
            f"{side}_input_ids": prompt + reply,
            f"{side}_attention_mask": [1] * len(prompt + reply),
            f"{side}_labels": [-100] * len(prompt) + reply,
        }
    return found


def bare(base: Path, loss: str, data: Sequence[Any]) -> Run:
    """A loop of a few lines: both replies behind their prompts, logits of every token, no trainer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from preflexor_training.needs import needs_reference, nll_scope
    from preflexor_training.torch_backend.collate import collate
    from preflexor_training.torch_backend.forward import tables
    from preflexor_training.torch_backend.objective import objective

    whole, phase = recipe(base, loss)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16" if _device() == "cuda" else "float32")
    model: Any = get_peft_model(
        loaded.to(_device()), LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules=list(whole.adapter.targets))
    )
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=phase.learning_rate, weight_decay=0.0, fused=True)

    def logps(batch: Any) -> Any:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        flat = logits.float().log_softmax(-1).view(-1, logits.shape[-1])
        return tables(flat[batch["select"]].gather(1, batch["targets"][:, None])[:, 0], batch)

    def run(steps: int) -> list[float]:
        taken = []
        for n in range(steps):
            began = time.perf_counter()
            batch = collate(data[n * BATCH : (n + 1) * BATCH], shared=False, nll_scope=nll_scope(phase))
            batch = {name: value.to(_device()) for name, value in batch.items()}
            with torch.autocast(_device(), dtype=torch.bfloat16, enabled=_device() == "cuda"):
                if needs_reference(phase):
                    with torch.no_grad(), model.disable_adapter():
                        reference = logps(batch)
                    batch |= {"chosen_reference": reference.chosen, "rejected_reference": reference.rejected}
                found = objective(phase, batch, logps(batch))
            found.loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, phase.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            _wait()
            taken.append(time.perf_counter() - began)
        return taken[1:]

    return run


def make(mode: str, base: Path, work: Path, loss: str, data: Sequence[Any]) -> Run:
    """What takes the steps of a mode."""
    match mode:
        case "TRL":
            return trl(base, work, loss, data)
        case "bare loop":
            return bare(base, loss, data)
        case "ours, TRL's step":
            return ours(base, work, loss, data, "step.engine=trl")
        case "ours, two rows":
            return ours(base, work, loss, data, "step.shared_prompt=false")
        case "ours, reference on the fly":
            return ours(base, work, loss, data, "step.precompute_reference=false")
        case _:
            return ours(base, work, loss, data)


def peak(size: str, loss: str, texts: str, mode: str) -> float:
    """MB that a mode needs beyond the loaded model, in a process of its own."""
    command = [sys.executable, __file__, "--one", mode, "--size", size, "--loss", loss, "--texts", texts]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{mode} failed: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def one(size: str, loss: str, texts: str, mode: str) -> None:
    """Take three steps of a mode and print its peak memory."""
    import torch

    with tempfile.TemporaryDirectory() as work:
        base = make_base(SIZES[size], Path(work) / "base")
        data = rows(_texts()[texts], 3 * BATCH, SIZES[size].vocabulary)
        run = make(mode, base, Path(work), loss, data)
        before = _rss_mb()
        run(3)
        if _device() == "cuda":
            print(json.dumps({"peak_mb": torch.cuda.max_memory_allocated() / 1e6}))
            return
        unit = 1 if sys.platform == "darwin" else 1024
        print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6 - before}))


def compare(size: str, loss: str, *, turns: int, steps: int, memory: bool, small: bool) -> bool:
    """Print the tables of a model size and a loss; whether the contract is kept."""
    kept = True
    for name, texts in list(_texts().items())[-1 if small else 0 :]:
        modes = MODES if loss != "orpo" else tuple(m for m in MODES if "on the fly" not in m)
        with tempfile.TemporaryDirectory() as work:
            base = make_base(SIZES[size], Path(work) / "base")
            data = rows(texts, steps * BATCH, SIZES[size].vocabulary)
            tokens = sum(len(r.pair.prompt) + len(r.chosen) + len(r.rejected) for r in data) / steps
            runs = {mode: make(mode, base, Path(work), loss, data) for mode in modes}
            taken: dict[str, list[float]] = {mode: [] for mode in modes}
            for _ in range(turns):
                for mode, run in runs.items():
                    taken[mode].append(statistics.median(run(steps)))
        print(f"\n{size}, {loss}, {name}, {BATCH} pairs a step, {_device()}")
        print(f"{'':28} {'ms/step':>8} {'tok/s':>8} {'x TRL':>6} {'peak MB':>8}")
        for mode, seconds in taken.items():
            ratio = statistics.median(a / b for a, b in zip(taken["TRL"], seconds, strict=True))
            need = f"{peak(size, loss, name, mode):8.0f}" if memory else ""
            middle = statistics.median(seconds)
            print(f"{mode:28} {middle * 1e3:8.0f} {tokens / middle:8.0f} {ratio:6.2f} {need}")
            if mode == "ours" and loss == "exo_pair" and _device() == "cpu" and size != "tiny":
                kept &= ratio >= texts.least
    return kept


def _texts() -> dict[str, Texts]:
    return LONG if _device() == "cuda" else TEXTS


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait() -> None:
    import torch

    if _device() == "cuda":
        torch.cuda.synchronize()


def _rss_mb() -> float:
    file = Path("/proc/self/statm")
    if not file.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return int(file.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default=None)
    parser.add_argument("--loss", choices=("exo_pair", "orpo"), default=None)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--memory", action="store_true", help="peak memory too, which takes a process for each")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--texts", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.one:
        one(given.size, given.loss, given.texts, given.one)
        return 0
    sizes = [given.size] if given.size else ["tiny"] if given.small else ["1b"] if _device() == "cuda" else ["mid"]
    losses = [given.loss] if given.loss else ["exo_pair"] if given.small else ["exo_pair", "orpo"]
    turns, steps = (1, 2) if given.small else (given.turns, given.steps)
    kept = [
        compare(s, x, turns=turns, steps=steps, memory=given.memory, small=given.small) for s in sizes for x in losses
    ]
    return 0 if all(kept) or given.small else 1


if __name__ == "__main__":
    sys.exit(main())
