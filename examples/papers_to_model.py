"""From a folder of papers to a model that was taught what they say, on one page.

Reads the papers into a store, has a teacher write questions, thinking and good answers about them, lets the model that
is taught try the same, trains it on the difference in two phases, makes a GGUF file, and asks it. Every step can be
stopped and goes on where it was: type the same command again. Without --teacher and --base it teaches nano, the bundled
model, what it knows already, to show that everything works.
"""

import argparse
import asyncio
from contextlib import closing
from pathlib import Path

from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Cited, RunFinished
from preflexor_agents.session import ask, close_cast, open_cast
from preflexor_agents.store import Store
from preflexor_training import phases, recipes, rounds, sources, starting


class Lines:
    """Tells on the terminal how it goes."""

    def tell(self, line: str) -> None:
        print(line)

    def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
        print(f"\r{what}: {done} of {total} {note}" if total else what, end="\n" if done == total else "")


def read(papers: Path, file: Path) -> None:
    """Read the papers into a store; what is there already is skipped."""
    with Store.open(file) as store:
        report = store.ingest([papers])
        print(report)
        for failure in report.failed:
            print("  not read:", failure)


def teach(args: argparse.Namespace, store: Path | None) -> Path:
    """Both phases of a recipe, with rows that the teacher makes from the store; returns the folder of the model."""
    given = starting.Given(base=args.base, teacher=args.teacher, store=str(store) if store else None)
    recipe = starting.resolved(recipes.load(args.recipe, changes=args.set), given)
    out = args.out / "run"
    backend = phases.default_backend()
    begun = starting.resume if (out / "state.json").exists() else starting.begin
    run = begun(recipe, out, backend)
    with closing(run.writer), closing(sources.open_source(run.recipe, out, Lines())) as source:
        return rounds.train(rounds.Work(run, source, phases.opener(run.backend), Lines(), lambda _: None))


def shrink(model: Path, out: Path) -> Path:
    """A GGUF file that was compared with the folder it is made of."""
    from preflexor_quantize import job
    from preflexor_quantize.ftypes import file_type

    wanted = job.Job(source=model, out=out / "model.gguf", types=(file_type("Q8_0"),))
    report = job.run(wanted, announce=lambda plan: print("making", plan.type_name))
    return out / report.files[0].file


async def question(text: str, model: str, store: Path) -> None:
    """Ask in rounds, and print the answer with the quotes that it stands on."""
    cast, quotes = await open_cast(model), ["no document supports this"]
    try:
        with Store.open(store, create=False) as library:
            async for event in ask(text, cast=cast, config=ReflectConfig(rounds=2), library=library, store=str(store)):
                match event:
                    case Cited(citations=citations) if citations:
                        quotes = [f"[{c.number}] {c.source}: “{c.quote}”" for c in citations]
                    case RunFinished(answer=answer):
                        print("", text, answer, *quotes, sep="\n")
    finally:
        await close_cast(cast)


def main(args: argparse.Namespace) -> None:
    """All of it."""
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / "papers.db"
    read(args.papers, store)
    model = teach(args, store if args.teacher else None)
    print("taught:", model)
    file = shrink(model, args.out)
    print("shrunk:", file)
    asyncio.run(question(args.question, f"gguf:{file}", store))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path, help="folder of PDF and other files")
    parser.add_argument("--out", type=Path, default=Path("taught"), help="folder for all that is made")
    parser.add_argument(
        "--teacher", help="SPEC of the model that writes questions and good answers, as ollama:qwen3:4b"
    )
    parser.add_argument("--base", help="model to teach: a folder or an id of the Hugging Face hub")
    parser.add_argument("--recipe", default="tiny", help="tiny, laptop, graph, paper or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--question", default="How tough is nacre?")
    main(parser.parse_args())
