"""A newcomer's path, timed: from a fresh clone to a model of one's own in Ollama, by the commands of the documentation.

python benchmarks/newcomer.py --out docs/newcomer.md         the whole path in a temporary folder, and its table there
python benchmarks/newcomer.py --no-setup .venv/bin/python    without clone and set-up, to try it

Every step has to do what the documentation says it does, or the path ends there with a line that says what is wrong.
Home, settings and store are new. What this machine keeps from an earlier set-up is used, and the table says so: pip's
downloads, the compiled llama.cpp, the converter. In the place of Ollama answers the tests' stand-in for its server,
with llama.cpp behind it. Needs the standard library only.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the documents of the tests
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
TICK_S = 0.05
MOST_OF_A_COMMAND_S = 3600.0

SETUP = "make setup"
DEMO = "make demo"
DEMO_ALONE = "preflexor demo"
INGEST = "preflexor ingest papers/"
ASK = 'preflexor ask "How stiff is bamboo?"'
FORGE = "preflexor forge run --questions questions.jsonl --prompt grounded --rows 10 --out try"
TRAIN = "preflexor train tiny --out runs/first"
QUANTIZE = "preflexor quantize runs/first/reason/model model.gguf --type Q8_0"
DEPLOY = "preflexor deploy model.gguf --ollama my-model"
ASK_OLLAMA = 'preflexor ask "How stiff is bamboo?" --model ollama:my-model'

QUESTIONS = (
    '{"question": "What is the fracture toughness of nacre?", "answer": "4.5 MPa m^0.5"}',
    '{"question": "What is the density of bamboo?"}',
)
PAPERS = ("bamboo", "nacre", "squid-beak")
LIBRARY = Path("preflexor_agents") / "data" / "library"
CITED = re.compile(
    r"^ *\[\d+\] [^\n]+ \((?P<source>[^\n]+?)(?:, page (?P<page>\d+))?, characters (?P<start>\d+)-(?P<end>\d+)\)\s+"
    r"“(?P<quote>[^”]+)”",
    re.MULTILINE,
)
READ_PAGE = (
    "import pypdf, sys; sys.stdout.reconfigure(encoding='utf-8'); "
    "print(pypdf.PdfReader(sys.argv[1]).pages[int(sys.argv[2]) - 1].extract_text())"
)
SERVE = """
import sys, tempfile
from pathlib import Path
from tests.fakes.ollama_engine import Engine
from tests.fakes.ollama_stub import OllamaStub

with tempfile.TemporaryDirectory() as folder, OllamaStub() as stub, Engine(stub, Path(folder)):
    print(stub.host, flush=True)
    sys.stdin.read()
"""


class Row(NamedTuple):
    """A line of the table. Without a command it belongs to the one above."""

    step: str
    command: str
    seconds: float
    note: str = ""


class Said(NamedTuple):
    """What a command printed, and how long it took: to its end, and until what was waited for was there."""

    text: str
    seconds: float
    first_s: float


@dataclass(slots=True)
class Newcomer:
    """Somebody who types commands into an empty folder, or into a fresh clone."""

    here: Path
    repository: Path
    python: Path
    environment: Mapping[str, str]
    """With a home of their own."""
    also: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Options to add to a command, so that a test takes seconds."""
    rows: list[Row] = field(default_factory=list)


def took(rows: list[Row], row: Row) -> None:
    """Keep a row, and show it."""
    rows.append(row)
    print(f"{clock(row.seconds):>9}  {row.step}: {row.note}", file=sys.stderr, flush=True)


def fail(line: str) -> NoReturn:
    """End the path there."""
    sys.exit(f"newcomer: {line}")


