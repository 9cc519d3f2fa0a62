"""Load the team that ships for AutoGen Studio and run it as Studio does: built from its JSON for each question.

Loading a component's config imports the classes that it names, so the loader takes only those of allowed packages.
The model stays loaded between the runs. Give --team FILE to run a team that you exported from Studio.
"""

import argparse
import asyncio
import json
from importlib import resources
from pathlib import Path

from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.ui import Console

from preflexor_agents.autogen import load_component

SHIPPED = resources.files("preflexor_agents") / "data" / "studio" / "team.json"


async def main(args: argparse.Namespace) -> None:
    """Build, run and close the team for each question."""
    config = json.loads((args.team or SHIPPED).read_text(encoding="utf-8"))
    if args.team is None:
        agent = config["config"]["participants"][0]["config"]
        agent["model"] = args.model
        agent["config"] |= {"rounds": 2, "budget_tok": args.budget_tokens}
    for question in args.questions:
        team = load_component(config, expected=BaseGroupChat)
        await Console(team.run_stream(task=question))
        for participant in team._participants:
            await participant.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", default=["How tough is nacre?", "How stiff is squid beak?"])
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--team", type=Path)
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
