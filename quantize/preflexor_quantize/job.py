"""From a folder or a GGUF file to verified files of the wanted types, with a report beside them."""

import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import preflexor_agents
from preflexor_agents.errors import InputError, ModelError, PreflexorError
from preflexor_agents.markup import TAGS
from preflexor_quantize import adapter, scoring, texts, thinking
from preflexor_quantize.agreement import Agreement
from preflexor_quantize.convert import convert, run_converter
from preflexor_quantize.engine import Engine
from preflexor_quantize.files import Watch, check_room, gigabytes, ignore, replacing
from preflexor_quantize.folder import file_name, read_folder
from preflexor_quantize.ftypes import LADDER, NEED_IMPORTANCE
from preflexor_quantize.imatrix import Importance, collect
from preflexor_quantize.llama_quantize import quantize
from preflexor_quantize.plan import Plan, check_kept, even, floats, plan
from preflexor_quantize.report import Made, Report

MAX_KL = 0.05
"""Nats that `auto` allows where nothing else is said: about what Q4_K_M costs a model of 8 billion weights."""
CONTEXT_TOK = 4096
"""Context whose cache counts as memory."""
_WORK = ".preflexor-work-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What `auto` may use."""

    max_kl: float = MAX_KL
    max_memory_bytes: int | None = None
    """The file and the cache of CONTEXT_TOK tokens together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to make of what."""

    source: Path
    """A model folder, or a GGUF file of floats."""
    out: Path
    """Folder for the files; or one GGUF file, if there is one type."""
    types: tuple[str, ...] = ()
    """llama.cpp's names."""
    auto: bool = False
    """Instead of types: the smallest one within the budget."""
    budget: Budget | None = None
    """Files outside of it are not kept."""
    adapter: Path | None = None
    merge: bool = True
    """Work the adapter into the weights; else write it as a GGUF adapter and the base without it."""
    calibrate: bool = False
    """Use an importance matrix also where llama.cpp does not insist on one."""
    calibration_file: Path | None = None
    converter: Path | None = None


Announce = Callable[[Plan], None]
"""Takes the plan of a type before it is carried out."""


def run(job: Job, *, announce: Announce, watch: Watch = ignore) -> Report:
    """Make the files. What is finished stays, whatever happens to the rest.

    Raises:
        InputError: the source cannot be used, or the types do not fit `out`.
        PreflexorError: the F16 file is not equal to the folder, there is no room, or `auto` found no type.
    """
    folder, name, single = _place(job)
    calibration = texts.calibration_text(job.calibration_file)
    report = Report(
        model=name,
        source=str(job.source),
        adapter=None if job.adapter is None else str(job.adapter),
        preflexor=preflexor_agents.__version__,
        llama_cpp_python=importlib.metadata.version("llama-cpp-python"),
        measured_on=f"held-out notes of the package, windows of {scoring.WINDOW_TOK} tokens",
    )
    with _base(job, folder, name, report, watch) as base:
        _check_shows_tags(base)
        report.thinking_before = thinking.sample(base, watch=watch)
        importance = None
        if job.calibrate or job.calibration_file or any(t in NEED_IMPORTANCE for t in _types(job)):
            importance = collect(base, calibration[0], dataset=calibration[1], watch=watch)
            report.importance = f"{importance.dataset}, {importance.windows} windows"
        bench = _Bench(base, folder, name, importance, announce, watch, report)
        try:
            if job.auto:
                _choose(bench, job.budget or Budget())
            else:
                _make_all(bench, job, single)
        finally:
            if report.files or report.failed:
                report.write(folder, name)
    return report


