"""A knowledge store as the memory of a stock AssistantAgent.

At each turn the passages that fit the question stand before it in the model's context, in one block that replaces the
one before. The store holds the bundled notes; name one of your own with --store FILE.
"""

import argparse
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import MemoryQueryEvent

from preflexor_agents.autogen import KnowledgeMemory, LlamaCppClient, OllamaClient


async def main(args: argparse.Namespace) -> None:
    """Ask the assistant; print what it was shown, and its answer."""
    kind, _, name = args.model.partition(":")
    limit = args.budget_tokens
    client = OllamaClient(name) if kind == "ollama" else LlamaCppClient(name or kind, options={"max_tokens": limit})
    memory = KnowledgeMemory(args.store, k=3, budget_tok=600)
    assistant = AssistantAgent("assistant", client, memory=[memory], system_message="Answer, and cite as [1].")
    result = await assistant.run(task=args.question)
    for message in result.messages:
        if isinstance(message, MemoryQueryEvent):
            for found in message.content:
                place = found.metadata or {}
                print(f"[{place['number']}] {place['title']} (score {place['score']:.3f})")
    print(f"answer: {result.messages[-1].to_text()}")
    await memory.close()
    await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="Question: How tough is nacre?")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--store", default="bundled", help="made by: preflexor ingest PATH --store FILE")
    parser.add_argument("--budget-tokens", type=int, default=300)
    asyncio.run(main(parser.parse_args()))
