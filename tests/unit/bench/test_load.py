import itertools

from hypothesis import given
from hypothesis import strategies as st

from bench.load import Client, Recorder, pace
from bench.upstream import Pace, events_at

REPLY = b"HTTP/1.1 200 OK\r\n\r\n" + events_at(12, 3, 0) + events_at(34, 4, 100) + b"0\r\n\r\n"


@given(st.lists(st.integers(17, len(REPLY) - 1), unique=True))
def test_events_are_counted_once_wherever_reads_end(cuts: list[int]):
    recorder = Recorder()
    client = Client(recorder)
    for start, end in itertools.pairwise([0, *sorted(cuts), len(REPLY)]):
        client.data_received(REPLY[start:end])
    assert recorder.events == 7
    assert recorder.failures == []


def test_the_upstream_reads_the_pace_that_the_load_writes():
    body = pace(4.0, 20, 500, 16384).encode()
    assert Pace.read(b'{"content": "' + body + b'"}') == Pace(80, 50_000, 500, 16384)
    assert Pace.read(b'{"content": "hello"}') == Pace()


def test_a_burst_holds_the_same_events_in_any_chunks():
    assert events_at(5, 500, 0).count(b"@0000000000000005") == 500
    assert events_at(5, 500, 1 << 20).count(b"@0000000000000005") == 500
