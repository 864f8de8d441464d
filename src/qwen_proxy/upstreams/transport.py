"""HTTP to upstreams: requests through exits, within limits of time.

Four limits apart: connect, headers, idle, total. One watchdog looks after all of them once a second, since a timer for
each request and each read costs more than the read itself. The wire is `http1`'s, the pool is `connections`'.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.upstreams.attempt import Attempt
from qwen_proxy.upstreams.connections import Pool, Route
from qwen_proxy.upstreams.http1 import Connection, Headers, headers_of
from qwen_proxy.upstreams.question import Question

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
IDEMPOTENT: Final = ("GET", "HEAD", "DELETE", "OPTIONS", "PUT")  # RFC 9110 §9.2.2


class TransportOptions(Struct, frozen=True, kw_only=True):
    """Seconds, each for one thing. `ca_file` adds certificates for an upstream of the operator's own."""

    connect_seconds: float = 30
    headers_seconds: float = 60
    idle_seconds: float = 240
    watch_interval_seconds: float = 1
    keepalive_seconds: float = 30
    ca_file: str | None = None


class Response(Struct, frozen=True):
    """A whole answer, decompressed."""

    status: int
    headers: Headers
    body: bytes


class Asking(Struct, frozen=True, eq=False):
    """A request but for its body, and the way it goes."""

    route: Route
    question: Question


