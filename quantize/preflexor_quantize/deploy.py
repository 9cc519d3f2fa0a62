"""A GGUF file as a model of an Ollama server: upload, create, ask."""

import re
from contextlib import suppress
from typing import NamedTuple

import httpx
import ollama

from preflexor_agents.backends.ollama_model import find_model, twins
from preflexor_agents.backends.ollama_server import FAILURES, connect, connect_plain, failure, quick, server_url
from preflexor_agents.errors import BackendError, InputError, ModelError, PreflexorError
from preflexor_quantize.files import Watch, Written
from preflexor_quantize.modelfile import Modelfile, OpenModel
from preflexor_quantize.proof import Finding, prove, question_tok
from preflexor_quantize.upload import digest, send

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(rf"({_PART}/){{0,2}}{_PART}(:{_PART})?")
FILE_NAME = "model.gguf"
"""What the server is told the file is called."""


class Deployed(NamedTuple):
    """An Ollama model that was made, and what looking at it showed."""

    name: str
    """Where it is: under a name of its own if it was to replace another one and does not work."""
    url: str
    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether nothing was found wrong."""
        return all(finding.ok is not False for finding in self.findings)


async def deploy(
    model: OpenModel, file: Modelfile, name: str, *, replace: bool, watch: Watch, url: str | None = None
) -> Deployed:
    """Make an Ollama model of an opened GGUF file, and prove it by a question.

    Args:
        model: the opened file.
        file: what to tell Ollama about it.
        name: the model's name there.
        replace: take the place of a model of that name, once the new one is proven.
        watch: told how far it has come.
        url: the server; by default the one of OLLAMA_HOST, or of this machine.

    Raises:
        InputError: the name is none, or taken; the context cannot hold a question.
        BackendError: no server answers, it went away, or it refuses the model.
        PreflexorError: a disk is full, or the file changed meanwhile.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for an Ollama model; use letters, digits, '-', '_', '.' and one ':'")
    needed = question_tok(model)
    if needed >= file.context_tok:
        raise InputError(f"a context of {file.context_tok} tokens cannot hold the question that proves it ({needed})")
    url = url or server_url()
    async with connect(url) as client, connect_plain(url) as http:
        taken = await _is_taken(client, name, url=url)
        if taken and not replace:
            raise InputError(f"Ollama at {url} has a model {name!r} already; take another name, or add --replace")
        sha256 = await digest(model.file.path, watch)
        if not await send(http, model.file.path, sha256, watch):
            watch(Written("Ollama has the file already", 0, 0))
        fresh = (f"{name}-unproven" if ":" in name else f"{name}:unproven") if taken else name
        await _create(client, fresh, sha256, file, url=url, watch=watch)
        await _unload(client, fresh, url=url, watch=watch)
        watch(Written("asking a question", 0, 0))
        made = Deployed(fresh, url, tuple(await prove(client, http, fresh, model=model, file=file)))
        if fresh == name or not made.works:
            return made
        async with quick(url, name):
            await client.copy(fresh, name)
            await client.delete(fresh)
    return made._replace(name=name)


async def _is_taken(client: ollama.AsyncClient, name: str, *, url: str) -> bool:
    async with quick(url, name):
        names = {(m.model or "").casefold() for m in (await client.list()).models}
    return (name if ":" in name else f"{name}:latest").casefold() in names


async def _create(
    client: ollama.AsyncClient, name: str, sha256: str, file: Modelfile, *, url: str, watch: Watch
) -> None:
    said = ""
    try:
        statuses = await client.create(
            name,
            files={FILE_NAME: f"sha256:{sha256}"},
            template=file.template,
            system=file.system or None,
            parameters=file.parameters(),
            stream=True,
        )
        async for status in statuses:
            said = status.status or ""
            watch(Written(said, 0, 0))
    except ollama.ResponseError as e:
        reason = " ".join(e.error.split())[:300]
        if "no space left" in reason:
            raise PreflexorError(f"the disk of the Ollama server is full ({reason}); make room and repeat") from e
        raise BackendError(f"Ollama could not make {name}: {reason}") from e
    except (*FAILURES, TypeError) as e:
        if isinstance(e, httpx.TransportError) and not isinstance(e, httpx.ConnectError):
            lost = f"the connection to Ollama at {url} broke while it made {name}; repeat the command"
            raise BackendError(lost) from e
        raise failure(e, url=url, name=name) from e
    if said != "success":
        raise BackendError(f"Ollama at {url} ended without having made {name}; its last word was {said!r}")


async def _unload(client: ollama.AsyncClient, name: str, *, url: str, watch: Watch) -> None:
    """Let go of the model's last version, and of loaded models with the same weights and another template.

    Ollama would serve the new model from their process, through their template (seen on a server of 2026-08).
    """
    with suppress(ModelError):
        found = await find_model(client, name, url=url)
        for other in (name, *await twins(client, found, url=url)):
            if other != name:
                watch(Written(f"unloading {other}, which has the same weights", 0, 0))
            try:
                await client.chat(other, [], keep_alive=0)
            except FAILURES as e:
                raise failure(e, url=url, name=other) from e
