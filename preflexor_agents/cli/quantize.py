"""`preflexor quantize`: a trained folder to GGUF files that are proven to behave like it."""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.errors import ConfigError, InputError

if TYPE_CHECKING:
    from preflexor_quantize.job import Budget, Job
    from preflexor_quantize.plan import Plan
    from preflexor_quantize.report import Report

EXAMPLE = """
\b
Example:
  preflexor quantize runs/phase2/model --type Q4_K_M --type Q8_0
  preflexor quantize base/ --adapter runs/lora --auto --max-kl 0.02 --max-memory 4GB
  preflexor quantize model-F16.gguf small.gguf --type IQ4_XS --calibrate
"""
_NEEDED = ("torch", "transformers", "peft", "safetensors", "sentencepiece")
"""For a folder; to make types of a GGUF file llama.cpp is enough."""
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@click.command(short_help="Make GGUF files of a trained model, and prove them equal.", epilog=EXAMPLE)
@click.argument("source", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("out", type=click.Path(path_type=Path), required=False, metavar="[OUT]")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Type to make, by llama.cpp's name: F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q3_K_M, IQ4_XS, … May be repeated. "
    "Default: Q4_K_M.",
)
@click.option("--auto", is_flag=True, help="Make the smallest type that is within --max-kl and --max-memory.")
@click.option("--max-kl", type=float, metavar="NATS", help="Mean KL to F16 that a file may have. With --auto: 0.05.")
@click.option(
    "--max-memory", metavar="SIZE", help="With --auto: memory for the file and 4096 tokens of context, as 4GB."
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="LoRA adapter, of PEFT or of MLX, to work into MODEL.",
)
@click.option("--no-merge", is_flag=True, help="Write the adapter as a GGUF adapter to be loaded beside its base.")
@click.option("--calibrate", is_flag=True, help="Use an importance matrix, collected on the bundled notes.")
@click.option(
    "--imatrix-text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Collect it on this text instead; best is text of the kind that the model is to read.",
)
@click.option(
    "--converter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A llama.cpp checkout whose converter to use. Default: the one of the installed llama-cpp-python.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what would become of each tensor, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else on standard output.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    source: Path,
    out: Path | None,
    types: tuple[str, ...],
    auto: bool,
    max_kl: float | None,
    max_memory: str | None,
    adapter: Path | None,
    no_merge: bool,
    calibrate: bool,
    imatrix_text: Path | None,
    converter: Path | None,
    only_plan: bool,
    as_json: bool,
) -> None:
    """Make GGUF files of MODEL: a folder from Transformers, TRL or MLX, or a GGUF file of 16 or 32 bits.

    OUT is a folder, or a name that ends with .gguf; without it the files go where `preflexor models` looks. Every file
    is compared with what it was made from before it gets its name: tokens, tags, prompts and continuations with the
    folder, then divergence, perplexity and thinking with F16. The report lies beside the files. Ends with exit code 1
    if a type could not be made or was not good enough.
    """
    from preflexor_agents.backends.installed import models_folder
    from preflexor_quantize import job as work
    from preflexor_quantize.ftypes import file_type

    _check_exists(source, adapter)
    _check_installed(source)
    job = work.Job(
        source=source,
        out=out or models_folder(),
        types=tuple(dict.fromkeys(file_type(name) for name in types or (() if auto else ("Q4_K_M",)))),
        auto=auto,
        budget=_budget(max_kl, max_memory, auto=auto),
        adapter=adapter,
        merge=not no_merge,
        calibrate=calibrate,
        calibration_file=imatrix_text,
        converter=converter,
    )
    quiet = as_json and not only_plan
    if only_plan:
        work.outline(job, announce=lambda plan: _show_plan(plan, whole=True))
        return
    try:
        report = _run(job, quiet=quiet)
    except KeyboardInterrupt:
        click.echo("stopped: finished files are kept, the one at hand is removed", err=True)
        ctx.exit(1)
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    else:
        _show(report, job)
    bad = [*report.failed.values()]
    if not auto:
        bad += [f"{m.type_name}: {m.verdict}" for m in report.files if m.verdict != "ok"]
    for line in bad if not auto or not any(m.verdict == "ok" for m in report.files) else ():
        click.echo(f"preflexor: {' '.join(line.split())}", err=True)
    ctx.exit(1 if bad and not auto else 0)


