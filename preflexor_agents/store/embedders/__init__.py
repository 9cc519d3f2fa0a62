"""Embedders: what turns text into vectors, each named by a SPEC. Nothing heavy is imported before the first use."""

from pathlib import Path

from preflexor_agents import openai_endpoint
from preflexor_agents.errors import InputError
from preflexor_agents.store.embedders.embedding import Embedder, Vectors
from preflexor_agents.store.embedders.gguf import GgufEmbedder
from preflexor_agents.store.embedders.hash import HashEmbedder
from preflexor_agents.store.embedders.ollama import OllamaEmbedder
from preflexor_agents.store.embedders.openai import OpenAIEmbedder
from preflexor_agents.store.embedders.sentence_transformers import SentenceTransformerEmbedder

__all__ = [
    "SPECS",
    "Embedder",
    "GgufEmbedder",
    "HashEmbedder",
    "OllamaEmbedder",
    "OpenAIEmbedder",
    "SentenceTransformerEmbedder",
    "Vectors",
    "open_embedder",
]

SPECS = "hash, ollama:NAME, gguf:PATH, sentence-transformers:NAME_OR_PATH or openai:NAME@BASE_URL"


def open_embedder(spec: str) -> Embedder:
    """The embedder that SPEC names. Models are loaded and servers asked at the first use.

    Raises:
        InputError: the SPEC is none, or a file of a model does not exist (ModelError).
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "hash" if not rest:
            return HashEmbedder()
        case "ollama" if rest:
            return OllamaEmbedder(rest)
        case "gguf" if rest:
            return GgufEmbedder(Path(rest).expanduser())
        case "sentence-transformers" if rest:
            return SentenceTransformerEmbedder(rest)
        case "openai" if rest.partition("@")[0]:
            return OpenAIEmbedder(*openai_endpoint.split(rest))
        case _:
            raise InputError(f"embedder {spec!r} is unknown; use {SPECS}")
