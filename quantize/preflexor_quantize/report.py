"""What was made and how it was measured: JSON for programs, Markdown and a plot for people."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from preflexor_quantize.agreement import Agreement
from preflexor_quantize.files import gigabytes, replacing
from preflexor_quantize.plot import plot
from preflexor_quantize.scoring import Fidelity
from preflexor_quantize.thinking import Thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One file of a type, measured."""

    type_name: str
    file: str
    """Name in the report's folder; empty if the file was not kept."""
    size_bytes: int
    seconds: float
    """Of llama.cpp's work, without the measuring."""
    tensors: dict[str, int]
    """Type -> how many tensors."""
    fallbacks: dict[str, str]
    """Tensor -> its type, and why it is not the one asked for."""
    fidelity: Fidelity
    thinking: Thinking | None
    verdict: str = "ok"
    """`ok`, or why the file was not kept."""


@dataclass(slots=True, kw_only=True)
class Report:
    """A run of `preflexor quantize`."""

    model: str
    source: str
    adapter: str | None = None
    preflexor: str = ""
    llama_cpp_python: str = ""
    measured_on: str = ""
    importance: str | None = None
    """What the importance matrix was collected on."""
    agreement: Agreement | None = None
    """The F16 file against the folder; None where a GGUF file was given."""
    adapter_logit_difference: float | None = None
    """Largest, of the F16 base with the GGUF adapter against the merged model, over the spread of its logits."""
    thinking_before: Thinking | None = None
    files: list[Made] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Type -> why there is no such file."""

    def write(self, folder: Path, name: str) -> Path:
        """Put NAME-report.json, .md and .svg into a folder; returns the Markdown file's path."""
        stem = folder / f"{name}-report"
        texts = {
            ".json": json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n",
            ".svg": plot([(m.type_name, m.size_bytes, m.fidelity.mean_kl) for m in self.files]),
            ".md": self.markdown(stem.name + ".svg"),
        }
        for suffix, text in texts.items():
            with replacing(stem.with_name(stem.name + suffix)) as fresh:
                fresh.write_text(text, encoding="utf-8")
        return stem.with_name(stem.name + ".md")

    def markdown(self, plot_name: str) -> str:
        """The report for people."""
        lines = [f"# {self.model}: what was made, and how far it is from the original", ""]
        lines += [f"Made from `{self.source}`" + (f" with the adapter `{self.adapter}`" if self.adapter else "")]
        lines += [f"by preflexor {self.preflexor} with llama-cpp-python {self.llama_cpp_python}.", ""]
        lines += self._proof()
        lines += ["## Types", "", *self.table(), "", f"![divergence over size]({plot_name})", ""]
        lines += [f"KL, top-1 and perplexity are against F16 on {self.measured_on}, in nats; top-1 is the share of"]
        lines += ["positions with the same likeliest token. Perplexity alone says little: it can fall by chance."]
        lines += [f"Importance matrix: {self.importance or 'none'}.", ""]
        for made in self.files:
            kinds = ", ".join(f"{count} {kind}" for kind, count in made.tensors.items())
            lines += [f"- {made.type_name}: {kinds}" + (f"; {made.verdict}" if made.verdict != "ok" else "")]
            lines += [f"  - {count} of them {why}" for why, count in Counter(made.fallbacks.values()).items()]
        lines += [f"- {name}: **not made**: {why}" for name, why in self.failed.items()]
        return "\n".join(lines) + "\n"

    def table(self) -> list[str]:
        """The measured types, as a Markdown table."""
        rows = [
            "| type | size | mean KL | p99 KL | top-1 | perplexity | F16 | thinking | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for m in self.files:
            f = m.fidelity
            numbers = f"{f.mean_kl:.2e} | {f.p99_kl:.2e} | {f.top1:.1%} | {f.perplexity:.2f} | {f.base_perplexity:.2f}"
            kept = "" if m.verdict == "ok" else "not kept"
            rows.append(
                f"| {m.type_name} | {gigabytes(m.size_bytes)} | {numbers} | "
                f"{_thinking(m.thinking)} (before {_thinking(self.thinking_before)}) | {kept} |"
            )
        return rows

    def _proof(self) -> list[str]:
        lines = ["## F16 against the original", ""]
        if self.agreement is None:
            return [*lines, "A GGUF file was given, so there was no folder to compare with.", ""]
        a = self.agreement
        prompts = f"{a.chat_prompts} chat prompts" if a.chat_prompts else "no chat template"
        lines += [
            f"- vocabulary: {a.vocabulary} tokens, all the same",
            f"- tags that are one visible token: {', '.join(f'`{t}`' for t in a.tags) or 'none'}",
            f"- {a.windows} pieces of text and {prompts}: the same token ids",
            f"- greedy: {a.greedy_equal_tok} of {a.greedy_tok} tokens over {a.greedy_prompts} prompts are the "
            f"original's likeliest ({a.reference}), {a.ties} ties",
        ]
        if self.adapter_logit_difference is not None:
            lines += [f"- GGUF adapter: logits within {self.adapter_logit_difference:.1e} of the merged model's spread"]
        return [*lines, ""]


def _thinking(found: Thinking | None) -> str:
    return "-" if found is None else f"{found.well_formed}/{found.asked}"
