"""Compressed request bodies (RFC 9110 §8.4), unpacked here and not by aiohttp, which unpacks before anyone is asked for
a key and without an end: a few kilobytes of a stranger could hold the loop for seconds."""

import sys
import zlib

from qwen_proxy.ground.errors import BodyTooLarge, InvalidRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_WINDOW_LOG = 23  # 8 MiB of memory, what RFC 8878 §3.1.1.1.2 asks of everyone; a frame may claim gigabytes


def unpacked(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The body behind one Content-Encoding. Raises InvalidRequest, or BodyTooLarge before it has grown far."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflated(body, 16 + zlib.MAX_WBITS, limit_bytes)
        case "deflate":  # some send it without zlib's header, whose first four bits are 8
            return _inflated(body, zlib.MAX_WBITS if body[:1] and body[0] & 15 == 8 else -zlib.MAX_WBITS, limit_bytes)
        case "zstd":
            return _unpacked_zstd(body, limit_bytes)
        case other:
            raise InvalidRequest(f"Content-Encoding {other[:40]!r} is not taken; send gzip, deflate, zstd, or none")


def _inflated(body: bytes, window_bits: int, limit_bytes: int) -> bytes:
    inflating = zlib.decompressobj(window_bits)
    try:
        data = inflating.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise _broken() from error
    return _checked(data, inflating.eof, inflating.unused_data, limit_bytes)


def _unpacked_zstd(body: bytes, limit_bytes: int) -> bytes:
    unpacking = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
    try:
        data = unpacking.decompress(body, limit_bytes + 1)
    except zstd.ZstdError as error:
        raise _broken() from error
    return _checked(data, unpacking.eof, unpacking.unused_data, limit_bytes)


def _checked(data: bytes, ended: bool, rest: bytes, limit_bytes: int) -> bytes:
    if len(data) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not ended or rest:
        raise _broken()
    return data


def _broken() -> InvalidRequest:
    return InvalidRequest("the request body can't be read: its encoding is broken")
