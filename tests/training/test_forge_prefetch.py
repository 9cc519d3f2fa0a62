"""The next refresh is made in another thread: its rows are handed out, it can be cancelled, and it goes on later."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Backend, Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.errors import BackendError, InputError
from preflexor_training.forge.calls import BackendGone
from preflexor_training.forge.opening import Order
from preflexor_training.forge.prefetch import Prefetch
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who
from tests.training.forging import AT_ONCE, run, speak, timeless
from tests.training.teaching import library

ALL: dict[Who, str] = {"teacher": "scripted", "student": "scripted", "judge": "scripted"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prefetch") / "store.db"
    library(path).close()
    return path


def order(store: Path, folder: Path, *, rows: int = 6, models: dict[Who, str] = ALL) -> Order:
    return Order(
        settings=ForgeSettings(rows=rows), folder=folder, store=str(store), models=models, patience=AT_ONCE, slots=4
    )


def opener(script: Callable[[Request], Reply] = speak) -> Callable[[str], Awaitable[Backend]]:
    async def opened(spec: str) -> Backend:
        return ScriptedBackend(script, spec=spec)

    return opened


def whole(store: Path, folder: Path) -> None:
    with library(store) as opened:
        run(opened, folder, rows=6)


def test_rows_are_handed_out_in_order_and_the_end_is_reported(store: Path, tmp_path: Path) -> None:
    with Prefetch.of_rows(order(store, tmp_path / "a"), open_model=opener()) as made:
        numbers = [row.number for row in made.rows()]
        report = made.wait()
    assert numbers == list(range(6)) and report is not None and report.stopped == "rows"
    with Prefetch.of_rows(order(store, tmp_path / "a"), open_model=opener()) as again:
        assert [row.number for row in again.rows()] == numbers, "rows of the log come first"


def test_a_cancelled_run_ends_at_once_and_goes_on_later(store: Path, tmp_path: Path) -> None:
    begun = threading.Event()

    def telling(request: Request) -> Reply:
        begun.set()
        return speak(request)

    made = Prefetch.of_rows(order(store, tmp_path / "run", rows=400), open_model=opener(telling))
    assert begun.wait(30)
    made.cancel()
    made.cancel()
    assert made.wait() is None and not any("forge" in thread.name for thread in threading.enumerate())
    assert [row.number for row in made.rows()] == list(range(len(timeless(tmp_path / "run"))))


def test_what_ends_a_run_is_raised_where_its_rows_are_taken(store: Path, tmp_path: Path) -> None:
    gone = opener(lambda _: BackendError("no server"))
    with (
        Prefetch.of_rows(order(store, tmp_path), open_model=gone) as made,
        pytest.raises(BackendGone, match="scripted is gone"),
    ):
        list(made.rows())
    with (
        Prefetch.of_rows(order(tmp_path / "none.db", tmp_path / "x"), open_model=opener()) as made,
        pytest.raises(InputError, match=r"none\.db"),
    ):
        made.wait()


def test_good_sides_made_ahead_leave_only_the_student_to_be_asked(store: Path, tmp_path: Path) -> None:
    whole(store, tmp_path / "whole")
    without: dict[Who, str] = {"teacher": "scripted", "judge": "scripted"}
    with Prefetch.of_good_sides(order(store, tmp_path / "run", models=without), open_model=opener()) as ahead:
        ahead.wait()
    with Prefetch.of_rows(order(store, tmp_path / "run"), open_model=opener()) as made:
        report = made.wait()
    assert report is not None and report.spending.paid == 6 and report.spending.cached == 54
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
