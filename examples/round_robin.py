"""A reflecting agent in a round robin with an ordinary assistant.

The agent thinks, is criticised, revises and judges by itself; its peer hears the answer only, and says it again (nano
can do no more). What happens in between is streamed to whoever watches the team.
"""

import argparse
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat

from preflexor_agents.autogen import LlamaCppClient, OllamaClient, ReflectAgent, watched
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import RoundFinished, StepStarted


def client_of(spec: str, max_tokens: int) -> LlamaCppClient | OllamaClient:
    """A chat completion client for nano, gguf:PATH or ollama:NAME."""
    kind, _, name = spec.partition(":")
    if kind == "ollama":
        return OllamaClient(name, options={"num_predict": max_tokens})
    return LlamaCppClient(name or kind, options={"max_tokens": max_tokens})


async def main(args: argparse.Namespace) -> None:
    """Ask the team, and print what it does."""
    config = ReflectConfig(rounds=2, budget_tok=args.budget_tokens)
    reflect = ReflectAgent("reflect", args.model, config=config, store="bundled")
    client = client_of(args.model, args.budget_tokens)
    peer = AssistantAgent("peer", client, system_message="You are a helpful assistant.")
    team = RoundRobinGroupChat([reflect, peer], max_turns=2)
    async for message in team.run_stream(task=args.question):
        match watched(message):
            case StepStarted(round=n, role=role, stage=stage):
                print(f"round {n}: {role}, {stage}")
            case RoundFinished(round=n, reason=reason):
                print(f"round {n} is over: {reason}")
        if isinstance(message, TextMessage):
            print(f"{message.source}: {message.content}")
    await reflect.close()
    await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="How tough is nacre?")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
