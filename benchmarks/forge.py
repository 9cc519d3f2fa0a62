"""Rows of preference data: how many an hour beside the published order of calls, and whether hundreds hold together.

python benchmarks/forge.py                           both tables, about 10 minutes on 2 idle threads
python benchmarks/forge.py --cases waiting --rows 20 --runs 1 --variants plain        half a minute, to try it
python benchmarks/forge.py --rows 200 --prove        makes 200 rows of each variant by each cast and checks every one
python benchmarks/forge.py --out docs/benchmarks/forge.md                             puts the results there

The published order is one call after the other, row after row: 10 calls a row, 13 with a graph, and 3 in the variant
`direct`, which nobody has published. `waiting` asks a
scripted server of 8 places whose replies take 50 ms; `engine` asks nano in this process, which evaluates the real
prompts and draws as many tokens as the script's replies have. All sides make the same rows, which is checked.
"""

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import forge_proof
from engine_models import random_llama
from engine_opponents import HighLevel
from forge_backends import Asked, Script, Waiting, Working, filled, forget
from forge_proof import lines_of

from preflexor_agents.backends.base import Backend, Request, complete
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.config import Sampling
from preflexor_agents.prompts import Message
from preflexor_agents.store import Store
from preflexor_training.forge.calls import Model
from preflexor_training.forge.opening import rows_at_once
from preflexor_training.forge.records import read_rows, to_json
from preflexor_training.forge.run import Report, Work, forge
from preflexor_training.forge.settings import ForgeSettings, Variant

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the scripted teacher of the tests
CASES = ("waiting", "engine")
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ASKED = {"waiting": 7.0, "engine": 3.0}
"""How many times as many rows an hour as in the published order."""
PLACES = 8
SERIAL = "one call after the other"
PUBLISHED = "one call after the other, each prompt from its beginning"
KEPT = "one call after the other, beginnings kept"
HIGH_LEVEL = "llama_cpp.Llama, one call after the other"


class Took(NamedTuple):
    """What making rows took."""

    seconds: float
    processor_s: float
    calls: int
    prompt: int
    cached: int
    generated: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """One way to make the rows."""

    slots: int
    backend: Callable[[], Backend]
    rows_at_once: int | None = None


def made(store: Store, settings: ForgeSettings, side: Side) -> Took:
    """Rows from nothing, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        backend = side.backend()
        work = Work(
            settings=settings,
            folder=Path(folder),
            store=store,
            models={who: Model(backend=backend) for who in ("teacher", "student", "judge")},
            slots=side.slots,
            rows_at_once=side.rows_at_once,
        )
        began = time.process_time()
        report = asyncio.run(forge(work))
        processor_s = time.process_time() - began
        return took(report, processor_s, work.folder)


def took(report: Report, processor_s: float, folder: Path) -> Took:
    spent = report.spending
    usage = spent.usage
    rows = list(timeless(folder))
    return Took(report.seconds, processor_s, spent.paid, usage.prompt, usage.cached, usage.generated, rows)


def timeless(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows without what may differ: how long calls took, and what of their prompts was there already."""
    for row in read_rows(folder):
        calls = tuple(replace(call, seconds=0.0, tokens_cached=0) for call in row.calls)
        yield to_json(replace(row, calls=calls))


def waiting(options: argparse.Namespace, store: Store) -> list[dict[str, Any]]:
    """A server that makes wait: the published order beside 8 calls at once."""
    from tests.training.forging import speak
    from tests.training.teaching import task_of

    script = filled(speak, task_of)
    found = []
    rows = options.rows or 100
    for variant in options.variants:
        settings = ForgeSettings(rows=rows, variant=variant)
        sides = {
            "preflexor": Side(PLACES, lambda: Waiting(script, seconds=options.seconds, places=PLACES)),
            SERIAL: Side(1, lambda: Waiting(script, seconds=options.seconds, places=PLACES)),
        }
        times = timed(store, settings, sides, runs=options.runs)
        found += compared("waiting", variant, rows, times)
        say(f"waiting: {variant} done")
    return found