def outline(job: Job, *, announce: Announce) -> None:
    """Announce the plans and write nothing: of a folder only shapes are read. Raises as `run`."""
    _place(job)
    with TemporaryDirectory(prefix=_WORK) as work:
        base = job.source
        if job.source.is_dir():
            base = Path(work) / "outline.gguf"
            run_converter(read_folder(job.source), base, dtype="f16", converter=job.converter, outline=True)
        for type_name in _types(job):
            announce(plan(base, type_name, importance=even(base) if type_name in NEED_IMPORTANCE else None))


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the making of every type needs."""

    base: Path
    folder: Path
    name: str
    importance: Importance | None
    announce: Announce
    watch: Watch
    report: Report

    def make(self, type_name: str, out: Path, budget: Budget | None) -> None:
        """Make, measure and keep one type; what is outside the budget is measured but not kept."""
        planned = plan(self.base, type_name, importance=self.importance)
        self.announce(planned)
        check_room(out.parent, planned.size_bytes)
        try:
            with replacing(out) as fresh:
                made = self._measured(planned, fresh, out.name, budget)
                self.report.files.append(made)
                if made.verdict != "ok":
                    raise _NotKept
        except _NotKept:
            return

    def _measured(self, planned: Plan, fresh: Path, name: str, budget: Budget | None) -> Made:
        began = time.monotonic()
        quantize(
            self.base,
            fresh,
            planned.type_name,
            importance=self.importance,
            planned_bytes=planned.size_bytes,
            watch=self.watch,
        )
        seconds = time.monotonic() - began
        check_kept(planned, fresh)
        fidelity = scoring.compare(self.base, fresh, texts.scored_text(), watch=self.watch)
        verdict = "ok"
        if budget is not None and fidelity.mean_kl > budget.max_kl:
            verdict = f"mean KL {fidelity.mean_kl:.2e} is over {budget.max_kl:g}"
        replies = thinking.sample(fresh, watch=self.watch) if verdict == "ok" and self.report.thinking_before else None
        verdict = thinking.lost(self.report.thinking_before, replies) or verdict
        return Made(
            type_name=planned.type_name,
            file=name if verdict == "ok" else "",
            size_bytes=fresh.stat().st_size,
            seconds=seconds,
            tensors=planned.counts,
            fallbacks={t.name: f"is {t.after}: {t.note}" for t in planned.fallbacks},
            fidelity=fidelity,
            thinking=replies,
            verdict=verdict,
        )


class _NotKept(Exception):
    """Leaves the block that would put a file in its place."""


def _place(job: Job) -> tuple[Path, str, Path | None]:
    """Folder, name of the model, and the one file where `out` is one."""
    if job.auto == bool(job.types):
        raise InputError("give either types or --auto")
    if job.adapter is not None and not job.source.is_dir():
        raise InputError(f"{job.source} is no folder; an adapter is worked into the folder of its base")
    if job.out.suffix != ".gguf":
        if job.out.exists() and not job.out.is_dir():
            raise InputError(f"{job.out} is a file; give a folder, or a name that ends with .gguf")
        return job.out, file_name(job.source if job.source.is_dir() else job.source.with_suffix("")), None
    if len(job.types) != 1 and not job.auto:
        raise InputError(f"{job.out.name} is one file, for {len(job.types)} types; give a folder instead")
    if job.out.exists() and job.source.exists() and job.out.samefile(job.source):
        raise InputError(f"{job.out} is the file to read; give another name for the one to write")
    return job.out.parent, file_name(job.out.with_suffix("")), job.out


def folder_of(job: Job) -> Path:
    """Where the files and the report go."""
    return job.out if job.out.suffix != ".gguf" else job.out.parent


def _types(job: Job) -> tuple[str, ...]:
    return LADDER if job.auto else job.types


@contextmanager
def _base(job: Job, folder: Path, name: str, report: Report, watch: Watch) -> Iterator[Path]:
    """The F16 file that everything is made from and compared with."""
    if not job.source.is_dir():
        _check_file(job.source)
        yield job.source
        return
    read_folder(job.source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = TemporaryDirectory(prefix=_WORK, dir=folder)
    except OSError as e:
        raise InputError(f"{folder} cannot be written to: {e.strerror or e}; give another place") from None
    with work as inside:
        base = Path(inside) / "base.gguf"
        report.agreement = _convert(job, base, watch)
        if job.adapter is not None and not job.merge:
            report.adapter_logit_difference = _adapter_beside(job, base, folder / f"{name}-lora.gguf", watch)
        yield base


def _convert(job: Job, base: Path, watch: Watch) -> Agreement:
    if job.adapter is None or not job.merge:
        return convert(job.source, base, converter=job.converter, watch=watch)
    merged = base.with_name("merged")
    check_room(base.parent, 4 * read_folder(job.source).parameters)
    adapter.merge(job.source, job.adapter, merged)
    agreement = convert(merged, base, converter=job.converter, watch=watch)
    shutil.rmtree(merged)
    return agreement


def _adapter_beside(job: Job, base: Path, out: Path, watch: Watch) -> float:
    from preflexor_quantize.beside import logit_difference

    assert job.adapter is not None
    with replacing(out) as fresh:
        adapter.adapter_to_gguf(job.source, job.adapter, fresh, converter=job.converter, watch=watch)
        return logit_difference(job.source, job.adapter, base, fresh)


def _check_file(file: Path) -> None:
    try:
        with file.open("rb") as head:
            magic = head.read(4)
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror or e}; give a model folder or a GGUF file") from None
    if magic != b"GGUF":
        raise ModelError(f"{file} is no GGUF file; give a model folder or a GGUF file of 16 or 32 bits")
    floats(file)


def _check_shows_tags(base: Path) -> None:
    with Engine(base) as engine:
        for tag in TAGS:
            ids = engine.tokens_of(tag, special=True)
            if len(ids) == 1 and engine.is_control(ids[0]):
                raise ModelError(
                    f"{base.name} has {tag} as a control token, which is shown as nothing, so its thinking is lost; "
                    "make it again from the model's folder with this command"
                )


def _make_all(bench: _Bench, job: Job, single: Path | None) -> None:
    """A type that fails does not keep the others from being made."""
    for type_name in job.types:
        out = single or bench.folder / f"{bench.name}-{type_name}.gguf"
        try:
            bench.make(type_name, out, job.budget)
        except PreflexorError as e:
            bench.report.failed[type_name] = str(e)


def _choose(bench: _Bench, budget: Budget) -> None:
    """From the smallest type up, the first one within the budget."""
    with Engine(bench.base) as engine:
        cache_bytes = engine.cache_bytes(CONTEXT_TOK)
    plans = [plan(bench.base, t, importance=bench.importance) for t in LADDER]
    too_large = []
    for planned in sorted(plans, key=lambda p: p.size_bytes):
        need = planned.size_bytes + cache_bytes
        if budget.max_memory_bytes is not None and need > budget.max_memory_bytes:
            too_large.append(f"{planned.type_name} needs {gigabytes(need)}")
            continue
        try:
            bench.make(planned.type_name, bench.folder / f"{bench.name}-{planned.type_name}.gguf", budget)
        except PreflexorError as e:
            bench.report.failed[planned.type_name] = str(e)
            continue
        if bench.report.files[-1].verdict == "ok":
            return
    nearest = min(bench.report.files, key=lambda m: m.fidelity.mean_kl, default=None)
    best = f"{nearest.type_name} has a mean KL of {nearest.fidelity.mean_kl:.2e}" if nearest else too_large[0]
    limit = "" if budget.max_memory_bytes is None else f" and {gigabytes(budget.max_memory_bytes)} of memory"
    raise PreflexorError(f"no type is within a mean KL of {budget.max_kl:g}{limit}: {best}; allow more of one")
