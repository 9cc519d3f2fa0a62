"""Memory of converting a model and speed of quantising it, beside llama.cpp's own call.

The model is random: 170 million weights, the vocabulary size of Llama 3.2, tied embeddings. Contracts: the converter
needs less than 3 times the size of the F16 file, and quantising takes at most 5 % longer than llama.cpp's own call.
`--small` takes a model of a few hundred thousand weights instead, to see that it runs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "IQ4_XS")
MOST_MEMORY, MOST_TIME = 3.0, 1.05
SCORED_WINDOWS = 4
"""Of 256 tokens; a distribution over 128 thousand tokens at each position takes its time."""


def stage(name: str, folder: Path, file: Path) -> dict[str, float]:
    """Run one stage in a process of its own; its time and its peak memory, in bytes."""
    command = [sys.executable, __file__, "--stage", name, str(folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_stage(name: str, folder: Path, file: Path) -> None:
    """The work of a stage; prints its time and its peak memory."""
    sys.path.insert(0, str(ROOT))
    began, who = time.perf_counter(), resource.RUSAGE_SELF
    facts: dict[str, object] = {}
    if name in ("make", "make-small"):
        from tests.quantize import folders

        if name == "make":
            folders.large_random(folder)
        else:
            folders.random_model(folder, folders.llama3_tokenizer(), hidden=256, ffn=512)
    elif name == "convert":
        from preflexor_quantize.convert import run_converter
        from preflexor_quantize.folder import read_folder

        run_converter(read_folder(folder), file, dtype="f16")
        who = resource.RUSAGE_CHILDREN
    elif name == "verify":
        from preflexor_quantize.verify import verify

        found = verify(folder, file, exact=True)
        facts = {"tokens": found.greedy_tok, "equal": found.greedy_equal_tok, "ties": found.ties}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(who).ru_maxrss * unit
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak, **facts}))


def own_call(source: Path, out: Path, number: int) -> float:
    """Seconds of llama.cpp's call with nothing around it."""
    import llama_cpp

    from preflexor_quantize.engine import threads
    from preflexor_quantize.llama_log import log_lines

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, threads()
    with log_lines():
        began = time.perf_counter()
        llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), params)
        return time.perf_counter() - began


def our_call(source: Path, out: Path, type_name: str) -> float:
    """Seconds of the same work as `preflexor quantize` does it, with progress."""
    from preflexor_quantize.llama_quantize import quantize

    began = time.perf_counter()
    quantize(source, out, type_name, planned_bytes=1)
    return time.perf_counter() - began


def memory(folder: Path, file: Path) -> bool:
    """Convert and verify; whether the contract is kept."""
    converted = stage("convert", folder, file)
    size = file.stat().st_size
    verified = stage("verify", folder, file)
    print(f"F16 file {size / 1e6:.1f} MB")
    print(f"{'stage':10} {'seconds':>8} {'peak MB':>9} {'x file':>7}")
    for name, found in (("convert", converted), ("verify", verified)):
        print(f"{name:10} {found['seconds']:8.1f} {found['peak'] / 1e6:9.0f} {found['peak'] / size:7.2f}")
    equal, total, ties = (int(verified[key]) for key in ("equal", "tokens", "ties"))
    print(f"greedy: {equal} of {total} tokens the folder's likeliest, {ties} ties")
    return converted["peak"] < MOST_MEMORY * size


def speed(file: Path, out: Path, *, runs: int) -> bool:
    """Quantise by turns; whether the contract is kept."""
    from preflexor_quantize import scoring
    from preflexor_quantize.ftypes import file_types
    from preflexor_quantize.plan import plan
    from preflexor_quantize.texts import scored_text

    columns = ("MB", "ours s", "llama.cpp s", "ratio", "mean KL", "p99 KL", "top-1")
    print(f"{'type':8} " + " ".join(f"{c:>{w}}" for c, w in zip(columns, (7, 8, 12, 6, 9, 9, 6), strict=True)))
    scoring.MOST_WINDOWS = SCORED_WINDOWS
    ratios = []
    for name in TYPES:
        plan(file, name)
        pairs = [(our_call(file, out, name), own_call(file, out, file_types()[name])) for _ in range(runs)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        found = scoring.compare(file, out, scored_text())
        ratios.append(statistics.median(a / b for a, b in pairs))
        print(
            f"{name:8} {out.stat().st_size / 1e6:7.1f} {ours:8.2f} {theirs:12.2f} {ratios[-1]:6.3f} "
            f"{found.mean_kl:9.2e} {found.p99_kl:9.2e} {found.top1:6.1%}"
        )
    return max(ratios) <= MOST_TIME


def main() -> None:
    """Print both tables; the exit code is 1 if a contract is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny model; its numbers mean nothing")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind for a type")
    parser.add_argument("--stage", nargs=3, metavar=("NAME", "FOLDER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage[0], Path(options.stage[1]), Path(options.stage[2]))
        return
    with tempfile.TemporaryDirectory() as work:
        folder, file, out = (Path(work) / name for name in ("model", "f16.gguf", "out.gguf"))
        stage("make-small" if options.small else "make", folder, file)
        kept = {"memory": memory(folder, file), "speed": speed(file, out, runs=options.runs)}
    if options.small:
        return
    print(f"contract: converting needs under {MOST_MEMORY:g} x the file: {'kept' if kept['memory'] else 'BROKEN'}")
    print(f"contract: at most {MOST_TIME - 1:.0%} over llama.cpp's own call: {'kept' if kept['speed'] else 'BROKEN'}")
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
