"""What differs from the protocol page is counted, bounded, and told without its content."""

import logging

import pytest

from qwen_proxy.upstreams.qwen_web.drift import LOOK_EVERY, LOOKS_AT_FIRST, MAX_NAMES, MAX_SHAPES, OVERFLOW, Drift


def test_a_name_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((5.0, 6.0))
    drift = Drift(lambda: next(times))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            drift.seen("phase", "mood")
    (note,) = drift.snapshot()
    assert (note.kind, note.name, note.count, note.first_at) == ("phase", "mood", 3, 5.0)
    assert len(caplog.records) == 1


def test_names_are_cut_and_made_printable() -> None:
    drift = Drift(lambda: 0.0)
    drift.seen("code", "a\nb\u00e9" + "x" * 100)
    assert drift.snapshot()[0].name == "a?b?" + "x" * 60


def test_names_are_bounded() -> None:
    drift = Drift(lambda: 0.0)
    for number in range(MAX_NAMES + 50):
        drift.seen("code", str(number))
    drift.seen("phase", "late")
    notes = drift.snapshot()
    assert len(notes) == MAX_NAMES + 2
    assert [(note.kind, note.name, note.count) for note in notes[-2:]] == [
        ("code", OVERFLOW, 50),
        ("phase", OVERFLOW, 1),
    ]


def test_a_shape_is_looked_at_first_and_then_now_and_then() -> None:
    drift = Drift(lambda: 0.0)
    looks = [turn for turn in range(1, 3 * LOOK_EVERY + 1) if drift.is_worth_a_look("shape")]
    assert looks == [*range(1, LOOKS_AT_FIRST + 1), LOOK_EVERY, 2 * LOOK_EVERY, 3 * LOOK_EVERY]


def test_shapes_beyond_the_bound_are_always_new() -> None:
    drift = Drift(lambda: 0.0)
    for number in range(MAX_SHAPES):
        drift.is_worth_a_look(number)
    assert all(drift.is_worth_a_look("late") for _ in range(3 * LOOKS_AT_FIRST))
