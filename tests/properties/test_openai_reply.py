"""Where a reply's bytes are cut decides nothing."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recordings.decoding import Recording, openai_recordings, qwen_code_recordings

ALL = [*openai_recordings(), *qwen_code_recordings()]
SMALL = [recording for recording in ALL if len(recording.body) < 10_000]


@pytest.mark.parametrize(
    "recording", ALL, ids=lambda recording: f"{recording.expected_path.parent.name}/{recording.name}"
)
def test_a_byte_at_a_time_gives_the_same_reply(recording: Recording) -> None:
    pieces = [recording.body[i : i + 1] for i in range(len(recording.body))]
    assert recording.decode(pieces) == recording.decode([recording.body])


@given(st.sampled_from(SMALL), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_cut_gives_the_same_reply(recording: Recording, cuts: list[int]) -> None:
    body = recording.body
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert recording.decode(pieces) == recording.decode([body])
