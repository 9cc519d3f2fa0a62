"""How many sequences are advanced at once."""

from pathlib import Path

import pytest

from preflexor_agents.backends import widths
from preflexor_agents.backends.lookup import DRAFT_TOK, Lookup
from preflexor_agents.backends.pieces import shared_tok
from preflexor_agents.backends.prefixes import SCRATCH_TOK, alike_tok
from preflexor_agents.backends.widths import CANDIDATES, Widths

SLOWER_AT_TWO = Widths({1: 1.0, 2: 2.4, 4: 3.2, 8: 5.0, 16: 7.0})


@pytest.mark.parametrize(("ready", "chosen"), [(1, 1), (2, 1), (3, 1), (4, 4), (6, 6), (8, 8), (11, 11), (16, 16)])
def test_a_width_that_is_slower_than_one_by_one_is_not_chosen(ready: int, chosen: int):
    assert SLOWER_AT_TWO.choose(ready) == chosen


def test_all_are_advanced_as_long_as_nothing_is_known():
    assert Widths().choose(7) == 7


def test_a_width_that_never_pays_is_never_chosen():
    assert {Widths({1: 1.0, 2: 3.0, 4: 5.0}).choose(ready) for ready in range(1, 17)} == {1}


def test_a_width_that_promises_a_few_percent_is_not_worth_its_risk():
    """What the noise of a timing may feign."""
    assert Widths({1: 1.0, 2: 1.9}).choose(2) == 1
    assert Widths({1: 1.0, 2: 1.7}).choose(2) == 2


def test_the_best_of_several_steps_counts_for_every_width():
    calls: dict[int, int] = {}
    timing = widths.timed(lambda width: calls.update({width: calls.get(width, 0) + 1}) is None, threads=0)
    measured = timing.widths
    assert set(measured.seconds) == set(calls) == set(CANDIDATES) and min(calls.values()) > 1
    assert all(seconds > 0 for seconds in measured.seconds.values())


def test_a_timing_that_was_interrupted_counts_for_nothing():
    assert widths.timed(lambda width: width < 8, threads=0) == (Widths(), False)


def test_a_timing_whose_threads_had_to_wait_for_a_processor_is_not_worth_keeping(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(1000))
    monkeypatch.setattr(widths.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(widths.time, "process_time", lambda: 1.5 * next(clock))
    found = [widths.timed(lambda _: True, threads=threads).undisturbed for threads in (0, 1, 2)]
    assert found == [True, True, False]


def test_a_timing_fits_into_the_places_made_for_it():
    assert widths.ROUNDS * len(CANDIDATES) <= SCRATCH_TOK


def test_timings_are_kept_for_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(widths, "_file", lambda: tmp_path / "new" / "widths.json")
    widths.remember("a", SLOWER_AT_TWO)
    assert widths.recall("a") == SLOWER_AT_TWO and widths.recall("b") == Widths()
    for n in range(100):
        widths.remember(str(n), Widths({1: 1.0}))
    assert widths.recall("a") == Widths() and widths.recall("99").seconds == {1: 1.0}
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1}', '{"a": {"x": 1}}', '{"a": {"2": 1.0}}', '{"a": {"1": -1}}']
)
def test_a_damaged_file_of_timings_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(widths, "_file", lambda: tmp_path / "widths.json")
    (tmp_path / "widths.json").write_text(text, encoding="utf-8")
    assert widths.recall("a") == Widths()
    widths.remember("a", SLOWER_AT_TWO)
    assert widths.recall("a") == SLOWER_AT_TWO


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(widths, "_file", lambda: tmp_path / "file" / "widths.json")
    widths.remember("a", SLOWER_AT_TWO)
    assert widths.recall("a") == Widths()


def test_the_words_after_the_latest_like_place_are_guessed():
    text = [1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3]
    assert Lookup().draft(text[:-1], text[-1]) == text[9 : 9 + DRAFT_TOK]
    assert Lookup().draft([1, 2, 3], 4) == Lookup().draft([1], 2) == Lookup().draft([], 1) == []
    assert Lookup().draft([5, 5, 5], 5) == [5]


def test_guesses_are_the_same_whether_the_text_came_at_once_or_token_by_token():
    text = [n * n % 7 for n in range(60)]
    grown = Lookup()
    assert [grown.draft(text[:n], text[n]) for n in range(60)] == [Lookup().draft(text[:n], text[n]) for n in range(60)]


def test_as_many_tokens_are_guessed_as_the_hits_and_the_widths_make_worth_while():
    free, dear = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0}.__getitem__, Widths({1: 1.0, 2: 2.4, 4: 3.9}).cost
    lookup = Lookup()
    assert (lookup.length(free), lookup.length(dear)) == (7, 0)
    assert lookup.length(Widths({1: 1.0, 2: 1.5, 4: 1.8, 8: 4.6}).cost) == 3
    for _ in range(10):
        lookup.learn(3, 3)
    assert lookup.length(Widths({1: 1.0, 2: 1.9, 4: 3.0, 8: 4.0}).cost) == 7
    for _ in range(80):
        lookup.learn(7, 0)
    assert lookup.length(Widths({1: 1.0, 2: 1.5}).cost) == 0
    assert lookup.length(Widths().cost) == 0


def test_guesses_that_were_not_tried_are_learnt_from():
    text = [1, 2, 3, 4, 5, 1, 2, 3, 4, 9, 9]
    lookup = Lookup()
    for n in range(len(text)):
        lookup.draft(text[:n], text[n])
    assert (lookup.tried, lookup.right) == (2, 1)


def test_what_stands_behind_a_wrong_guess_says_nothing():
    lookup = Lookup()
    lookup.learn(7, 2)
    assert (lookup.tried, lookup.right) == (3, 2)


def test_whole_pieces_are_shared_and_the_last_token_never():
    text = list(range(300))
    shared = [shared_tok(text[:n], text) for n in (0, 63, 64, 130, 299, 300)]
    assert shared == [0, 0, 64, 128, 256, 256]
    assert shared_tok(text, text[:256]) == 192
    assert shared_tok([*text[:100], 7, *text[101:]], text) == 64
    assert shared_tok(text, []) == 0


def test_sixteens_are_taken_over_and_eight_tokens_are_left_to_be_computed():
    text = list(range(300))
    assert [alike_tok(text, text[:n]) for n in (0, 1, 23, 24, 263, 264, 300)] == [0, 0, 0, 16, 240, 256, 288]
    assert alike_tok([*text[:100], 7, *text[101:]], text) == 96
