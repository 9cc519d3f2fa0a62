"""A small model writes, a bigger one criticises and judges.

Every role of the group chat is an agent of its own, named after its role; what is not among the participants is
played by `model`. With Ollama: --model ollama:qwen3:1.7b --critic ollama:qwen3:8b
"""

import argparse
import asyncio

from preflexor_agents.autogen import ReflectionGroupChat, RoleAgent, watched
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import RoundFinished, RunFinished, StepFinished


async def main(args: argparse.Namespace) -> None:
    """Ask the team; print who said what, with which model, and what was decided."""
    team = ReflectionGroupChat(
        [RoleAgent("critic", args.critic), RoleAgent("judge", args.critic)],
        model=args.model,
        config=ReflectConfig(rounds=2, budget_tok=args.budget_tokens),
        store="bundled",
    )
    async for message in team.run_stream(task=args.question):
        match watched(message):
            case StepFinished(role=role, model=model, answer=answer, thinking=thinking, usage=usage):
                print(f"{role} ({model}, {usage.generated} tokens): {answer or thinking}")
            case RoundFinished(round=n, accepted=accepted, reason=reason):
                print(f"round {n} {'accepted' if accepted else 'not accepted'}: {reason}")
            case RunFinished(answer=answer, stop_reason=stop_reason):
                print(f"\n{answer or 'No answer.'}\n({stop_reason})")
    await team.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="How tough is nacre?")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--critic", default="nano", help="who criticises and judges")
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
