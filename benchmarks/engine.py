"""The in-process engine beside what else can write N replies with llama.cpp: one run, medians, ratios within the run.

python benchmarks/engine.py                                        everything, about 20 minutes on 2 idle threads
python benchmarks/engine.py --models tiny --ftypes f16 --widths 1,4 --runs 1 --new 20       a minute, to try it
python benchmarks/engine.py --cases best-of --ftypes q4_k_m        one part; --cases overhead, rounds, lookup, crowd
python benchmarks/engine.py --out docs/engine.md                   puts the results there, and a plot beside it

`--llama-server PATH` adds a llama-server as an opponent, `--ollama NAME` a model of an Ollama server.
Every round asks each opponent once, so that a busy moment hits all alike.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import engine_cases
from engine_crowd import crowd
from engine_models import FTYPES, SHAPES, random_llama
from engine_opponents import AutoGen, HighLevel, Ollama, Opponent, Ours, Raw, Server, opened, prompt_of
from engine_report import plot, report

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.config import ReflectConfig

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
ROUNDS = ReflectConfig(rounds=3, candidates=4, converge=False)
"""Four drafts to choose from, two revisions before the judge in both orders, a merge."""
CASES = ("best-of", "overhead", "rounds", "lookup", "crowd")


def best_of_n(options: argparse.Namespace) -> list[dict[str, Any]]:
    """N replies to one prompt by everybody, for each model and type."""
    rows = []
    for name, ftype, path in models(options):
        with_text = name != "nano"  # nano ends its replies by itself, so words cannot make it write a given length
        opponents = opponents_for(path, options, with_text=with_text)
        times: dict[tuple[str, int], list[float]] = {}
        with opened(opponents):
            if options.runs > 1:
                for opponent in opponents:  # to load the weights, and to time the widths
                    opponent.seconds(prompt_of(64, seed=99), most=8, widths=(max(options.widths),))
            for run in range(options.runs):
                for opponent in opponents:
                    prompt = prompt_of(options.prompt, seed=run)
                    found = opponent.seconds(prompt, most=options.new, widths=options.widths)
                    for n, seconds in found.items():
                        times.setdefault((opponent.name, n), []).append(seconds)
        for (who, n), seconds in times.items():
            high = times[HighLevel.name, n]
            ratio = statistics.median(b / a for a, b in zip(seconds, high, strict=True))
            rate = n * options.new / statistics.median(seconds)
            rows.append({"model": name, "ftype": ftype, "who": who, "n": n, "tok_s": rate, "ratio": ratio})
        say(f"best-of: {name} {ftype} done")
    return rows


def overhead(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a token at N=1 beside llama_decode with the same sampler, a prompt of 64 tokens before it."""
    rows = []
    for name, ftype, path in models(options):
        ours, raw = Ours(path, threads=options.threads), Raw(path, threads=options.threads)
        mine, limit = [], []
        with opened([ours, raw]), engine_cases.no_guesses():
            prompt = prompt_of(64, seed=5)
            ours.replies([prompt], [8])
            for place in range(2 * options.runs + 1):
                start = ours.seconds([2 * place, *prompt[1:]], most=1, widths=(1,))[1]
                whole = ours.seconds([2 * place + 1, *prompt[1:]], most=options.new + 1, widths=(1,))[1]
                mine.append((whole - start) / options.new)
                raw.keep([])
                limit.append(statistics.mean(raw.steps([raw.prefill([400 + place, *prompt[1:]])], [options.new])))
        ratio = statistics.median(a / b for a, b in zip(mine, limit, strict=True))
        row = {"model": name, "ftype": ftype, "ms": 1000 * statistics.median(mine), "overhead": ratio - 1}
        rows.append(row | {"least_overhead": min(mine) / min(limit) - 1})
        say(f"overhead: {name} {ftype} done")
    return rows


