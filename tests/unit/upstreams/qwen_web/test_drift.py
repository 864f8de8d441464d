"""What differs from the protocol page is counted, bounded, and told without its content."""

import logging

import pytest

from qwen_proxy.upstreams.qwen_web.drift import MAX_NAMES, OVERFLOW, Drift


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
