"""The whole reflection team as a tool of another agent, which decides what to ask it.

nano is too small to call tools by itself, so its boss speaks from a script unless --boss names a model that can.
"""

import argparse
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.tools import TeamTool
from autogen_agentchat.ui import Console
from autogen_core import FunctionCall
from autogen_core.models import ChatCompletionClient, CreateResult, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

from preflexor_agents.autogen import OllamaClient, ReflectionGroupChat
from preflexor_agents.config import ReflectConfig

TOOLS = ModelInfo(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=True)


def script() -> ChatCompletionClient:
    """A boss that asks the team one question."""
    call = FunctionCall(id="1", name="reflection", arguments='{"task": "How tough is nacre?"}')
    usage = RequestUsage(prompt_tokens=0, completion_tokens=0)
    reply = CreateResult(finish_reason="function_calls", content=[call], usage=usage, cached=False)
    return ReplayChatCompletionClient([reply], model_info=TOOLS)


async def main(args: argparse.Namespace) -> None:
    """Let the boss ask the team."""
    config = ReflectConfig(rounds=2, budget_tok=args.budget_tokens)
    team = ReflectionGroupChat(model=args.model, config=config, store="bundled")
    tool = TeamTool(team, name="reflection", description="Answers hard questions.", return_value_as_last_message=True)
    client = OllamaClient(args.boss) if args.boss else script()
    boss = AssistantAgent("boss", client, tools=[tool], system_message="Ask the reflection team.")
    await Console(boss.run_stream(task=args.task))
    await team.close()
    await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", default="Find out how tough nacre is.")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--boss", help="name of an Ollama model that calls tools")
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