def rounds(options: argparse.Namespace, runs: Sequence[engine_cases.Run]) -> list[dict[str, Any]]:
    """The calls of whole runs, by ours and one after the other through the high level."""
    rows = []
    paths = [("nano", "bundled", nano_path()), *(found for found in models(options) if found[0] != "nano")]
    for name, ftype, path in paths:
        repeats = options.runs if name == "nano" else 1
        found = [
            engine_cases.replayed(path, run.calls, threads=options.threads) for run in runs for _ in range(repeats)
        ]
        row: dict[str, Any] = {"model": name, "ftype": ftype, "calls": sum(len(run.calls) for run in runs)}
        row["wall"] = statistics.median(replay.ours / replay.high_level for replay in found)
        row["limit"] = statistics.median(replay.raw / replay.high_level for replay in found)
        row["cached"] = sum(replay.cached for replay in found) / sum(replay.prompt for replay in found)
        rows.append(row)
        say(f"rounds: {name} {ftype} done")
    return rows


def models(options: argparse.Namespace) -> list[tuple[str, str, Path]]:
    """Name, type and file of what is measured."""
    found = []
    for name in options.models:
        if name == "nano":
            found.append(("nano", "bundled", nano_path()))
        else:
            found += [(name, ftype, random_llama(name, ftype)) for ftype in options.ftypes]
    return found


def opponents_for(path: Path, options: argparse.Namespace, *, with_text: bool) -> list[Opponent]:
    threads = options.threads
    found: list[Opponent] = [Ours(path, threads=threads), HighLevel(path, threads=threads)]
    if with_text and find_spec("autogen_ext") is not None:
        found.append(AutoGen(path, threads=threads))
    if options.llama_server is not None:
        found.append(Server(options.llama_server, path, threads=threads))
    if with_text and options.ollama:
        found.append(Ollama(options.ollama))
    return [*found, Raw(path, threads=threads)]


def say(text: str) -> None:
    print(text, file=sys.stderr)


def arguments() -> argparse.Namespace:
    def listed(known: Sequence[str]) -> Any:
        def read(text: str) -> list[str]:
            names = text.split(",")
            if unknown := [name for name in names if name not in known]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
            return names

        return read

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=listed(CASES), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--models", type=listed(("nano", *SHAPES)), default=["nano", "170m"], help="nano, 170m, tiny")
    parser.add_argument("--ftypes", type=listed(tuple(FTYPES)), default=list(FTYPES), help=", ".join(FTYPES))
    parser.add_argument("--widths", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many")
    parser.add_argument("--prompt", type=int, default=1000, help="tokens of the shared prompt")
    parser.add_argument("--new", type=int, default=200, help="tokens of each reply")
    parser.add_argument("--questions", type=int, default=3, help="runs of three rounds")
    parser.add_argument("--requests", type=int, default=200, help="of the crowd")
    parser.add_argument("--cells", type=int, default=6000, help="tokens in the crowd's cache")
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--ollama", metavar="NAME")
    parser.add_argument("--out", type=Path, help="a page whose results are replaced; .svg and .json go beside it")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.out and not (options.out.is_file() and END in options.out.read_text(encoding="utf-8")):
        sys.exit(f"{options.out} is no page with a place for results between {BEGIN} and {END}")
    found: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, {options.threads} threads"}
    if "best-of" in options.cases:
        found["best-of"] = best_of_n(options)
    if "overhead" in options.cases:
        found["overhead"] = overhead(options)
    if {"rounds", "lookup"} & set(options.cases):
        questions = engine_cases.QUESTIONS[: options.questions]
        runs = engine_cases.traffic(threads=options.threads, questions=questions, config=ROUNDS)
        if "rounds" in options.cases:
            found["rounds"] = rounds(options, runs)
        if "lookup" in options.cases:
            guessed = engine_cases.guessing(runs, threads=options.threads, runs=options.runs)
            found["lookup"] = [row._asdict() for row in guessed]
    if "crowd" in options.cases:
        crowded = crowd(nano_path(), threads=options.threads, requests=options.requests, cells=options.cells)
        found["crowd"] = asyncio.run(crowded)._asdict()
    lines = report(found)
    print("\n".join(lines))
    if options.out:
        keep(options.out, found, lines)


def keep(page: Path, found: dict[str, Any], lines: Sequence[str]) -> None:
    """Put the tables between the marks of a page, the plot and the numbers beside it."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text("\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]]), encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if "best-of" in found:
        page.with_suffix(".svg").write_text(plot(found["best-of"]), encoding="utf-8")


if __name__ == "__main__":
    main()