def engine(options: argparse.Namespace, store: Store) -> list[dict[str, Any]]:
    """Nano in this process: calls side by side and in the published order, and the same calls by llama_cpp.Llama."""
    from tests.training.forging import speak
    from tests.training.teaching import task_of

    found = []
    rows = options.rows or 16
    script = filled(speak, task_of, share=options.length)
    with ExitStack() as stack:
        path = model_path(options.model)
        model = Local(path, threads=options.threads)
        stack.callback(model.close)
        high = HighLevel(path, threads=options.threads, context_tok=model.backend.context_tok)
        stack.callback(high.close)
        for variant in options.variants:
            settings = ForgeSettings(rows=rows, variant=variant)
            asked: list[Asked] = []
            sides = {
                "preflexor": Side(PLACES, lambda: model.fresh(script), rows_at_once=rows_at_once([f"gguf:{path}"])),
                KEPT: Side(1, lambda asked=asked: model.fresh(script, asked=asked)),
                PUBLISHED: Side(1, lambda: model.fresh(script, forgets=True)),
            }
            times: dict[str, list[Took]] = {}
            for _ in range(options.runs):
                asked.clear()
                for name, took in timed(store, settings, sides, runs=1).items():
                    times.setdefault(name, []).append(took[0])
                times.setdefault(HIGH_LEVEL, []).append(replayed(high, asked, like=times[KEPT][-1]))
            found += compared("engine", variant, rows, times)
            say(f"engine: {variant} done")
    return found


def model_path(name: str) -> Path:
    """nano, or a random Llama of `benchmarks/engine_models.py` as `170m-f16`."""
    if name == "nano":
        return nano_path()
    shape, _, ftype = name.partition("-")
    return random_llama(shape, ftype)


class Local:
    """A model in this process, opened once; its own loop lives in each run."""

    def __init__(self, path: Path, *, threads: int) -> None:
        opening = LlamaCppBackend.open(path, spec=path.stem, threads=threads)
        self.backend = asyncio.run(opening)
        asyncio.run(self._warmed())

    async def _warmed(self) -> None:
        """Time the widths of steps once, so that no run has to."""
        asked = [
            Request(messages=(Message("user", "Say something."),), sampling=Sampling(max_tok=16), seed=n)
            for n in range(PLACES)
        ]
        await asyncio.gather(*(complete(self.backend, request) for request in asked))
        self.backend._model.scheduler._timings = 0

    def fresh(self, script: Script, *, forgets: bool = False, asked: list[Asked] | None = None) -> Working:
        """Without anything kept of what it was asked before."""
        self.backend._worker.submit(forget, self.backend._model).result()
        return Working(self.backend, script, forgets=forgets, asked=[] if asked is None else asked)

    def close(self) -> None:
        asyncio.run(self.backend.aclose())


def replayed(high: HighLevel, asked: list[Asked], *, like: Took) -> Took:
    """The calls of a run, and nothing of what a row needs beside them."""
    began, computed = time.perf_counter(), time.process_time()
    for call in asked:
        high.reply(call.prompt, call.most, call.seed)
    return like._replace(seconds=time.perf_counter() - began, processor_s=time.process_time() - computed, cached=0)


