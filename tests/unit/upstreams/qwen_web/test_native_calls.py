"""Calls that come as frames: snapshots, increments, repetitions."""

import pytest

from qwen_proxy.upstreams.qwen_web.native_calls import NativeCall, NativeCalls

WHOLE = '{"path":"a"}'


@pytest.mark.parametrize(
    "frames",
    [
        ["", '{"path"', WHOLE, WHOLE],  # snapshots, the last one twice
        ["", '{"path"', ':"a"}'],  # increments
        [{"path": "a"}],
        [{"path": "a"}, {"path": "a"}],
        ["", '{"path"', ':"a"}', WHOLE],
    ],
)
def test_the_frames_of_a_call_are_put_together(frames: list[object]):
    calls = NativeCalls(frozenset({"Read"}))
    assert [calls.take("1", "Read", frame) for frame in frames] == [None] * len(frames)
    assert calls.open_name == "Read"
    assert calls.close() == NativeCall("1", "Read", WHOLE)
    assert (calls.open_name, calls.close()) == ("", None)


def test_another_call_ends_the_one_before():
    calls = NativeCalls(frozenset({"Read", "Write"}))
    calls.take("1", "Read", WHOLE)
    assert calls.take("2", "Read", "{}") == NativeCall("1", "Read", WHOLE)
    assert calls.take("2", "Write", "{}") == NativeCall("2", "Read", "{}")
    assert calls.close() == NativeCall("2", "Write", "{}")


def test_a_call_that_is_over_is_not_made_again_by_its_id():
    calls = NativeCalls(frozenset({"Read"}))
    calls.take("1", "Read", WHOLE)
    calls.close()
    assert calls.take("1", "Read", WHOLE) is None and calls.open is None
    calls.take("", "Read", WHOLE)
    calls.close()
    calls.take("", "Read", "{}")
    assert calls.close() == NativeCall("", "Read", "{}")  # without an id nobody knows
