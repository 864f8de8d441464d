"""Server-sent events, by hand-made bodies."""

import pytest

from qwen_proxy.ground.errors import UpstreamProtocolError
from qwen_proxy.ground.sse import MAX_STRAY_BYTES, SseDecoder


def decode(*chunks: bytes) -> list[bytes]:
    decoder = SseDecoder()
    return [payload for chunk in chunks for payload in decoder.feed(chunk)] + decoder.finish()


@pytest.mark.parametrize(
    ("body", "payloads"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b": comment\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"\n\n\n\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: last", [b"a", b"last"]),
        (b"data: a\n\ndata: last\n", [b"a", b"last"]),
        (b"", []),
        (b"\xef\xbb", []),
    ],
)
def test_payloads_of_a_body(body: bytes, payloads: list[bytes]) -> None:
    assert decode(body) == payloads
    assert decode(*(body[i : i + 1] for i in range(len(body)))) == payloads


def test_an_event_comes_out_with_the_chunk_that_completes_it() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\ndata: b\n\ndata: c") == [b"a", b"b"]
    assert decoder.feed(b"c\n\n") == [b"cc"]
    assert decoder.feed(b"data: d\r") == []
    assert decoder.feed(b"\n\r") == [b"d"]
    assert decoder.finish() == []


def test_lines_that_are_no_field_are_kept_apart() -> None:
    decoder = SseDecoder()
    body = b'data: a\n\n{"success":\nfalse}\n\n<html>'
    assert decoder.feed(body) + decoder.finish() == [b"a"]
    assert decoder.stray == b'{"success":\nfalse}\n<html>'


def test_stray_bytes_are_bounded() -> None:
    decoder = SseDecoder()
    decoder.feed(b"<" * MAX_STRAY_BYTES + b"\nmore\nmore\n")
    assert len(decoder.stray) <= MAX_STRAY_BYTES + 2


def test_comments_do_not_add_up_to_an_event() -> None:
    decoder = SseDecoder(max_event_bytes=50)
    for _ in range(20):
        assert decoder.feed(b": a comment\n") == []
        assert decoder.feed(b"data: a\n\n") == [b"a"]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: " + b"x" * 30, b"x" * 30],
        [b"data: xxxxxxxxxxxxx\ndata: xxxxxxxxxxxxxxx\n", b"data: xxxxxxxxxxxxxxx\n"],
    ],
)
def test_an_event_over_the_cap_is_refused(chunks: list[bytes]) -> None:
    decoder = SseDecoder(max_event_bytes=50)
    with pytest.raises(UpstreamProtocolError):
        for chunk in chunks:
            decoder.feed(chunk)
