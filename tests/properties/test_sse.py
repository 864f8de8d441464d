"""Where chunks end decides nothing."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.ground.errors import UpstreamProtocolError
from qwen_proxy.ground.sse import SseDecoder

LINE_PIECES = (b"data: ", b"data:", b"data", b": c", b"{", b"x")
LINE_ENDS = (b"\n", b"\r", b"\r\n", b"\n\n")
TOKENS = (*LINE_PIECES, *LINE_ENDS, b"\xef\xbb\xbf", b"\xe2\x82\xac")
bodies = st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join)


def decode(chunks: list[bytes], cap: int) -> tuple[list[bytes], bytes] | str:
    decoder = SseDecoder(max_event_bytes=cap)
    try:
        payloads = [payload for chunk in chunks for payload in decoder.feed(chunk)]
        return payloads + decoder.finish(), decoder.stray
    except UpstreamProtocolError:
        return "refused"


@given(bodies, st.lists(st.integers(0, 200)), st.sampled_from((20, 10_000)))
def test_any_split_gives_the_same_events(body: bytes, cuts: list[int], cap: int) -> None:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    whole = decode([body], cap)
    assert decode(pieces, cap) == whole
    assert decode([body[i : i + 1] for i in range(len(body))], cap) == whole