class Stream:
    """An answer whose headers came. `read` until b""; leaving its block before closes the connection at once."""

    __slots__ = ("_connection", "_deadline", "_fields", "_monotonic", "_pool", "_route", "_waiting_since", "status")

    def __init__(
        self, connection: Connection, route: Route, pool: Pool, deadline: float, monotonic: Callable[[], float]
    ) -> None:
        self.status = connection.status
        self._fields = connection.fields
        self._connection: Connection | None = connection  # None as soon as all was read: it may be another's then
        self._route = route
        self._pool = pool
        self._deadline = deadline
        self._monotonic = monotonic
        self._waiting_since = math.inf

    async def read(self) -> bytes:
        """What has come since the last read, waiting for something; b"" at the end.

        Raises ReplyCut for a body that broke off, UpstreamTimeout for one that went silent or took too long.
        """
        connection = self._connection
        if connection is None:
            return b""
        while (data := connection.take()) is None:
            self._waiting_since = self._monotonic()
            try:
                await connection.news()
            finally:
                self._waiting_since = math.inf
        if connection.is_complete and connection.at_end:
            self.close()
        return data

    def expire(self, now: float, idle_seconds: float) -> None:
        """End the stream when it is over a limit: whoever reads gets the error. A slow reader is not idle."""
        if self._connection is None:
            return
        if now >= self._deadline:
            self._connection.fail(UpstreamTimeout("total", max(0.0, now - self._deadline)))
        elif now - self._waiting_since >= idle_seconds:
            self._connection.fail(UpstreamTimeout("idle", idle_seconds))

    @property
    def headers(self) -> Headers:
        """Decoded where somebody asks: of most answers nobody does."""
        return headers_of(self._fields)

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        return self._connection is None

    def close(self) -> None:
        """Its connection goes back to the pool if all of the answer came, else it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.put_back(self._route, connection)


class Transport:
    """Sends requests through exits. An exit is DIRECT or a proxy's URL: http, https, socks5 or socks5h.

    Never goes directly when an exit is given. Keeps no cookies, follows no redirects, reads no environment.
    """

    def __init__(self, clock: Clock, options: TransportOptions | None = None) -> None:
        self._clock = clock
        self._options = options or TransportOptions()
        self._pool = Pool(clock.monotonic, self._options.keepalive_seconds, self._options.ca_file)
        self._attempts: set[Attempt] = set()
        self._open: set[Stream] = set()
        self._stack = AsyncExitStack()

    @property
    def open_streams(self) -> int:
        return len(self._open)

    async def __aenter__(self) -> Self:
        tasks = await self._stack.enter_async_context(Tasks())
        tasks.spawn(self._watch(), name="transport watchdog")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for stream in tuple(self._open):
            self.shut(stream)
        await self._pool.close()

    def stream(
        self, exit: str, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        """Send, and wait for the headers of the answer. `deadline` is monotonic seconds, for everything.

        Raises ExitUnreachable, UpstreamUnavailable or UpstreamTimeout.
        """
        return _Streaming(self, exit, method, url, headers, body, deadline)

    def asking(self, exit: str, method: str, url: str, headers: Mapping[str, str]) -> Asking:
        """What many requests have in common, for `open`: all but the body.

        Raises UpstreamUnavailable for what is not an HTTP URL, ValueError for what can't stand in a request.
        """
        route, target = self._pool.route(exit, url)
        return Asking(route, route.question(method, target, headers))

    async def request(
        self,
        exit: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_seconds: float,
    ) -> Response:
        """One whole exchange. Raises as `stream` does, and ReplyCut, and UpstreamProtocolError above 4 MiB."""
        deadline = self._clock.monotonic() + timeout_seconds
        async with self.stream(exit, method, url, headers=headers, body=body, deadline=deadline) as stream:
            return Response(stream.status, stream.headers, await read_all(stream))

    async def open(self, asking: Asking, body: bytes | None, deadline: float) -> Stream:
        """What entering `stream` does; whoever calls this must `shut` what it gets."""
        route = asking.route
        attempt = Attempt(deadline, self._clock.monotonic())
        self._attempts.add(attempt)
        try:
            connection = await self._exchange(attempt, route, asking.question.method, asking.question.render(body))
        except asyncio.CancelledError as error:
            if not attempt.was_cancelled_by_us():
                raise
            if attempt.phase == "connect" and route.exit != DIRECT:
                raise ExitUnreachable(f"no connection through it within {attempt.seconds:g} s") from error
            raise UpstreamTimeout(attempt.phase, attempt.seconds) from error
        finally:
            self._attempts.discard(attempt)
        if connection.status == 407 and route.exit != DIRECT:
            connection.abort()
            raise ExitUnreachable("it wants other credentials: HTTP 407")
        stream = Stream(connection, route, self._pool, deadline, self._clock.monotonic)
        self._open.add(stream)
        return stream

    async def _exchange(self, attempt: Attempt, route: Route, method: str, request: bytes) -> Connection:
        """A connection with the head of the answer.

        One that waited may have been closed by the other side just now. Whether it took the request nobody knows, so
        it is sent again only if twice is as good as once.
        """
        has_body = method != "HEAD"
        connection = self._pool.take(route)
        if connection is not None:
            attempt.phase = "headers"  # of the time so far nothing was used up
            try:
                await connection.exchange(request, has_body=has_body)
                return connection
            except UpstreamUnavailable:
                if not connection.is_silent or method not in IDEMPOTENT:
                    raise
            attempt.begin("connect", self._clock.monotonic())
        connection = await self._pool.connect(route)
        attempt.begin("headers", self._clock.monotonic())
        await connection.exchange(request, has_body=has_body)
        return connection

    def shut(self, stream: Stream) -> None:
        """Close its connection, unless its body was read to the end: then it went back to the pool by itself."""
        self._open.discard(stream)
        stream.close()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._options.watch_interval_seconds)
            now = self._clock.monotonic()
            for attempt in tuple(self._attempts):
                attempt.expire(now, self._options.connect_seconds, self._options.headers_seconds)
            for stream in tuple(self._open):
                stream.expire(now, self._options.idle_seconds)
            self._pool.sweep()


class _Streaming:
    """The block of one stream."""

    __slots__ = ("_request", "_stream", "_transport")

    def __init__(
        self,
        transport: Transport,
        exit: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: float,
    ) -> None:
        self._transport = transport
        self._request = (exit, method, url, headers, body, deadline)
        self._stream: Stream | None = None

    async def __aenter__(self) -> Stream:
        exit, method, url, headers, body, deadline = self._request
        asking = self._transport.asking(exit, method, url, headers)
        self._stream = stream = await self._transport.open(asking, body, deadline)
        return stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._transport.shut(self._stream)


async def read_all(stream: Stream, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The rest of a body. Raises UpstreamProtocolError when it is larger, and as `Stream.read` does."""
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := await stream.read():
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise UpstreamProtocolError(f"a body of more than {limit_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)
