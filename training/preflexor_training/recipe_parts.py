"""The tables of a training recipe. Each field says what it does and where its default comes from.

"Published" is the training code of PRefLexOR (arXiv 2410.12375); "measured" is a figure in docs/training_core.md or its
neighbours; "chosen" is ours.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Loss = Literal[
    "orpo",
    "exo_pair",
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "simpo",
    "aot",
    "aot_unpaired",
    "discopop",
]
TRL_ONLY: tuple[Loss, ...] = ("aot", "aot_unpaired", "discopop")
"""Losses that only TRL's own trainers have."""
REFERENCE_FREE: tuple[Loss, ...] = ("orpo", "simpo")
"""Losses that look at the policy alone."""
SMOOTHED: tuple[Loss, ...] = ("exo_pair", "robust", "aot", "aot_unpaired")
"""Losses that read `label_smoothing`."""

Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(strict=True, ge=0, le=10**9)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]


class Strict(BaseModel):
    """A table that takes no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Tags(Strict):
    """How the model marks its thinking and its reflection."""

    mode: Literal["tokens", "text"] = "tokens"
    """`tokens`: each tag is one token, added to the vocabulary where it is missing (published). `text`: plain words of
    the vocabulary as it is, so that no row of the embeddings is new (the published successor)."""
    thinking: Literal["<|thinking|>", "<think>"] = "<|thinking|>"
    """Opening tag of the thinking. Published: `<|thinking|>`; `<think>` is what most open models know already."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mode == "text" and self.thinking != "<think>":
            raise ValueError(
                f'mode is "text" with thinking = "{self.thinking}", which the agents look for as a token; set'
                ' thinking = "<think>"'
            )
        return self


class Mask(Strict):
    """Which tokens of a reply are left out of the loss. The model attends to all of them in any case."""

    kind: Literal["none", "answer_only", "fraction", "pauses"] = "none"
    """`none`: nothing is left out (published, Phase I). `answer_only`: all before the last closing tag (published,
    Phase II). `fraction`: part of each thinking section. `pauses`: pads between the tokens of the chosen reply."""
    keep_tag: Flag = True
    """Whether the tags themselves stay in the loss: the closing tag of `answer_only`, both of `fraction`. Published:
    yes."""
    fraction: Share = 1.0
    """Of `fraction`: the part of a section that is left out, rounded down to whole tokens. Published: all of it."""
    redraw: Flag = False
    """Of `fraction`: draw other tokens in every pass, instead of once for each row. Published: drawn once."""
    reflection: Flag = False
    """Leave out the reflection too, as the thinking is. Published: it stays in the loss."""
    pads: Annotated[int, Field(strict=True, ge=1, le=16)] = 2
    """Of `pauses`: pads between the tags that follow every token. Published: 2, so that a reply grows fivefold."""


class Data(Strict):
    """Where the rows come from, which of them are used, and what is in the loss."""

    pairs: str = ""
    """File of preference rows to train on; empty if rows are made on the fly as `[forge]` says. Chosen: empty."""
    teacher: str = ""
    """Model that writes questions, thinking and good answers, as `ollama:llama3.1`; empty with `pairs`. Published:
    Llama-3.1-8B-Instruct."""
    judge: str = ""
    """Model that scores samples where `[forge]` wants a judge; empty is the teacher. Chosen: the teacher."""
    store: str = ""
    """Knowledge store that the contexts come from; empty is the bundled library. Chosen: the library."""
    max_length_tok: Annotated[int, Field(strict=True, ge=16, le=10**6)] = 2048
    """Tokens of prompt and reply together; a longer row is dropped and counted, never cut. Published: 1024 in Phase I,
    2000 in Phase II, cut to 512 tokens of answer without a word."""
    damaged_share: Share = 0.1
    """Training is refused when more of the rows than this had to be dropped. Chosen: a tenth."""
    held_out_share: Annotated[float, Field(strict=True, ge=0, le=0.9, allow_inf_nan=False)] = 0.1
    """Part of the rows, picked by a hash of their id, that is never trained on. Chosen: a tenth; published: none."""
    mask: Mask = Mask()
    """Mask of the phases that name none of their own."""


