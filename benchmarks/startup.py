"""How long `preflexor --help` takes, beside a Python that does nothing. The contract is under 0.25 s."""

import statistics
import subprocess
import sys
import time

RUNS = 15
CONTRACT_S = 0.25
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import preflexor_agents": ["-c", "import preflexor_agents"],
    "preflexor --help": ["-m", "preflexor_agents", "--help"],
    "preflexor ask --help": ["-m", "preflexor_agents", "ask", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Interleave the runs, so that a busy moment hits all commands alike."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    bare = statistics.median(times["python -c pass"])
    print(f"median of {RUNS} runs, wall time")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:26} {median:6.3f} s   best {min(taken):6.3f} s   {median / bare:5.1f} x bare Python")
    median = statistics.median(times["preflexor --help"])
    print(f"contract: --help under {CONTRACT_S} s: {'kept' if median < CONTRACT_S else 'BROKEN'}")
    sys.exit(median >= CONTRACT_S)


if __name__ == "__main__":
    main()
