"""A store of two notes, and a model that reads them as it was told to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.store import Store

NOTES = {
    "nacre.md": "# Nacre\n\nNacre is built of aragonite tablets. Its tablets slide, which makes nacre tough.\n",
    "bone.md": "# Bone\n\nBone is built of collagen and apatite. Cracks in bone are deflected by collagen.\n",
    "glue.md": "# Glue\n\nMussel glue sticks by dopa. Dopa binds titanium.\n",
}
FACTS = (
    ("nacre", "consists of", "aragonite tablets", "Nacre is built of aragonite tablets."),
    ("bone", "consists of", "collagen", "Bone is built of collagen and apatite."),
    ("bone", "consists of", "apatite", "Bone is built of collagen and apatite."),
    ("mussel glue", "depends on", "dopa", "Mussel glue sticks by dopa."),
    ("dopa", "is used for", "gold", "Dopa binds gold."),
)


def facts_in(request: Request) -> str:
    """Every fact whose quote is in the prompt, and one that no text bears out."""
    text = request.messages[-1].content
    types = {"subject_type": "material", "object_type": "component"}
    keys = ("subject", "relation", "object", "quote")
    said = [
        dict(zip(keys, f, strict=True)) | types for f in FACTS if f[3] in text or (f[2] == "gold" and "Dopa" in text)
    ]
    return json.dumps({"facts": said})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    for name, text in NOTES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with Store.open(tmp_path / "store.db") as opened:
        opened.ingest([tmp_path / name for name in NOTES])
        yield opened


@pytest.fixture
def reader() -> ScriptedBackend:
    return ScriptedBackend(facts_in, spec="scripted:reader")
