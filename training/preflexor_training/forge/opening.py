"""Opens what a run needs by name: the store, and a backend for each model; and lets it all go at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from preflexor_agents.backends import local_file, open_backend
from preflexor_agents.backends.base import Backend
from preflexor_agents.budget import Budget
from preflexor_agents.store.bundled import open_named
from preflexor_training.forge.calls import Model, Patience
from preflexor_training.forge.folder import ModelMark, file_mark
from preflexor_training.forge.run import ENDLESS, SLOTS, Work
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who

SMALL_BYTES = 64 << 20
"""Weights that about fit into a processor's cache."""
Open = Callable[[str], Awaitable[Backend]]
"""Opens the backend of a SPEC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run by the names of what it needs, so that another thread or machine can open it."""

    settings: ForgeSettings
    folder: Path
    store: str = "bundled"
    """Path of the store, or `bundled` for the notes of the package."""
    models: Mapping[Who, str] = field(default_factory=lambda: {"teacher": "nano", "student": "nano", "judge": "nano"})
    """SPEC of each."""
    adapter_sha256: str = ""
    """Of the adapter that the student has, where its SPEC does not say."""
    slots: int = SLOTS
    budget: Budget = ENDLESS
    patience: Patience = field(default_factory=Patience)


@asynccontextmanager
async def opened(order: Order, *, open_model: Open = open_backend) -> AsyncIterator[Work]:
    """The work of an order; one SPEC is opened once.

    Raises:
        ModelError: a SPEC cannot be used.
        BackendError: a server does not answer.
        StoreError: the store cannot be used.
    """
    with closing(await asyncio.to_thread(open_named, order.store)) as store:
        async with _backends(order.models, open_model) as backends:
            yield Work(
                settings=order.settings,
                folder=order.folder,
                store=store,
                models={
                    who: Model(backend=backends[spec], adapter_sha256=order.adapter_sha256 if who == "student" else "")
                    for who, spec in order.models.items()
                },
                names=marks(order),
                slots=order.slots,
                rows_at_once=rows_at_once(order.models.values()),
                budget=order.budget,
                patience=order.patience,
            )


@asynccontextmanager
async def _backends(models: Mapping[Who, str], open_model: Open) -> AsyncIterator[Mapping[str, Backend]]:
    found: dict[str, Backend] = {}
    try:
        for spec in models.values():
            if spec not in found:
                found[spec] = await open_model(spec)
        yield found
    finally:
        await asyncio.gather(*(backend.aclose() for backend in found.values()))


def rows_at_once(specs: Iterable[str]) -> int | None:
    """How many rows to make at once with these models; None if there is no reason for a limit.

    To compute side by side saves reading the weights, and with weights as small as nano's there is nothing to save. But
    each step looks at all prompts in the cache: eight rows at once take nano twice the time of one after the other,
    whose calls begin alike.
    """
    files = [file for spec in specs if (file := local_file(spec)) is not None]
    return 1 if any(file.is_file() and file.stat().st_size <= SMALL_BYTES for file in files) else None


def marks(order: Order) -> dict[Who, ModelMark]:
    """Which model has which part, by the order alone. Raises ModelError, InputError: a file is missing."""
    found: dict[Who, ModelMark] = {}
    for who, spec in order.models.items():
        file = local_file(spec)
        found[who] = ModelMark(
            spec=spec.strip(),
            adapter_sha256=order.adapter_sha256 if who == "student" else "",
            file_mark="" if file is None else file_mark(file),
        )
    return found