def timed(store: Store, settings: ForgeSettings, sides: dict[str, Side], *, runs: int) -> dict[str, list[Took]]:
    """Every round makes the rows on each side once, so that a busy moment hits all alike."""
    times: dict[str, list[Took]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            times[name].append(made(store, settings, side))
    rows = times["preflexor"][0].rows
    if any(took.rows != rows for found in times.values() for took in found):
        raise RuntimeError("the sides did not make the same rows")
    return times


def compared(case: str, variant: str, rows: int, times: dict[str, list[Took]]) -> list[dict[str, Any]]:
    """A line for each opponent."""
    ours = times["preflexor"]
    found = []
    for name, theirs in times.items():
        if name == "preflexor":
            continue
        pairs = list(zip(theirs, ours, strict=True))
        found.append(
            {
                "case": case,
                "variant": variant,
                "against": name,
                "rows": rows,
                "kept": sum(row["state"] == "kept" for row in ours[0].rows),
                "calls_a_row": theirs[0].calls / rows,
                "prompt_tok_a_call": theirs[0].prompt / theirs[0].calls,
                "written_tok_a_call": theirs[0].generated / theirs[0].calls,
                "cached": ours[0].cached / max(1, ours[0].prompt),
                "their_rows_h": rows * 3600 / statistics.median(took.seconds for took in theirs),
                "rows_h": rows * 3600 / statistics.median(took.seconds for took in ours),
                "times": statistics.median(a.seconds / b.seconds for a, b in pairs),
                "times_processor": statistics.median(a.processor_s / b.processor_s for a, b in pairs),
            }
        )
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each variant and opponent, as Markdown."""
    heads = ["case", "variant", "against", "rows kept", "calls a row", "tokens of a prompt, from cache", "of a reply"]
    heads += ["its rows/h", "preflexor rows/h", "times as many", "by processor time", "asked", ""]
    cells = []
    for row in rows:
        case = str(row["case"])
        is_asked = row["against"] in (SERIAL, PUBLISHED)
        works = case == "engine"
        cells.append(
            [
                *(case, row["variant"], row["against"], f"{row['kept']} of {row['rows']}", f"{row['calls_a_row']:.1f}"),
                f"{row['prompt_tok_a_call']:.0f}, {row['cached']:.0%}" if works else "",
                f"{row['written_tok_a_call']:.0f}" if works else "",
                *(f"{row['their_rows_h']:,.0f}", f"{row['rows_h']:,.0f}", f"{row['times']:.2f}"),
                f"{row['times_processor']:.2f}" if works else "",
                f"≥ {ASKED[case]:g}" if is_asked else "",
                ("reached" if row["times"] >= ASKED[case] else "missed") if is_asked else "",
            ]
        )
    return lines_of(heads, cells, numbers=3)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def listed(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return read


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=listed(CASES), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--prove", action="store_true", help="make rows and check them, instead of timing")
    parser.add_argument("--model", default="nano", help="for engine: nano, or a random one as 170m-f16 or 170m-q4_k_m")
    parser.add_argument("--casts", type=listed(forge_proof.CASTS), default=["scripted", "student", "nano"])
    parser.add_argument("--variants", type=listed(VARIANTS), default=list(VARIANTS), help=", ".join(VARIANTS))
    parser.add_argument("--rows", type=int, help="of each variant; 100 for waiting, 16 for engine, 200 to prove")
    parser.add_argument("--runs", type=int, default=3, help="medians of so many")
    parser.add_argument("--seconds", type=float, default=0.05, help="of a reply, for waiting")
    parser.add_argument("--length", type=float, default=1.0, help="of the replies for engine, 1 is about 100 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a page whose tables are replaced")
    return parser.parse_args()


def main() -> None:
    from tests.training.teaching import library

    options = arguments()
    mark = "proof" if options.prove else "results"
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if options.out and not (options.out.is_file() and end in options.out.read_text(encoding="utf-8")):
        sys.exit(f"{options.out} is no page with a place for results between {begin} and {end}")
    with tempfile.TemporaryDirectory() as folder, library(Path(folder) / "store.db") as store:
        if options.prove:
            found = forge_proof.proved(store, options, say=say)
            lines = forge_proof.table(found)
        else:
            measured = {"waiting": waiting, "engine": engine}
            machine = f"{platform.processor() or platform.machine()}, {options.threads} threads"
            lines = [machine, "", *table([row for case in options.cases for row in measured[case](options, store)])]
    print("\n".join(lines))
    if options.out:
        before, _, rest = options.out.read_text(encoding="utf-8").partition(begin)
        options.out.write_text("\n".join([before + begin, *lines, end + rest.partition(end)[2]]), encoding="utf-8")
    if options.prove and any(proof.faults for proof in found):
        sys.exit("not every row holds")


if __name__ == "__main__":
    main()
