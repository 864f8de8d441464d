"""What crosses the channel arrives as it was sent, wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.workers.messages import (
    MAX_FRAME_BYTES,
    DriftCount,
    DriftSeen,
    Frames,
    FromSupervisor,
    FromWorker,
    Ready,
    Retire,
    Survey,
    Surveyed,
    SurveyWanted,
    WorkerReport,
    encode,
    supervisor_decoder,
    worker_decoder,
)

DRIFT = DriftCount(kind="phase", name="odd", count=3, first_at=1.0)
SURVEY = Survey(
    workers=(WorkerReport(slot=0, pid=1, state="ready", uptime_seconds=2.0, memory_bytes=3),),
    drift=(DRIFT,),
)
FROM_WORKER: list[FromWorker] = [Ready(), SurveyWanted(7), DriftSeen((DRIFT,))]
FROM_SUPERVISOR: list[FromSupervisor] = [Surveyed(4, SURVEY), Retire(1800.0)]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_messages_do_not_depend_on_where_bytes_are_cut(cuts: list[int]) -> None:
    whole = b"".join(map(encode, FROM_WORKER))
    frames = Frames(worker_decoder())
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(ends)]
    assert [message for piece in pieces for message in frames.feed(piece)] == FROM_WORKER


def test_the_supervisors_messages_arrive() -> None:
    frames = Frames(supervisor_decoder())
    assert [message for each in FROM_SUPERVISOR for message in frames.feed(encode(each))] == FROM_SUPERVISOR


def test_a_frame_that_is_no_message_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        list(Frames(worker_decoder()).feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))
    with pytest.raises(ValueError, match=r"Invalid|truncated|Expected"):
        list(Frames(worker_decoder()).feed(encode(Retire(1.0))))