class Adapter(Strict):
    """What of the model is trained."""

    kind: Literal["lora", "full"] = "lora"
    """`lora`: low-rank updates of the targets. `full`: every weight. Published: LoRA."""
    rank: Annotated[int, Field(strict=True, ge=1, le=4096)] = 64
    """Rank of the updates. Published: 64."""
    alpha: Positive = 64.0
    """Scale: an update counts alpha / rank times. Published: 64."""
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = 0.1
    """Dropout before the updates. Published: 0.1."""
    targets: Annotated[tuple[Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")], ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that get updates, by the end of their names; `all-linear` is each but the output head. Published:
    these seven (in Phase I also embeddings and head, in whose place `token_rows` stands)."""
    token_rows: Flag = True
    """Train the embedding rows of tags that were added, at input and output, beside the updates. Chosen: yes; rows
    that never change can not come to mean anything."""
    bits: Literal[4, 8, 16] = 16
    """Precision that the frozen base is held in; 16 is as `precision` says. Published: 16."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "full" and self.bits < 16:
            raise ValueError(f'bits is {self.bits} with kind = "full"; a quantised base takes kind = "lora"')
        if ends := [t for t in self.targets if t.split(".")[-1] in ("lm_head", "embed_tokens", "wte", "embed_out")]:
            raise ValueError(
                f"targets holds {ends[0]!r}; tied embeddings would not survive the merge: take it out and set"
                " token_rows = true"
            )
        if "all-linear" in self.targets and len(self.targets) > 1:
            raise ValueError("targets holds 'all-linear' and others; name either it or the layers")
        return self


class EarlyStop(Strict):
    """When a phase ends before its last round."""

    patience: CountOrNone = 0
    """Rounds in a row whose held-out margin may stay below the best before the phase ends; 0 never ends it. Published:
    never."""
    min_gain: NotNegative = 0.0
    """Nats that a mean held-out margin must rise by to count as better. Chosen: any rise."""


class Phase(Strict):
    """One stage of training, which starts from the merged model of the one before."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    """Name of the phase's folder in the run. Chosen: `integrate` and `reason`."""
    loss: Loss
    """Preference loss, by TRL's name. Published: `orpo` in Phase I, `exo_pair` in Phase II."""
    beta: Positive = 0.1
    """Weight of ORPO's odds term; in other losses the scale of the log-ratios. Published: 0.1, and 0.5 in Phase II."""
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=0.5, allow_inf_nan=False)] = 0.0
    """Chance that a preference is the wrong way round, read by `exo_pair`, `robust`, `aot` and `aot_unpaired`.
    Published: 0.005 for `exo_pair`, which needs more than 0."""
    gamma: NotNegative = 0.5
    """Margin of `simpo` that the rewards are to differ by. Default: TRL's."""
    nll_scope: Literal["all", "completion", "unmasked"] = "all"
    """Tokens of ORPO's likelihood term: prompt and chosen reply (TRL's form, published), the reply, or what the mask
    leaves of it."""
    mask: Mask | None = None
    """Mask of this phase; without one, that of `[data]`."""
    learning_rate: Positive
    """Peak of AdamW's rate. Published: 5e-5 in Phase I, 1e-6 in Phase II (notebook; README 5e-7)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate goes on after the warm-up: to 0 over all rounds of the phase, or not. Published: constant."""
    warmup_steps: CountOrNone = 0
    """Steps in which the rate rises from 0. Published: 0."""
    batch_pairs: Count = 1
    """Pairs of one forward. Published: 1."""
    accumulation: Count = 2
    """Forwards of one optimizer step. Published: 2."""
    max_grad_norm: NotNegative = 1.0
    """Gradients are scaled down to this norm; 0 leaves them. Published: 1.0 in Phase I, 0.3 in Phase II."""
    rounds: Count = 50
    """Refreshes of the data. Published: 50."""
    rows_per_round: CountOrNone = 50
    """Rows of a refresh; 0 takes all that there are. Published: 50."""
    passes: Count = 6
    """True passes over a round's rows. Published: 6 in Phase I and 2 in Phase II, said to be 3 and 1: the steps were
    counted without the accumulation."""
    replay_share: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Part of a round's rows that is drawn from earlier rounds, beside the fresh ones. Published: old rows are kept and
    never used."""
    early_stop: EarlyStop = EarlyStop()
    """When the phase ends early."""
    checkpoint_every: CountOrNone = 50
    """Optimizer steps between two checkpoints; 0 writes one at the end of a round only. Chosen: 50."""
    samples: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4000)], ...], Field(max_length=50)] = ()
    """Questions that the model answers after every round, for the eye. Chosen: none."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What weights and activations are held in; `auto` is bfloat16 on a GPU and float32 on a CPU. Published:
    bfloat16."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.loss == "exo_pair" and self.label_smoothing == 0:
            raise ValueError("label_smoothing is 0 with exo_pair; set it to more than 0, published: 0.005")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing} with {self.loss}, which does not read it; set it to 0"
            )
        if self.nll_scope != "all" and self.loss != "orpo":
            raise ValueError(
                f'nll_scope is {self.nll_scope!r} with {self.loss}, which does not read it; set it to "all"'
            )
        return self


class StepSettings(Strict):
    """How an optimizer step is computed. None of it changes what is learnt, but for the order of rounding."""

    engine: Literal["ours", "trl"] = "ours"
    """`ours`: the steps below. `trl`: TRL's own trainers with our rows and masks, for comparison and for its other
    losses. Chosen: ours, which is measured faster."""
    shared_prompt: Flag = True
    """Run a pair's prompt once for both replies. Measured: 1.3 to 2.4 times faster on a CPU."""
    bucket_batches: Count = 8
    """Micro-batches among which rows are sorted by length; 1 leaves them in drawn order. Chosen: 8."""
    precompute_reference: Flag = True
    """Make the reference's log-probs once when rows are written, instead of in each pass. Measured: 1.8 to 3.1 times
    faster where a row is used more than once."""
    gradient_checkpointing: Flag = False
    """Compute activations again instead of keeping them: less memory, more time. Published: on in Phase I."""
