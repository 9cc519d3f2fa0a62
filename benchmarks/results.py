"""The table of results: what training and protocols do to held-out questions, with intervals, tests and verdicts.

python benchmarks/results.py --quick                                 the bundled model, to try it
python benchmarks/results.py --base base.gguf --phase1 phase1.gguf --phase2 phase2.gguf --out docs/results.md
python benchmarks/results.py ... --ablation "no mask=unmasked.gguf"  a model that was trained otherwise, beside Phase II

It says first about how long it takes, asks all rows a few questions and then all of them more, and stops after
`--minutes`. Each answer is kept in `--work` by the content of the file that gave it; the same command goes on, and asks
nothing twice. Seconds of a question are those of a machine that does nothing else, asked one at a time.
"""

import argparse
import asyncio
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from results_found import Measured
from results_plan import GATE, PHASES, REVISE, ROUNDS, Sizes, suite, top_of
from results_plots import draw
from results_report import report
from results_run import Asking, Bench, Model, minutes, model_of

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.store import open_bundled

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
QUESTIONS, QUICK = 150, 6
MINUTES = 25.0
FIGURES = "figures"
"""Folder of the pictures, beside the page."""


def main() -> int:
    options = arguments()
    try:
        return asyncio.run(results(options))
    except PreflexorError as error:
        print(f"results: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"results: stopped; the same command goes on with what is in {options.work}", file=sys.stderr)
        return 130


async def results(options: argparse.Namespace) -> int:
    """Ask, and tell: on standard output, and in the page."""
    models = [model_of(name, path) for name, path in chosen(options).items()]
    sizes = Sizes.of(QUICK if options.quick else options.questions)
    how = Asking(
        columns=tuple(options.columns),
        sizes=sizes,
        seeds=tuple(options.seeds),
        slots=options.slots,
        budget_tok=options.budget_tokens,
    )
    until = time.monotonic() + 60 * options.minutes
    with open_bundled().store as store, closing(Bench(options.work, models, suite(), store, how)) as bench:
        left = bench.left(bench.all_entries())
        more = "" if bench.budget() else ", and the rows at equal budgets"
        say(f"{left.answers} of {left.of} answers are missing{more}: {minutes(left.seconds)}")
        say(f"stops asking after {options.minutes:g} min")
        if await bench.ask(until=until, say=say):
            say("everything is answered")
        found = measured(bench, models, command=command(sys.argv[1:]))
    text = told(found, options.out)
    print(text)
    failed = sum(bool(result.error) for results in found.found.values() for result in results)
    if failed:
        say(f"{failed} answers failed; the same command asks for them again")
    return 1 if failed else 0


def measured(bench: Bench, models: Sequence[Model], *, command: str) -> Measured:
    """What there is by now."""
    entries = bench.all_entries()
    name = PHASES[top_of(bench.models)]
    runs = {"with the gate": f"{name} + {GATE}", "always revising": f"{name} + {REVISE}"}
    cut = {
        said: [bench.results(entry, rounds=n) for n in range(1, ROUNDS + 1)]
        for said, label in runs.items()
        for entry in bench.listed
        if entry.label == label
    }
    return Measured(
        found={entry: bench.results(entry) for entry in entries},
        by_round=cut,
        budget=bench.budget(),
        columns=tuple(bench.suite.columns),
        models=tuple(models),
        how=bench.how,
        command=command,
        machine=f"{platform.machine()}, {os.cpu_count()} processors",
        missing=bench.left(entries).answers,
    )


def told(found: Measured, page: Path | None) -> str:
    """The text of the page; with a page, also put into it, and the pictures beside it."""
    if page is None:
        return report(found, {})
    pictures = draw(found, page.parent / FIGURES)
    text = report(found, {name: f"{FIGURES}/{file.name}" for name, file in pictures.items()})
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    partial = page.with_name(page.name + ".partial")
    try:
        partial.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
        partial.replace(page)
    except OSError as error:
        raise InputError(f"{page} cannot be written: {error.strerror}; name another page with --out") from None
    finally:
        partial.unlink(missing_ok=True)
    return text


def chosen(options: argparse.Namespace) -> dict[str, Path]:
    """The files by what they are. Raises InputError: two ablations have one name, or that of a phase."""
    given = {"base": options.base, "phase1": options.phase1, "phase2": options.phase2}
    found = {name: nano_path() if str(path) == "nano" else path for name, path in given.items() if path is not None}
    for name, path in options.ablation:
        if name in found or name in PHASES:
            raise InputError(f"--ablation {name}={path}: {name!r} is taken; give it another name")
        found[name] = path
    return found


def command(words: Sequence[str]) -> str:
    """What was typed, files by their names only: folders are somebody's own."""
    shown = []
    for word in words:
        head, equals, path = word.rpartition("=")
        shown.append(f"{head}{equals}{Path(path).name}" if Path(path).is_absolute() else word)
    return shlex.join(["python", "benchmarks/results.py", *shown])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
        return int(text)

    def seeds(text: str) -> list[int]:
        found = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and int(part) < 2**31 for part in found):
            raise argparse.ArgumentTypeError(f"{text!r} are no seeds; write numbers with commas, as 0,1,2")
        return list(dict.fromkeys(map(int, found)))

    def named(text: str) -> tuple[str, Path]:
        name, equals, path = text.partition("=")
        if not name.strip() or not equals or not path:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
        return name.strip(), Path(path)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", type=Path, default=Path("nano"), metavar="GGUF", help="default: nano, the bundled one"
    )
    parser.add_argument("--phase1", type=Path, metavar="GGUF")
    parser.add_argument("--phase2", type=Path, metavar="GGUF")
    parser.add_argument(
        "--ablation", type=named, action="append", default=[], metavar="NAME=GGUF", help="may be repeated"
    )
    parser.add_argument(
        "--questions",
        type=number,
        default=QUESTIONS,
        metavar="N",
        help=f"of each column, for rows that write one draft; a third of them for dear rows (default: {QUESTIONS})",
    )
    parser.add_argument("--quick", action="store_true", help=f"--questions {QUICK}")
    parser.add_argument(
        "--columns", type=lambda text: text.split(";"), default=[], metavar="NAME;...", help="only these"
    )
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], metavar="N,...", help="default: 0,1,2")
    parser.add_argument(
        "--budget-tokens", type=number, metavar="N", help="limit of the equal budgets, instead of a mean"
    )
    parser.add_argument("--slots", type=number, default=1, metavar="N", help="questions at a time (default: 1)")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"stop asking after so many (default: {MINUTES:g})"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/results"), metavar="FOLDER", help="where answers are kept"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PAGE", help=f"a page to put the results into; pictures in {FIGURES}/"
    )
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes:g}; give more than 0")
    if options.out and not (options.out.is_file() and END in options.out.read_text(encoding="utf-8", errors="replace")):
        parser.error(f"{options.out} is no page with a place for results between {BEGIN} and {END}")
    return options


if __name__ == "__main__":
    sys.exit(main())
