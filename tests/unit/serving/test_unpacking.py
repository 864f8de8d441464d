"""Compressed bodies: whole ones only, and never more than the cap."""

import gzip
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.ground.errors import BodyTooLarge, ClientError, InvalidRequest
from qwen_proxy.serving.unpacking import unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = b'{"messages": []}' * 10
PACKED = {
    "gzip": gzip.compress(PLAIN),
    "deflate": zlib.compress(PLAIN),
    "zstd": zstd.compress(PLAIN),
}
RAW_DEFLATE = zlib.compress(PLAIN)[2:-4]


@pytest.mark.parametrize("encoding", PACKED)
def test_a_packed_body_is_unpacked_up_to_the_cap(encoding: str) -> None:
    packed = PACKED[encoding]
    assert unpacked(packed, encoding, len(PLAIN)) == PLAIN
    assert unpacked(packed, f" {encoding.upper()} ", 1000) == PLAIN
    with pytest.raises(BodyTooLarge):
        unpacked(packed, encoding, len(PLAIN) - 1)


def test_deflate_may_lack_its_header_and_identity_is_nothing() -> None:
    assert unpacked(RAW_DEFLATE, "deflate", 1000) == PLAIN
    assert unpacked(PLAIN, "identity", 1000) == unpacked(PLAIN, "", 1000) == PLAIN


@pytest.mark.parametrize("encoding", PACKED)
def test_a_body_that_is_cut_followed_by_more_or_damaged_is_refused(encoding: str) -> None:
    packed = PACKED[encoding]
    for broken in (b"", packed[:-1], packed[:5], packed + b"more", b"not packed at all", packed[:-6] + b"\0" * 6):
        with pytest.raises(InvalidRequest):
            unpacked(broken, encoding, 1000)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "*", "x" * 100])
def test_other_encodings_are_named_as_not_taken(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="Content-Encoding"):
        unpacked(PLAIN, encoding, 1000)


def test_a_frame_that_claims_a_huge_window_is_refused_before_memory_is_taken() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packing = zstd.ZstdCompressor(options=options)
    packed = packing.compress(b"x" * 100) + packing.flush()
    with pytest.raises(InvalidRequest):
        unpacked(packed, "zstd", 1000)


@given(st.sampled_from([*PACKED, "identity", "br"]), st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(encoding: str, body: bytes) -> None:
    try:
        assert len(unpacked(body, encoding, 500)) <= 500
    except ClientError as error:
        assert str(error)
