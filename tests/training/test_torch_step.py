"""One forward of a micro-batch: the shared prompt, the head where the loss is, and the reference's cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from preflexor_training.reference import References
from preflexor_training.tokenized import Masked, Reference, TokenizedPair, TokenizedReply
from preflexor_training.torch_backend import forward
from preflexor_training.torch_backend.collate import NllScope, collate
from preflexor_training.torch_backend.forward import abilities, attention, score

pytestmark = pytest.mark.train
SMALL: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}


def llama(**values: Any) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **values})).eval()


def row(number: int, prompt: int, chosen: int, rejected: int, *, share: float = 1.0) -> Masked:
    rng = np.random.default_rng(number)
    drawn = [rng.integers(0, 97, size).astype(np.int32) for size in (prompt, chosen, rejected)]
    pair = TokenizedPair(
        id=f"r{number}",
        round=0,
        prompt=drawn[0],
        chosen=TokenizedReply(ids=drawn[1]),
        rejected=TokenizedReply(ids=drawn[2]),
    )
    masks = [rng.random(size) < share for size in (chosen, rejected)]
    return Masked(pair=pair, chosen=masks[0], rejected=masks[1])


ROWS = (row(1, 7, 9, 4), row(2, 3, 2, 11, share=0.5), row(3, 12, 1, 1), row(4, 1, 6, 6, share=0.7))


def tables(model: Any, rows: Sequence[Masked], *, shared: bool, scope: NllScope = "none", scored: bool = True) -> Any:
    batch = collate(rows, shared=shared, nll_scope=scope)
    return score(model, model.get_output_embeddings(), batch, scored_head=scored)


def by_hand(model: Any, prompt: np.ndarray, reply: np.ndarray) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([prompt, reply]).astype(np.int64))[None]
    logps = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
    found = logps[:-1].gather(1, ids[0, 1:, None])[:, 0]
    return np.asarray(found[len(prompt) - 1 :])


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_log_probs_are_those_of_each_reply_alone(shared: bool, scored: bool) -> None:
    model = llama()
    with torch.no_grad():
        found = tables(model, ROWS, shared=shared, scored=scored)
        for n, of in enumerate(ROWS):
            for values, reply, mask in (
                (found.chosen, of.pair.chosen.ids, of.chosen),
                (found.rejected, of.pair.rejected.ids, of.rejected),
            ):
                wanted = np.where(mask, by_hand(model, of.pair.prompt, reply), 0.0)
                np.testing.assert_allclose(values[n, : len(reply)], wanted, atol=1e-5)
                assert (values[n, len(reply) :] == 0).all()


@pytest.mark.parametrize("shared", [True, False])
def test_the_likelihood_over_all_covers_the_prompt_but_its_first_token(shared: bool) -> None:
    model = llama()
    with torch.no_grad():
        found = tables(model, ROWS, shared=shared, scope="all")
        for n, of in enumerate(ROWS):
            prompt, chosen = of.pair.prompt, of.pair.chosen.ids
            np.testing.assert_allclose(
                found.prompt[n, 1 : len(prompt)], by_hand(model, prompt[:1], prompt[1:]), atol=1e-5
            )
            np.testing.assert_allclose(found.chosen[n, : len(chosen)], by_hand(model, prompt, chosen), atol=1e-5)


def test_gradients_of_a_shared_prompt_are_those_of_two_rows() -> None:
    model = llama()
    gradients = []
    for shared in (True, False):
        model.zero_grad()
        found = tables(model, ROWS, shared=shared)
        (found.chosen.sum() - 0.5 * found.rejected.square().sum()).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_the_head_sees_only_what_the_loss_sees() -> None:
    model, seen = llama(), []
    head = model.get_output_embeddings()
    plain = head.forward
    head.forward = lambda hidden: seen.append(hidden.shape) or plain(hidden)
    tables(model, ROWS, shared=True)
    assert [tuple(shape) for shape in seen] == [(sum(int(r.chosen.sum() + r.rejected.sum()) for r in ROWS), 32)]
    assert head(torch.zeros(1, 32)).shape == (1, 97)


def test_logits_made_in_pieces_give_the_same_numbers_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    found = []
    for most in (2**27, 97 * 5):
        monkeypatch.setattr(forward, "CHUNK_VALUES", most)
        model.zero_grad()
        values = tables(model, ROWS, shared=True)
        values.chosen.sum().backward()
        found.append((values.rejected.detach(), model.lm_head.weight.grad.clone()))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)


def test_a_token_sees_its_prompt_and_its_own_reply_up_to_itself() -> None:
    part = torch.tensor([[0, 0, 1, 1, 2, 2, -1]])
    seen = attention(part)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]


def test_what_a_model_can_is_found_out_by_trying() -> None:
    model = llama()
    assert abilities(model, model.lm_head) == forward.Abilities(True, True, 2**31)
    model.set_attn_implementation("eager")  # adds the mask to the scores instead of reading it as yes and no
    assert not abilities(model, model.lm_head).shared_prompt


def test_a_model_that_bends_its_logits_is_scored_after_it_has() -> None:
    class Bent(LlamaForCausalLM):
        def forward(self, *args: Any, **values: Any) -> Any:
            found = super().forward(*args, **values)
            found.logits = torch.tanh(found.logits) * 3
            return found

    torch.manual_seed(1)
    model = Bent(LlamaConfig(**SMALL, initializer_range=0.5)).eval()
    able = abilities(model, model.lm_head)
    assert able.shared_prompt
    assert not able.scored_head
    with torch.no_grad():
        found = tables(model, ROWS[:1], shared=True, scored=False)
        np.testing.assert_allclose(
            found.chosen[0], by_hand(model, ROWS[0].pair.prompt, ROWS[0].pair.chosen.ids), atol=1e-5
        )


def test_a_window_of_attention_limits_the_shared_prompt() -> None:
    torch.manual_seed(1)
    config = MistralConfig(**{**SMALL, "sliding_window": 16})
    model = MistralForCausalLM(config).eval()
    assert abilities(model, model.lm_head).window_tok == 16


def test_positions_by_index_share_a_prompt_too() -> None:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    assert abilities(model, model.lm_head) == forward.Abilities(True, True, 2**31)


class Asked:
    """Computes numbers that tell with how many others a row was computed."""

    def __init__(self, *, fails_after: int = 10**6) -> None:
        self.groups: list[list[str]] = []
        self._most = fails_after

    def __call__(self, rows: Sequence[Masked]) -> list[Reference]:
        if len(self.groups) == self._most:
            raise KeyboardInterrupt
        self.groups.append([of.pair.id for of in rows])
        return [Reference(self._numbers(of.chosen, rows), self._numbers(of.rejected, rows)) for of in rows]

    @staticmethod
    def _numbers(mask: Any, rows: Sequence[Masked]) -> Any:
        return -np.arange(int(mask.sum()), dtype=np.float32) - len(rows)


def references(folder: Path, *, weights: str = "w", batch_tok: int = 40) -> References:
    return References(folder, weights=weights, batch_tok=batch_tok)


def test_a_reference_is_asked_once_for_what_ids_mask_and_weights_are(tmp_path: Path) -> None:
    first, again = Asked(), Asked()
    references(tmp_path).add(ROWS, first)
    assert sorted(name for group in first.groups for name in group) == ["r1", "r2", "r3", "r4"]
    known = references(tmp_path)
    known.add([*ROWS, *ROWS], again)
    assert again.groups == []
    masked_otherwise = Masked(pair=ROWS[1].pair, chosen=ROWS[1].chosen, rejected=~ROWS[1].rejected)
    assert masked_otherwise not in known
    assert ROWS[1] not in references(tmp_path, weights="other")


def test_an_interrupted_reference_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole, resumed = references(tmp_path / "a"), references(tmp_path / "b")
    whole.add(ROWS, Asked())
    with pytest.raises(KeyboardInterrupt):
        references(tmp_path / "b").add(ROWS, Asked(fails_after=1))
    resumed.add(ROWS, Asked())
    for of in ROWS:
        np.testing.assert_array_equal(resumed[of].chosen, whole[of].chosen)
        np.testing.assert_array_equal(resumed[of].rejected, whole[of].rejected)


def test_a_number_once_used_never_changes(tmp_path: Path) -> None:
    known = references(tmp_path, batch_tok=400)
    known.add(ROWS[:2], Asked())
    before = known[ROWS[0]].chosen.copy()
    known.add(ROWS, Asked())
    np.testing.assert_array_equal(known[ROWS[0]].chosen, before)
    np.testing.assert_array_equal(references(tmp_path)[ROWS[0]].chosen, before)


def test_a_damaged_file_of_references_is_computed_again(tmp_path: Path) -> None:
    references(tmp_path, batch_tok=400).add(ROWS, Asked())
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-7])
    again = references(tmp_path)
    assert ROWS[0] not in again
    again.add(ROWS, Asked())
    assert ROWS[0] in again
