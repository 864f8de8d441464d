"""The bars of `make toolbench` that depend on no clock, over a small corpus of its own seed."""

from collections import Counter
from functools import cache

from bench.toolbench import shows
from bench.toolbench.__main__ import run_corpus
from bench.toolbench.corpus import Case, pieces
from bench.toolbench.cost import cut
from bench.toolbench.failures import CLEAN
from bench.toolbench.judging import Result, Tally
from bench.toolbench.payloads import Chance, large
from bench.toolbench.reading import call_text, read, silence
from qwen_proxy.toolcalls.reading import ReadingOptions

SEED = 42


@cache
def small() -> tuple[Tally, list[tuple[Case, Result, str]]]:
    return run_corpus(SEED, 2, own=False)


def test_damaged_calls_are_read_back_or_refused_with_a_word() -> None:
    tally, wrong = small()
    counts = sum(tally.counts.values(), Counter[Result]())
    told = [f"{case.name}: {why[:300]}" for case, _, why in wrong]
    assert counts.total() > 500
    assert counts[Result.FALSE] == 0, told
    assert counts[Result.LOST] <= 0.01 * counts.total(), told


def test_nothing_is_lost_of_what_is_clean() -> None:
    clean = [counts for (_, failure), counts in small()[0].counts.items() if failure == CLEAN]
    assert len(clean) > 8
    assert {result for counts in clean for result in counts} == {Result.RECOVERED}


def test_a_text_that_shows_a_call_is_no_call() -> None:
    chance = Chance(SEED)
    for shown in shows.shown(SEED, 1):
        found = read(shown.text, pieces(shown.text, chance), nonce=shows.NONCE)
        assert not found.calls, shown.style
        assert not found.is_open, shown.style


def test_every_read_of_a_raw_value_is_followed_by_an_event_once_the_call_is_committed() -> None:
    pieces = cut(call_text("taught", large(20_000)))
    found = silence(pieces)
    assert found.silent == 0
    assert found.held * 20 < 9_000
    at_once = silence(pieces, ReadingOptions(commit_characters=0))
    assert (at_once.held, at_once.silent) == (0, 0)
    assert at_once.reads > 900
