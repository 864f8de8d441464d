"""The bench itself: what it calls recovered, refused, lost and false, and that a seed always gives the same corpus."""

from dataclasses import replace

import pytest

from bench.toolbench import shows
from bench.toolbench.corpus import Case, cases, pieces
from bench.toolbench.failures import CLEAN, FORMS, NATIVE, Expected
from bench.toolbench.judging import Read, Result, Tally, alike, judge, page
from bench.toolbench.kit import Arguments
from bench.toolbench.payloads import Chance
from qwen_proxy.simulator.taught import Taught

FIRST: tuple[str, Arguments] = ("Write", {"file_path": "a", "content": "b"})
SECOND: tuple[str, Arguments] = ("Bash", {"command": "ls", "timeout": 1})
CASE = Case(
    1, "taught", "no end", Taught("7f3a", "", "", ""), "[[call x]]\ntext", (FIRST, SECOND), Expected.RECOVER, "Now.\n"
)


def judged(read: Read, expected: Expected = Expected.RECOVER) -> Result:
    return judge(replace(CASE, expected=expected), read)[0]


@pytest.mark.parametrize("expected", list(Expected))
def test_exactly_the_intended_calls_are_recovered(expected: Expected) -> None:
    assert judged(Read((FIRST, SECOND), "Now."), expected) is Result.RECOVERED
    assert judged(Read((FIRST, SECOND), "Now.\n[[end"), expected) is Result.LOST


@pytest.mark.parametrize("calls", [(SECOND, FIRST), (FIRST, FIRST), (("Bash", {"command": "ls", "timeout": True}),)])
def test_any_other_call_is_false(calls: tuple[tuple[str, Arguments], ...]) -> None:
    assert {judged(Read(calls, "Now.", told=("cut",)), expected) for expected in Expected} == {Result.FALSE}


def test_what_cannot_be_recovered_needs_a_word() -> None:
    for expected in (Expected.REFUSE, Expected.EITHER):
        assert judged(Read((FIRST,), "Now.", told=("cut",)), expected) is Result.REFUSED
        assert judged(Read((FIRST,), "Now.", is_open=True), expected) is Result.REFUSED
        assert judged(Read((FIRST,), "Now."), expected) is Result.LOST
        assert judged(Read((), CASE.text), expected) is Result.REFUSED
    assert judged(Read((FIRST,), "Now.", told=("cut",))) is Result.LOST
    assert judged(Read((SECOND,), "Now.", told=("cut",)), Expected.EITHER) is Result.LOST
    assert judged(Read((FIRST, SECOND), "Now.", broken=("no prefix",))) is Result.FALSE


def test_equality_is_that_of_json() -> None:
    assert alike({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not alike({"a": 1}, {"a": True})
    assert not alike({"a": 1}, {"a": 1, "b": 2})
    assert not alike([1], [1, 2])
    assert not alike("1", 1)


def test_the_bars_are_told_by_form_and_failure() -> None:
    tally = Tally()
    clean = replace(CASE, failure=CLEAN)
    for _ in range(99):
        tally.add(CASE, Result.RECOVERED)
        tally.add(clean, Result.RECOVERED)
    tally.add(CASE, Result.LOST)
    assert tally.missed() == []
    tally.add(CASE, Result.FALSE)
    tally.add(clean, Result.LOST)
    assert tally.missed() == ["taught, no end: 2 of 101 lost or false", "taught, clean: 1 lost or false"]
    assert tally.table().splitlines()[-1].split() == ["all", "201", "198", "0", "2", "1"]
    told = page({"seen": tally, "held out": Tally()}).splitlines()
    assert told[2] == "| no end | taught | 101 | 99 | 0 | 1 | 1 | 0 | 0 | 0 | 0 | 0 |"
    assert told[-1].startswith("| **all** | | 201 | 198 | 0 | 2 | 1 |")


def test_a_seed_gives_the_same_cases() -> None:
    one, other = list(cases(5, 1, own=False)), list(cases(5, 1, own=False))
    assert one == other
    assert one != list(cases(6, 1, own=False))
    assert {case.form for case in one} == {*FORMS, NATIVE}
    for case in one:
        assert "".join(pieces(case.text, Chance(1, own=False))) == case.text
        assert (case.failure == CLEAN) or case.text


def test_five_hundred_texts_show_calls() -> None:
    shown = list(shows.shown(1, 2))
    assert len(shown) > 500
    assert len({one.text for one in shown}) > 500
