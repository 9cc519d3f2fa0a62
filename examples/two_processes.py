"""A reflecting agent in a process of its own, asked through AutoGen's gRPC runtime; needs autogen-ext[grpc].
This process is the host and starts a worker, this file again, which has the model. Works across machines as well.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass

from autogen_core import AgentId, MessageContext, RoutedAgent, rpc, try_get_known_serializers_for_type
from autogen_ext.runtimes.grpc import GrpcWorkerAgentRuntime, GrpcWorkerAgentRuntimeHost

from preflexor_agents.autogen import ReflectAgent


@dataclass
class Words:
    text: str


class Reflector(RoutedAgent):
    @rpc
    async def on_question(self, message: Words, ctx: MessageContext) -> Words:
        agent = ReflectAgent("reflect", args.model, store="bundled")
        return Words((await agent.run(task=message.text)).messages[-1].to_text())


async def main() -> None:
    host = None if args.worker else GrpcWorkerAgentRuntimeHost(args.address)
    if host is not None:
        host.start()
    runtime = GrpcWorkerAgentRuntime(args.address)
    runtime.add_message_serializer(try_get_known_serializers_for_type(Words))
    await runtime.start()
    if host is None:
        await Reflector.register(runtime, "reflector", lambda: Reflector("Answers questions."))
        print("ready", flush=True)
        return await runtime.stop_when_signal()
    command = (sys.executable, __file__, "--worker", *sys.argv[1:])
    worker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        await worker.stdout.readline()
        answer = await runtime.send_message(Words(args.question), AgentId("reflector", "default"))
        print(f"process {worker.pid} answers: {answer.text}")
    finally:
        worker.terminate()
        await asyncio.gather(worker.wait(), runtime.stop())
        await host.stop()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question", nargs="?", default="How tough is nacre?")
parser.add_argument("--model", default="nano", help="nano, gguf:PATH or ollama:NAME")
parser.add_argument("--address", default="127.0.0.1:50951", help="of the host")
parser.add_argument("--worker", action="store_true", help="be the worker")
args = parser.parse_args()
asyncio.run(main())
