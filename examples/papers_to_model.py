"""From a folder of papers to a model that was taught what they say, on one page.

Reads the papers into a store, trains a model on rows that a teacher makes from them, in both phases, makes a GGUF file
of it, and asks it. Each step is a command that you can type yourself. Whatever is stopped goes on where it was: start
the program again. Without --teacher and --base nano, the bundled model, is taught what it knows already, to show that
everything works.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path


def preflexor(*words: object, may_fail: bool = False) -> None:
    """Run a command; end with its exit code if it failed."""
    command = [str(word) for word in words if word]
    print("$ preflexor", shlex.join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", "preflexor_agents", *command], check=False)
    if done.returncode and not (may_fail and done.returncode == 1):
        sys.exit(done.returncode)


def main(args: argparse.Namespace) -> None:
    """All of it."""
    store, run, file = args.out / "papers.db", args.out / "run", args.out / "model.gguf"
    args.out.mkdir(parents=True, exist_ok=True)
    preflexor("ingest", args.papers, "--store", store, may_fail=True)  # a file that cannot be read costs that file

    rows = ["--teacher", args.teacher, "--store", store] if args.teacher else []
    base = ["--base", args.base] if args.base else []
    if (run / "config.toml").exists():
        preflexor("train", run / "config.toml", "--out", run, "--resume")
    else:
        preflexor("train", args.recipe, *base, *rows, "--out", run)

    if not file.exists():
        preflexor("quantize", run / "reason" / "model", file, "--type", args.type)
    preflexor("ask", args.question, "--model", f"gguf:{file}", "--store", store, "--rounds", 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path, help="folder of PDF and other files")
    parser.add_argument("--out", type=Path, default=Path("taught"), help="folder for all that is made")
    parser.add_argument("--teacher", help="SPEC of the model that makes questions and good answers, as ollama:qwen3:4b")
    parser.add_argument("--base", help="model to teach: a folder or an id of the Hugging Face hub")
    parser.add_argument("--recipe", default="tiny", help="tiny, laptop, graph, paper or a TOML file")
    parser.add_argument("--type", default="Q8_0", help="type of the GGUF file")
    parser.add_argument("--question", default="How tough is nacre?")
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        sys.exit("stopped; start the program again to go on")
