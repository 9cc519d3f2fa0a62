"""Where the time of a run goes, as OpenTelemetry spans; needs opentelemetry-sdk.

Prints each span when it ends, the innermost first. Send them to Jaeger, Phoenix, ... with an exporter of theirs.
"""

import argparse
import asyncio
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from preflexor_agents.autogen import ReflectionGroupChat
from preflexor_agents.config import ReflectConfig


def one_line(span: ReadableSpan) -> str:
    """A span for people."""
    facts = {key.split(".", 1)[1]: value for key, value in (span.attributes or {}).items()}
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    return f"{seconds:8.3f} s  {span.name:14} {facts}\n"


async def main(args: argparse.Namespace) -> None:
    """Ask the team under a tracer provider."""
    os.environ["AUTOGEN_DISABLE_RUNTIME_TRACING"] = "true"  # or AutoGen makes three spans for each piece of text
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    trace.set_tracer_provider(provider)
    config = ReflectConfig(rounds=2, budget_tok=args.budget_tokens)
    team = ReflectionGroupChat(model=args.model, config=config, store="bundled")
    result = await team.run(task=args.question)
    print(result.messages[-1].to_text())
    await team.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="How tough is nacre?")
    parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
    parser.add_argument("--budget-tokens", type=int, default=2000)
    asyncio.run(main(parser.parse_args()))
