"""Content codings undone piece by piece: what a sender flushed can be had before the next piece is there.

One call gives at most MAX_INFLATED_BYTES, so that a small body that inflates to a huge one costs what its reader takes.
"""

import sys
import zlib
from typing import Final, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_INFLATED_BYTES: Final = 1024 * 1024
ACCEPTED: Final = "gzip, deflate, zstd"
DECODING_ERRORS: Final = (zlib.error, zstd.ZstdError)
ZLIB_METHOD: Final = 8  # RFC 1950 §2.2, the low half of the first byte; some send bare deflate instead
GZIP_BITS, ZLIB_BITS, BARE_BITS = 31, 15, -15


class Decoder(Protocol):
    """`has_more`: feed it b"" before anything else. `is_whole`: the body may end here."""

    has_more: bool
    is_whole: bool

    def feed(self, data: bytes) -> bytes:
        """The next bytes, maybe none. Raises DECODING_ERRORS."""
        ...


class Inflater:
    """gzip, of any number of members, and deflate."""

    def __init__(self, window_bits: int | None) -> None:
        """`window_bits` as in zlib; None: zlib's format or bare deflate, whichever comes."""
        self._bits = window_bits
        self._engine: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage] - its only name
        self._rest = b""
        self.has_more = False
        self.is_whole = True

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        if self._engine is None:
            bits = self._bits or (ZLIB_BITS if data[0] & 15 == ZLIB_METHOD else BARE_BITS)
            self._engine = zlib.decompressobj(bits)
        inflated = self._engine.decompress(data, MAX_INFLATED_BYTES)
        self.is_whole = self._engine.eof
        if self._engine.eof:
            self._rest, self._engine = self._engine.unused_data, None
            self.has_more = bool(self._rest)
        else:
            self._rest = self._engine.unconsumed_tail
            self.has_more = bool(self._rest) or len(inflated) == MAX_INFLATED_BYTES
        return inflated


class ZstdDecoder:
    """zstd, of any number of frames."""

    def __init__(self) -> None:
        self._engine = zstd.ZstdDecompressor()
        self._rest = b""
        self.has_more = False
        self.is_whole = True

    def feed(self, data: bytes) -> bytes:
        inflated = self._engine.decompress(self._rest + data, MAX_INFLATED_BYTES)
        self.is_whole = self._engine.eof
        if self._engine.eof:
            self._rest, self._engine = self._engine.unused_data, zstd.ZstdDecompressor()
            self.has_more = bool(self._rest)
        else:
            self._rest = b""
            self.has_more = not self._engine.needs_input
        return inflated


def decoder_of(content_encoding: str) -> Decoder | None:
    """None for what is not encoded, or in a way we did not ask for: then the bytes stay as they are."""
    match content_encoding.strip().lower():
        case "gzip" | "x-gzip":
            return Inflater(GZIP_BITS)
        case "deflate":
            return Inflater(None)
        case "zstd":
            return ZstdDecoder()
        case _:
            return None
