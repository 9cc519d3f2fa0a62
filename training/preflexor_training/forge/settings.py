"""What a forge run is asked for. The published values are of PRefLexOR's notebooks (arXiv 2410.12375)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Variant = Literal["plain", "graph", "reflection", "typed", "direct"]
Contexts = Literal["random", "topic", "related", "path"]
RejectedKind = Literal["teacher_wrong", "teacher_shallow", "student", "student_thinking", "perturbed"]
Verifier = Literal["none", "exact", "numeric", "task", "rule", "judge"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Drawing(_Strict):
    """How one kind of call is sampled."""

    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    max_tok: Annotated[int, Field(ge=1)] = 2048


class ForgeSettings(_Strict):
    """Everything that decides the rows of a run, apart from the models and the store."""

    rows: Annotated[int, Field(ge=1)] = 50
    """Rows to make, those that are dropped included. Published: 50 a refresh."""
    variant: Variant = "plain"
    """`plain`: categories. `graph`: also knowledge graph and abstract pattern (Graph-PRefLexOR). `reflection`: draft,
    critique, revised answer, so that the reflection section is learnt. `typed`: the tagged blocks of the successor.
    `direct`: the teacher is asked what is trained on, and its own thinking and answer are the good side: for one that
    reasons by itself."""
    phase: Literal[1, 2] = 1
    """Phase I (ORPO) or II (EXO): decides the default of `rejected`."""
    round: Annotated[int, Field(ge=0)] = 0
    """Refresh that the rows belong to."""
    seed: int = 0
    pack: str = "general"
    """Domain pack: its name, or the path of a TOML file."""
    contexts: Contexts = "random"
    """Where a row's passages come from: a seeded permutation of all chunks, a search for each topic, a random chunk and
    its nearest, or a path through the knowledge graph."""
    topics: tuple[str, ...] = ()
    """Of `contexts = "topic"`."""
    passages: Annotated[int, Field(ge=1, le=20)] = 3
    """Passages of a row. Published: 3."""
    questions: Path | None = None
    """File of questions with, if known, their answers (gold), to be used instead of questions the teacher writes; the
    passages of a row are those that a search finds for its question."""
    check_questions: bool = False
    """Ask the teacher, too, whether a question stands alone, can be answered from its passages, and gives nothing away:
    one call more, after the rules."""
    enrich: bool = True
    """Add retrieved passages and an answer made of them to the context, before anything else; never in the variant
    `direct`, whose teacher has what the student has. Published: on."""
    answer_from: Literal["thinking", "context"] = "thinking"
    """What the preferred answer is written from; `context` is the published form, which never sees the thinking."""
    prompt: Literal["question", "grounded"] = "question"
    """What is trained on and what the student is asked: the question alone (published: the knowledge goes into the
    weights), or the prompt that the agents use, with the passages (`prompts.draft`), so that training and use agree."""
    trigger: str = " Use <|thinking|>."
    """What is added to a question when thinking is wanted; published. Empty for a model that always thinks."""
    rejected: RejectedKind | None = None
    """Default: `student` in Phase I, `student_thinking` in Phase II."""
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Student samples of a row, of which those worse than the chosen answer are kept. Published: 1, unfiltered."""
    verifier: Verifier = "none"
    """What scores samples and the chosen answer. `none` keeps the first sample. `task` tells right from wrong as
    `preflexor eval` does, by the kind of a given question."""
    rule: str = ""
    """Of `verifier = "rule"`: a regular expression that a right answer contains."""
    margin: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """By how much the chosen answer must score above the rejected one; scores are from 0 to 1."""
    question_drawing: Drawing = Drawing(temperature=0.7)
    """Published: 0.7."""
    teacher_drawing: Drawing = Drawing(temperature=0.2)
    """Published: 0.2."""
    student_drawing: Drawing = Drawing(temperature=1.0, top_k=50, top_p=0.9, max_tok=512)
    """Published for Phase I."""
    student_thinking_drawing: Drawing = Drawing(temperature=1.0, top_k=50, top_p=0.9, max_tok=1500)
    """Published for Phase II."""
    judge_drawing: Drawing = Drawing(temperature=0.0, max_tok=512)
    max_length_tok: Annotated[int, Field(ge=16)] = 2048
    """The trainer's limit of prompt and reply together; longer rows are counted, not cut."""

    def rejected_kind(self) -> RejectedKind:
        """What the rejected side is made of."""
        return self.rejected or ("student" if self.phase == 1 else "student_thinking")

    def enriches(self) -> bool:
        """Whether the passages of a row are added to once its question is there."""
        return self.enrich and self.variant != "direct"
