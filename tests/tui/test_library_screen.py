"""The library on the screen: documents, chunks, searching, adding."""

import threading
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, OptionList

from preflexor_agents.store import IngestProgress, Store
from preflexor_agents.store.browsing import documents
from tests.tui import chatting, paging


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.at_home(monkeypatch, tmp_path)


async def test_documents_and_the_chunks_of_the_chosen_one_are_shown(home: Path) -> None:
    paging.fill_store(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "library")
        text = chatting.shown(pilot)
        assert "3 documents" in text and "Gecko setae" in text and "van der Waals" in text
        await pilot.press("down")
        await paging.settled(pilot)
        assert "4.5 MPa" in chatting.shown(pilot)


async def test_a_search_shows_both_ranks_and_scores(home: Path) -> None:
    paging.fill_store(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "library")
        await pilot.press("slash")
        page.query_one("#library-query", Input).value = "toughness of nacre"
        await pilot.press("enter")
        await paging.settled(pilot)
        text = " ".join(chatting.shown(pilot).split())
        assert "words rank 1 (" in text and "meaning rank 1 (" in text


async def test_a_folder_is_added_and_what_failed_is_listed(home: Path) -> None:
    notes = paging.write_notes(home / "notes")
    (notes / "empty.md").write_text("", encoding="utf-8")
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "library")
        assert "Press i" in chatting.shown(pilot)
        await pilot.press("i")
        page.query_one("#library-path", Input).value = "notes"
        await pilot.press("enter")
        await paging.settled(pilot)
        assert page.query_one(DataTable).row_count == 3
        text = " ".join(chatting.shown(pilot).split())
    assert "3 added, 1 failed" in text and "empty.md" in text, text


async def test_adding_stops_between_documents_and_keeps_what_is_done(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paging.write_notes(home / "notes")
    reached, go_on = threading.Event(), threading.Event()
    ingest = Store.ingest

    def halting(self: Store, paths, *, progress, **rest):  # type: ignore[no-untyped-def]
        def heard(now: IngestProgress) -> None:
            if now.outcome is not None:
                reached.set()
                go_on.wait(20)
            progress(now)

        return ingest(self, paths, progress=heard, **rest)

    monkeypatch.setattr(Store, "ingest", halting)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "library")
        await pilot.press("i")
        page.query_one("#library-path", Input).value = "notes"
        await pilot.press("enter")
        await chatting.until(pilot, reached.is_set)
        await pilot.press("x")
        go_on.set()
        await paging.settled(pilot)
        assert "stopped; the documents that were done are in the store" in chatting.shown(pilot)
    assert len(documents(home / ".local/share/preflexor/store.db")) == 1


async def test_a_store_that_cannot_be_read_is_said_and_the_screen_stays(home: Path) -> None:
    path = home / ".local" / "share" / "preflexor" / "store.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no store at all")
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "library")
        assert "is no SQLite file" in " ".join(chatting.shown(pilot).split())
        await pilot.press("escape")
        assert pilot.app.screen is chatting.chat(pilot)


async def test_control_characters_of_a_document_are_shown_as_what_they_are(home: Path) -> None:
    (home / "notes").mkdir()
    text = "# Evil \x1b[31m[bold]title[/bold]\n\nIt says " + "words " * 200 + "\x1b[2J and [link=x]more[/link].\n"
    (home / "notes" / "evil.md").write_text(text, encoding="utf-8")
    path = home / ".local" / "share" / "preflexor" / "store.db"
    path.parent.mkdir(parents=True)
    with Store.open(path) as store:
        store.ingest([home / "notes"])
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "library")
        assert page.query_one(OptionList).option_count > 0
        text = chatting.shown(pilot)
    assert "\x1b" not in text and "[bold]title[/bold]" in text and "[link=x]" in text


async def test_a_source_that_is_gone_is_said(home: Path) -> None:
    paging.fill_store(home)
    (home / "notes" / "gecko.md").unlink()
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "library")
        await pilot.press("o")
        assert "is not there any more" in " ".join(chatting.shown(pilot).split())
