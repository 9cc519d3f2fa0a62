"""What a step is said to take is what it takes, and what fits a Mac is found without one."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")

from mlx.nn.utils import value_and_grad  # noqa: E402
from mlx.optimizers import AdamW  # noqa: E402
from mlx_lm.models import llama  # noqa: E402
from mlx_lm.utils import get_total_parameters  # noqa: E402

from preflexor_agents.errors import ConfigError  # noqa: E402
from preflexor_training.mlx_backend import memory, model  # noqa: E402
from preflexor_training.mlx_backend.checkpointing import checkpoint_layers  # noqa: E402
from preflexor_training.mlx_backend.collate import collate  # noqa: E402
from preflexor_training.mlx_backend.forward import score  # noqa: E402
from preflexor_training.mlx_backend.learner import open_learner  # noqa: E402
from preflexor_training.mlx_backend.memory import GB, PREFERRED, Plan, Size, defaults, needed_bytes, size_of  # noqa: E402
from preflexor_training.recipe_parts import Adapter  # noqa: E402
from preflexor_training.tokenized import Masked, TokenizedPair, TokenizedReply  # noqa: E402
from tests.training.mlx_teaching import small_base, small_recipe  # noqa: E402

THREE_BILLION = Size(3_213_000_000, 3072, 8192, 28, 128_256)
CONFIG: dict[str, Any] = {"model_type": "llama", "vocab_size": 2000, "hidden_size": 128, "intermediate_size": 352}
CONFIG |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}


def measured(plan: Plan, *, full: bool) -> tuple[int, Size]:
    """Peak of the second step, bytes."""
    made = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    mx.eval(made.parameters())
    size = size_of(CONFIG, parameters=get_total_parameters(made))
    kind = Adapter(kind="full" if full else "lora", rank=plan.rank, alpha=8.0, dropout=0.0)
    model.attach(made, kind, new=(), seed=0)
    if plan.gradient_checkpointing:
        checkpoint_layers(made)
    made.train()
    length, rng = plan.max_length_tok, np.random.default_rng(0)
    ids = [rng.integers(0, 2000, n).astype(np.int32) for n in (length // 4, 3 * length // 8, 3 * length // 8)]
    replies = {"chosen": TokenizedReply(ids=ids[1]), "rejected": TokenizedReply(ids=ids[2])}
    whole = np.ones(len(ids[1]), dtype=np.bool_)
    pair = TokenizedPair(id="r", round=0, prompt=ids[0], **replies)
    batch = collate([Masked(pair=pair, chosen=whole, rejected=whole)] * plan.batch_pairs, shared=True)

    def loss() -> Any:
        found = score(made, batch, scored_head=True)
        return found.chosen.sum() - found.rejected.sum()

    step, optimizer = value_and_grad(made, loss), AdamW(1e-3, bias_correction=True)
    for _ in range(2):
        mx.clear_cache()
        mx.reset_peak_memory()
        _, gradients = step()
        mx.eval(gradients)
        optimizer.update(made, gradients)
        mx.eval(made.trainable_parameters(), optimizer.state)
    return int(mx.get_peak_memory()), size


@pytest.mark.parametrize(
    ("plan", "full"),
    [
        (Plan(16, 8, 1, 1, 512, False), False),
        (Plan(16, 64, 2, 1, 512, True), False),
        (Plan(16, 8, 1, 1, 256, False), True),
    ],
)
def test_the_estimate_is_above_what_mlx_measures_and_not_far_above(plan: Plan, full: bool) -> None:
    before = int(mx.get_active_memory())
    peak, size = measured(plan, full=full)
    needed = needed_bytes(size, plan, number_bytes=4, full=full)
    assert peak - before < needed < 2 * peak


def test_more_memory_never_means_more_frugal_settings() -> None:
    rank = {plan: n for n, plan in enumerate(PREFERRED)}
    found = [rank[defaults(THREE_BILLION, gb * GB)] for gb in (8, 16, 24, 32, 64, 128)]
    assert found == sorted(found, reverse=True)
    needs = [needed_bytes(THREE_BILLION, plan) for plan in PREFERRED]
    assert needs == sorted(needs, reverse=True)


def test_settings_fit_with_room_for_others() -> None:
    for gb, billions in product((8, 16, 32, 64), (0.5, 1, 3)):
        size = THREE_BILLION._replace(parameters=int(billions * 1e9))
        assert needed_bytes(size, defaults(size, gb * GB)) < 0.61 * gb * GB


def test_a_model_that_cannot_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"a model of 70.0B parameters takes \d+ GB in its most frugal form"):
        defaults(Size(70_000_000_000, 8192, 28672, 80, 128_256), 16 * GB)


def test_a_recipe_that_cannot_fit_this_machine_is_refused_before_it_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = small_base(tmp_path / "base")
    recipe = small_recipe(base, "data.max_length_tok=100000", "adapter.kind=full")
    monkeypatch.setattr(memory, "machine_bytes", lambda: GB // 2)
    with pytest.raises(
        ConfigError, match=r'a step takes about \d+ GB.*set adapter.kind = "lora", adapter.bits'
    ) as error:
        open_learner(recipe, recipe.phases[0], base, tmp_path / "learner")
    assert "\n" not in str(error.value)


def test_the_size_of_a_model_that_sees_is_that_of_its_text_part() -> None:
    told = {"text_config": {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 5}}
    assert size_of(told, parameters=9) == Size(9, 8, 32, 2, 5)
