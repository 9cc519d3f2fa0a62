"""Your own agent as the critic: any ChatAgent, with its own instructions, tools and memory.

It gets the question, the thinking and the evidence of each round, and nothing else of the chat. This one is an
AssistantAgent with a calculator that checks numbers.
"""

import argparse
import asyncio

from autogen_agentchat.agents import AssistantAgent

from preflexor_agents.autogen import LlamaCppClient, OllamaClient, ReflectAgent, watched
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import StepFinished


def ratio(a: float, b: float) -> float:
    """How many times b fits into a."""
    return a / b


async def main(args: argparse.Namespace) -> None:
    """Ask the agent; print the critiques and the answer."""
    kind, _, name = args.model.partition(":")
    client = OllamaClient(name) if kind == "ollama" else LlamaCppClient(name or kind, options={"max_tokens": 100})
    critic = AssistantAgent(
        "checker",
        client,
        tools=[ratio],
        reflect_on_tool_use=True,
        system_message="Check the numbers. End with 'Verdict: sound' or 'Verdict: revise'.",
    )
    agent = ReflectAgent(
        "reflect",
        args.model,
        roles={"critic": critic},
        config=ReflectConfig(rounds=2, budget_tok=args.budget_tokens),
        store="bundled",
    )
    result = await agent.run(task=args.question)
    for message in result.messages:
        match watched(message):
            case StepFinished(stage="critique", model=model, answer=critique):
                print(f"critique by {model}: {critique}")
    print(f"answer: {result.messages[-1].to_text()}")
    await agent.close()
    await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="How tough is nacre?")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
