"""The bars of `make toolbench` that depend on no clock, over a small corpus of its own seed."""

from collections import Counter
from functools import cache, partial

from bench.toolbench import shows
from bench.toolbench.__main__ import clean_silence, run_corpus
from bench.toolbench.corpus import Case, pieces
from bench.toolbench.cost import cut
from bench.toolbench.draft import TAUGHT
from bench.toolbench.failures import CLEAN
from bench.toolbench.judging import Result, Tally
from bench.toolbench.payloads import Chance, large
from bench.toolbench.reading import FORM, call_text, large_call, read
from bench.toolbench.silence import Silence, silence
from qwen_proxy.simulator.roles import Call

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


def test_every_read_of_a_raw_value_is_followed_by_an_event() -> None:
    call = large_call(large(20_000))
    text = call_text(TAUGHT, call)
    found = silence(text, [call], FORM, cut(text))
    assert (found.silent, found.lacking) == (0, 1)
    assert found.followed > 900


def test_what_no_event_follows_may_be_a_marker_or_lacks_a_parameter() -> None:
    for size in (1, 4, 20):
        found = clean_silence(partial(cut, size=size), 10)
        assert found.silent == 0
        assert found.followed > 100


def test_reads_are_told_apart_by_what_follows_them() -> None:
    call = Call("Bash", {"command": "echo a\n[x"})
    text = call_text(TAUGHT, call)
    start = text.index("echo")
    pieces = [text[:start], "ec", "ho a", "\n", "[", "x", text[start + len("echo a\n[x") :]]
    assert silence(text, [call], FORM, pieces) == Silence(followed=3, waiting=2)


def test_a_read_that_nothing_follows_is_seen() -> None:
    """As behind a value of which any beginning may turn out to be none of the choices."""
    call = Call("search_code", {"query": "q", "filters": {"languages": []}, "kind": "exact"})
    text = call_text(TAUGHT, call)
    assert silence(text, [call], FORM, cut(text, 1)) == Silence(lacking=1, silent=5)