def _run(job: "Job", *, quiet: bool) -> "Report":
    from preflexor_agents.cli.bytes_bar import bytes_bar
    from preflexor_quantize import job as work
    from preflexor_quantize.files import Written

    with bytes_bar() as show:

        def watch(now: Written) -> None:
            show(now.what, now.done_bytes, now.total_bytes)

        return work.run(job, announce=lambda plan: None if quiet else _show_plan(plan, whole=False), watch=watch)


def _show_plan(plan: "Plan", *, whole: bool) -> None:
    from preflexor_agents.cli.show import inert
    from preflexor_quantize.files import gigabytes

    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.counts.items())
    click.echo(f"{plan.type_name}: {gigabytes(plan.size_bytes)}, {kinds}", err=not whole)
    for reason, count in plan.reasons.items():
        click.echo(f"  {count} fall back to {reason}", err=not whole)
    for tensor in plan.tensors if whole else ():
        shape = " x ".join(map(str, tensor.shape))
        note = f"  ({tensor.note})" if tensor.note else ""
        click.echo(f"  {inert(tensor.name):<32} {shape:>16}  {tensor.before} -> {tensor.after}{note}")


def _show(report: "Report", job: "Job") -> None:
    from rich.console import Console
    from rich.table import Table

    from preflexor_quantize.files import gigabytes
    from preflexor_quantize.job import folder_of

    if report.agreement is not None:
        a = report.agreement
        click.echo(
            f"F16 is equal to the folder: {a.vocabulary} tokens, {len(a.tags)} tags, {a.windows} texts, "
            f"{a.chat_prompts} prompts, {a.greedy_equal_tok} of {a.greedy_tok} greedy tokens ({a.ties} ties)"
        )
    if report.adapter_logit_difference is not None:
        click.echo(
            f"the adapter beside it computes the merged model, logits within {report.adapter_logit_difference:.1e}"
        )
    table = Table("type", "size", "mean KL", "p99 KL", "top-1", "perplexity", "thinking", "file")
    before = report.thinking_before
    for m in report.files:
        f = m.fidelity
        thinking = (
            f"{m.thinking.well_formed} of {m.thinking.asked} ({before.well_formed})" if m.thinking and before else "-"
        )
        numbers = (
            f"{f.mean_kl:.2e}",
            f"{f.p99_kl:.2e}",
            f"{f.top1:.1%}",
            f"{f.perplexity:.2f} ({f.base_perplexity:.2f})",
        )
        table.add_row(m.type_name, gigabytes(m.size_bytes), *numbers, thinking, m.file or "not kept")
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
    click.echo("in brackets: F16")
    click.echo(f"files and report: {folder_of(job)}")


def _budget(max_kl: float | None, max_memory: str | None, *, auto: bool) -> "Budget | None":
    from preflexor_quantize.job import MAX_KL, Budget

    if max_kl is not None and not max_kl > 0:
        raise ConfigError(f"--max-kl {max_kl:g} is not above 0; Q4_K_M of a large model has about 0.03")
    if max_memory is not None and not auto:
        raise ConfigError("--max-memory chooses a type, so it goes with --auto")
    if max_kl is None and not auto:
        return None
    memory = None if max_memory is None else _size(max_memory)
    return Budget(max_kl=MAX_KL if max_kl is None else max_kl, max_memory_bytes=memory)


def _size(said: str) -> int:
    """Bytes of a size as `4GB` or `512MiB`."""
    text = said.strip().upper().removesuffix("B")
    number = text.rstrip("KMGTI ")
    try:
        size = float(number) * _UNITS[text[len(number) :].strip()]
    except (ValueError, KeyError):
        raise ConfigError(f"--max-memory {said!r} is no size; write it as 4GB or 512MB") from None
    if not 0 < size < 1e18:
        raise ConfigError(f"--max-memory {said!r} is no size; write it as 4GB or 512MB")
    return int(size)


def _check_installed(source: Path) -> None:
    from preflexor_agents.cli.doctor import is_checkout, pip_install

    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing and source.is_dir():
        install = pip_install(".[quantize]" if is_checkout() else "preflexor-agents[quantize]")
        raise InputError(f"{source} needs {', '.join(missing)} to be converted; install with: {install}")


def _check_exists(source: Path, adapter: Path | None) -> None:
    for path in (source, adapter):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist; give a model folder or a GGUF file")