def typed(
    who: Newcomer,
    command: str,
    *,
    shows: Sequence[str] = (),
    until: Callable[[], bool] = lambda: True,
    environment: Mapping[str, str] | None = None,
    code: int = 0,
) -> Said:
    """Run a command of the documentation; it must end with that code, print what it `shows`, do what is waited for."""
    words = [*shlex.split(command), *who.also.get(command, ())]
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        first_s = 0.0
        with_home = environment or who.environment
        process = subprocess.Popen(
            words, cwd=who.here, env=with_home, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None and (seconds := time.perf_counter() - began) < MOST_OF_A_COMMAND_S:
                if not first_s and until():
                    first_s = seconds
                with suppress(subprocess.TimeoutExpired):
                    process.wait(TICK_S)
        finally:
            is_late = process.poll() is None
            if is_late:
                process.terminate()
                process.wait()
        seconds = time.perf_counter() - began
        out.seek(0)
        text = out.read().decode("utf-8", errors="replace")
    wrong = [f"nothing like {part!r} in what it said" for part in shows if not re.search(part, text)]
    if is_late:
        wrong = [f"not done after {MOST_OF_A_COMMAND_S:.0f} s"]
    elif process.returncode != code:
        wrong = [f"exit code {process.returncode}"]
    elif not first_s and not wrong and not until():
        wrong = ["it ended well and did not do what it is for"]
    if wrong:
        fail("\n".join([f"{command}: {wrong[0]}; the end of what it said:", *text.splitlines()[-15:]]))
    return Said(text, seconds, first_s or seconds)


def path(who: Newcomer, *, demo: str) -> None:
    """Every step after the set-up; `rows` has what each took."""
    first_answer(who, demo)
    own_paper(who)
    first_pair(who)
    libraries(who, TRAIN)
    first_step(who)
    libraries(who, QUANTIZE)
    first_file(who)


def first_answer(who: Newcomer, command: str) -> None:
    """The bundled model and library, and a quote that stands in the library."""
    said = typed(who, command, shows=[r"\nAnswer\n.*4\.5 MPa m\^0\.5 \[\d+\]"])
    cited = citation(said.text, "nacre.md", command)
    note = (who.repository / LIBRARY / "nacre.md").read_text(encoding="utf-8")
    check_quote(cited, note, command)
    took(who.rows, Row("first answer", command, said.seconds, f"cites nacre.md: “{cited['quote']}”"))


def own_paper(who: Newcomer) -> None:
    """PDF files, an answer from one, and a quote that another reader of PDF files finds on the page that is cited."""
    from tests.store.files import pdf

    folder = who.here / "papers"
    folder.mkdir()
    for name in PAPERS:
        pages = pages_of(who.repository / LIBRARY / f"{name}.md")
        (folder / f"{name}.pdf").write_bytes(pdf(pages, info={"Title": name.capitalize()}))
    ingested = typed(who, INGEST, shows=[rf"\b{len(PAPERS)} added; \d+ chunks written"])
    took(who.rows, Row("own papers read", INGEST, ingested.seconds, f"{len(PAPERS)} PDF files of two pages"))
    said = typed(who, ASK, shows=[r"\nAnswer\n.*15 GPa \[\d+\]"])
    cited = citation(said.text, "bamboo.pdf", ASK)
    number = cited["page"] or fail(f"{ASK}: cites no page")
    read = [str(who.python), "-c", READ_PAGE, str(folder / "bamboo.pdf"), number]
    page = subprocess.run(read, capture_output=True, encoding="utf-8", check=True)
    check_quote(cited, page.stdout, ASK)
    took(who.rows, Row("own paper answers", ASK, said.seconds, f"page {number}: “{cited['quote']}”"))


def pages_of(note: Path) -> list[list[str]]:
    """A note of the library as two pages of lines."""
    lines = [part for line in note.read_text("utf-8").splitlines() for part in textwrap.wrap(line.lstrip("# "), 90)]
    return [lines[: len(lines) // 2], lines[len(lines) // 2 :]]


def citation(text: str, name: str, command: str) -> dict[str, str]:
    """The first citation of a file that a command printed."""
    found = [match.groupdict() for match in CITED.finditer(text)]
    of_file = [cited for cited in found if Path(cited["source"]).name == name]
    if not of_file:
        fail(f"{command}: cites nothing of {name}, only {[cited['source'] for cited in found]}")
    return of_file[0]


def check_quote(cited: Mapping[str, str], text: str, command: str) -> None:
    """Line ends and hyphens at them aside, the quote must stand in the text."""
    if bare(cited["quote"].rstrip("…")) not in bare(text):
        fail(f"{command}: “{cited['quote']}” is not on page {cited['page'] or 1} of {cited['source']}")


def bare(text: str) -> str:
    return re.sub(r"[\s\-]+", "", text)


def first_pair(who: Newcomer) -> None:
    """Rows of preference data; the first that is kept counts."""
    (who.here / "questions.jsonl").write_text("\n".join(QUESTIONS) + "\n", encoding="utf-8")
    log = who.here / "try" / "pairs.jsonl"

    def kept() -> int:
        return sum(row.get("state") == "kept" for row in json_lines(log))

    said = typed(who, FORGE, shows=["all rows are there"], until=lambda: kept() > 0)
    rows = len(list(json_lines(log)))
    first = next(row for row in json_lines(log) if row["state"] == "kept")
    if not (first["chosen"] and first["rejected"] and first["chosen"] != first["rejected"]):
        fail(f"{FORGE}: the first kept row has no two different replies")
    took(who.rows, Row("first pair forged", FORGE, said.first_s, "a chosen and a rejected reply to a question"))
    took(who.rows, Row("… to its end", "", said.seconds - said.first_s, f"{kept()} of {rows} rows kept"))


def libraries(who: Newcomer, command: str) -> None:
    """In a fresh clone a command refuses, and says what to install; that is typed."""
    if who.here != who.repository:
        return
    refused = typed(who, command, shows=["install with: "], code=2)
    remedy = refused.text.partition("install with: ")[2].strip()
    seconds = refused.seconds + sum(typed(who, part, environment=os.environ).seconds for part in remedy.split(" && "))
    shown = remedy.replace(f"{who.here}/", "").replace(str(who.here), ".")
    took(who.rows, Row(f"what {command.split()[1]} needs", shown, seconds, "as it says when it is typed without"))


def first_step(who: Newcomer) -> None:
    """The first step of LoRA, and the run to its end."""
    log = who.here / "runs" / "first" / "metrics.jsonl"

    def losses() -> list[float]:
        return [line["loss"] for line in json_lines(log) if "loss" in line]

    said = typed(who, TRAIN, shows=[r"trained: \S+reason/model"], until=lambda: bool(losses()))
    if not all(abs(loss) < 1e3 for loss in losses()):
        fail(f"{TRAIN}: a loss is not finite")
    took(who.rows, Row("first LoRA step", TRAIN, said.first_s, f"loss {losses()[0]:.3g}, rows included"))
    done = f"{len(losses())} steps of two phases, merged"
    took(who.rows, Row("… to its end", "", said.seconds - said.first_s, done))


def first_file(who: Newcomer) -> None:
    """A GGUF file of what was trained, proven, in Ollama, and asked there."""
    made = typed(who, QUANTIZE, shows=["F16 is equal to the folder", "Q8_0"])
    size_mb = (who.here / "model.gguf").stat().st_size / 1e6
    took(who.rows, Row("first GGUF file", QUANTIZE, made.seconds, f"{size_mb:.1f} MB, proven equal to the folder"))
    with ollama(who) as host:
        environment = {**who.environment, "OLLAMA_HOST": host}
        deployed = typed(who, DEPLOY, shows=["my-model"], environment=environment)
        took(who.rows, Row("first GGUF in Ollama", DEPLOY, deployed.seconds, "template and tags proven"))
        said = typed(who, ASK_OLLAMA, shows=[r"ollama:my-model", r"\nAnswer\n\S+"], environment=environment)
        took(who.rows, Row("asked there", ASK_OLLAMA, said.seconds, "an answer by the model just taught"))


@contextmanager
def ollama(who: Newcomer) -> Iterator[str]:
    """The address of the stand-in for Ollama."""
    with subprocess.Popen(
        [str(who.python), "-c", SERVE],
        cwd=who.repository,
        env=who.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            yield server.stdout.readline().strip() or fail("the stand-in for Ollama did not start; see above")
        finally:
            server.stdin.close()


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that may be growing, or not be there yet."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    yield from (json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines())


def cloned(place: Path, rows: list[Row]) -> Path:
    """A clone with its own environment; whatever is compiled or downloaded is noted."""
    here = place / "preflexor"
    began = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(here)], check=True)
    took(rows, Row("clone", "git clone … preflexor", time.perf_counter() - began, "from this disk"))
    who = Newcomer(here=here, repository=here, python=here, environment=os.environ)
    said = typed(who, SETUP)
    compiled = re.search(r"compiled in (\S+),", said.text)
    how = f"llama.cpp compiled in {compiled[1]} min" if compiled else "the compiled llama.cpp was there from before"
    took(rows, Row("set-up", SETUP, said.seconds, how))
    return here


def own_home(place: Path, bin_folder: Path) -> dict[str, str]:
    """An environment in which nobody has used preflexor; the converter, if it was fetched before, is lent."""
    home = place / "home"
    caches = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    (caches / "preflexor").mkdir(parents=True)
    users = Path.home() / "Library" / "Caches"
    if sys.platform != "darwin":
        users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for converter in (users / "preflexor").glob("converter-*"):
        (caches / "preflexor" / converter.name).symlink_to(converter)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFLEXOR_", "XDG_", "OLLAMA_"))}
    return {**kept, "HOME": str(home), "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


def table(rows: Sequence[Row]) -> list[str]:
    """As Markdown, with the time since the start."""
    lines = ["| step | command | took | since the start | what came of it |", "| --- | --- | ---: | ---: | --- |"]
    total = 0.0
    for row in rows:
        total += row.seconds
        command = f"`{row.command}`" if row.command else ""
        lines.append(f"| {row.step} | {command} | {clock(row.seconds)} | {clock(total)} | {row.note} |")
    return lines


def clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def machine() -> str:
    """What it was measured on."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()} {platform.machine()}, {count} processors{load}, Python {platform.python_version()}:"


def walked(place: Path, python: Path | None, *, also: Mapping[str, Sequence[str]] | None = None) -> list[Row]:
    """The path in an empty folder, with an environment that is there or, without one, in a fresh clone."""
    rows: list[Row] = []
    if python is None:
        here = repository = cloned(place, rows)
        python = here / ".venv" / "bin" / "python"
    else:
        here, repository = place / "here", ROOT
        here.mkdir()
        took(rows, Row("set-up", "", 0.0, "left out: an environment that was there"))
    environment = own_home(place, python.parent)
    who = Newcomer(here=here, repository=repository, python=python, environment=environment, also=also or {}, rows=rows)
    path(who, demo=DEMO if here == repository else DEMO_ALONE)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="PAGE", help="a page whose table is replaced")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="do it in this new folder, and leave it there")
    parser.add_argument("--no-setup", type=Path, metavar="PYTHON", help="Python of an environment to use as it is")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.out and not (options.out.is_file() and END in options.out.read_text(encoding="utf-8")):
        fail(f"{options.out} is no page with a place for results between {BEGIN} and {END}")
    if options.no_setup and not os.access(options.no_setup.parent / "preflexor", os.X_OK):
        fail(f"beside {options.no_setup} is no preflexor; name the Python of an environment, as .venv/bin/python")
    if options.keep and options.keep.exists():
        fail(f"{options.keep} is there already; name a new folder")
    lines = [machine(), ""]
    with ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        python = options.no_setup and options.no_setup.absolute()
        lines += table(walked(place.absolute(), python))
    print("\n".join(lines))
    if options.out:
        before, _, rest = options.out.read_text(encoding="utf-8").partition(BEGIN)
        options.out.write_text("\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]]), encoding="utf-8")


if __name__ == "__main__":
    main()
