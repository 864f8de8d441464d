"""HTTP/1.1 (RFC 9112) as a client: one connection, one exchange after another. Knows no pools, exits or time.

    idle --exchange--> waiting for the head --> body --> complete --rest--> idle
    Anything may end in an error, which whoever waits gets; the transport is then gone.

httptools (llhttp) reads; this module keeps what it said. No tasks and no timers; a future only where nothing is there.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Self

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

from qwen_proxy.ground.errors import ProxyError, ReplyCut, UpstreamProtocolError, UpstreamUnavailable
from qwen_proxy.upstreams.encodings import DECODING_ERRORS, Decoder, decoder_of

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_UNREAD_BYTES: Final = 256 * 1024  # then the sender is kept waiting
NO_CONTENT: Final = (204, 304)

Headers = CIMultiDictProxy[str]
Field = tuple[bytes, bytes]  # a header as it came


def headers_of(fields: Sequence[Field]) -> Headers:
    return CIMultiDictProxy(
        CIMultiDict([(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in fields])
    )


class Connection(asyncio.Protocol):
    """`exchange`, then `read` until b""; then `rest`, and it may be used again if `is_reusable`.

    `on_lost` is called once, when the transport is gone. `status` is 0 until the head of the answer is there.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_has_body",
        "_head_bytes",
        "_is_paused",
        "_keeps",
        "_on_lost",
        "_parser",
        "_pieces",
        "_transport",
        "_unread_bytes",
        "_until_close",
        "_waiter",
        "fields",
        "is_complete",
        "is_silent",
        "on_body",
        "status",
    )

    def __init__(self, on_lost: Callable[[Self], None]) -> None:
        self._on_lost = on_lost
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it: a reply has a piece for each of its events
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: ProxyError | None = None
        self.is_complete = True  # all of the answer came
        self._is_paused = False
        self._keeps = True
        self._unread_bytes = 0
        self._prepare(has_body=True)

    def _prepare(self, *, has_body: bool) -> None:
        self.status = 0
        self.fields: list[Field] = []
        self.is_silent = True  # no byte of an answer came
        self._decoder: Decoder | None = None
        self._has_body = has_body
        self._head_bytes = 0
        self._until_close = False

    # --- for whoever uses it

    async def exchange(self, request: bytes, *, has_body: bool = True) -> None:
        """Send, and wait for the head. `has_body`: the answer may have one; false for HEAD and CONNECT.

        Raises UpstreamUnavailable when it closes before, UpstreamProtocolError for what is not HTTP.
        """
        self._prepare(has_body=has_body)
        self.is_complete = False
        if self._transport is None:
            raise UpstreamUnavailable("connection was closed")
        self._transport.write(request)
        try:
            while not self.status and self._error is None:
                await self.news()
        except BaseException:
            self.abort()
            raise
        if not self.status and self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """What came since the last read, decoded, waiting for something; b"" at the end.

        Raises ReplyCut for a body that broke off, after all of it that came; or what `fail` was given.
        """
        while (data := self.take()) is None:
            await self.news()
        return data

    def take(self) -> bytes | None:
        """What `read` would return at once; None where it would wait for `news`. Raises as `read` does."""
        while self._pieces or self.is_complete or self._error or (self._decoder and self._decoder.has_more):
            if data := self._take():
                return data
            if self._error is not None:
                raise self._error
            if self.at_end:
                return b""
        return None

    def news(self) -> asyncio.Future[None]:
        """Done as soon as something has come, be it the end. One waits at a time."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    @property
    def at_end(self) -> bool:
        """Whether all of the answer came and was read."""
        if not self.is_complete or self._pieces or self._error is not None:
            return False
        return self._decoder is None or not self._decoder.has_more

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow: the answer came whole, after a request that was sent whole."""
        transport = self._transport
        return (
            self.is_complete
            and self._keeps
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def rest(self) -> None:
        """Forget what was not read."""
        self._pieces.clear()
        self._drained()

    def fail(self, error: ProxyError) -> None:
        """Close; whoever reads gets the error."""
        self._error = self._error or error
        self.abort()
        self._wake()

    def abort(self) -> None:
        """Close at once."""
        self._keeps = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def headers(self) -> Headers:
        """Decoded where somebody asks: of most answers nobody does."""
        return headers_of(self.fields)

    def detach(self) -> asyncio.Transport:
        """Give the transport away, for TLS inside; this object is then done. Raises UpstreamUnavailable."""
        if self._transport is None:
            raise UpstreamUnavailable("connection was closed")
        transport, self._transport = self._transport, None
        del self._parser
        return transport

    # --- for the event loop

    # Of a stream nothing else is made; uvloop's can't be told by isinstance.
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.is_complete:  # nobody asked, or more than was asked for
            self.abort()
            return
        self.is_silent = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._misread(error)
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.fail(UpstreamProtocolError("an answer with too large headers"))
        if self._pieces:
            self._unread_bytes += len(data)
            if self._unread_bytes > MAX_UNREAD_BYTES:
                self._pause()
        if self._waiter is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        del self._parser  # it knows us: a circle that only the collector would find
        if not self.is_complete and self._error is None:
            if self._until_close and exc is None:
                self.is_complete = True
            else:
                self._error = ReplyCut() if self.status else UpstreamUnavailable("connection was closed")
                self._error.__cause__ = exc
        self._wake()
        self._on_lost(self)

    # --- for httptools

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("bytes behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else a trailer
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.fields = []
            return
        self.status = status
        said = {name.lower(): value for name, value in reversed(self.fields)}  # of one said twice the first counts
        encoding = said.get(b"content-encoding")
        self._decoder = None if encoding is None else decoder_of(encoding.decode("utf-8", "surrogateescape"))
        self._keeps = self._parser.should_keep_alive() and self._has_body
        self.is_complete = not self._has_body
        self._until_close = (
            b"content-length" not in said
            and b"chunked" not in said.get(b"transfer-encoding", b"").lower()
            and status not in NO_CONTENT
        )

    def on_message_complete(self) -> None:
        self.is_complete = self.status != 0  # else it was a 1xx, and the answer follows

    # --- inside

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _misread(self, error: Exception) -> None:
        if self.is_complete:
            self.abort()
            return
        ours = ReplyCut() if self.status else UpstreamProtocolError("an answer that is not HTTP")
        ours.__cause__ = error
        self.fail(ours)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        if self._is_paused:
            self._drained()
        return data if self._decoder is None else self._decoded(self._decoder, data)

    def _decoded(self, decoder: Decoder, data: bytes) -> bytes:
        try:
            if data or decoder.has_more:
                data = decoder.feed(data)
        except DECODING_ERRORS as error:
            cut = ReplyCut()
            cut.__cause__ = error
            self.is_complete = False
            self.fail(cut)
            return b""
        if self.at_end and not decoder.is_whole:
            self.fail(ReplyCut())
        return data

    def _drained(self) -> None:
        self._unread_bytes = 0
        if self._is_paused and self._transport is not None:
            self._transport.resume_reading()
        self._is_paused = False
