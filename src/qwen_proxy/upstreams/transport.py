"""HTTP to upstreams: the one importer of aiohttp's client.

One session, with its pool, for each exit (the operator's proxy, or none). Four limits of time apart: connect, headers,
idle, total. One watchdog looks after all of them once a second, since a timer for each request and each read costs more
than the read itself.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Literal, Self

import aiohttp
import aiohttp_socks
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from msgspec import Struct
from multidict import CIMultiDictProxy
from yarl import URL

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    ProxyError,
    ReplyCut,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_HEADER_BYTES: Final = 32 * 1024
KEEPALIVE_PROBES: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
BAD_GATEWAY: Final = (502, 503, 504)  # a proxy that works, and can't reach the other end
SOCKS_FAR_END: Final = (3, 4, 5, 6)  # RFC 1928 §6: network, host, refused, TTL: the same
NO_TIMERS: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)

Headers = CIMultiDictProxy[str]
Phase = Literal["connect", "headers", "idle", "total"]


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


class Stream:
    """An answer whose headers came. `read` until b""; leaving its block before closes the connection at once."""

    __slots__ = ("_content", "_deadline", "_monotonic", "_response", "_waiting_since", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, deadline: float, monotonic: Callable[[], float]) -> None:
        self.status = response.status
        self.headers: Headers = response.headers
        self._response = response
        self._content = response.content
        self._deadline = deadline
        self._monotonic = monotonic
        self._waiting_since = math.inf

    async def read(self) -> bytes:
        """What has come since the last read, waiting for something; b"" at the end.

        Raises ReplyCut for a body that broke off, UpstreamTimeout for one that went silent or took too long.
        """
        self._waiting_since = self._monotonic()
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise ReplyCut from error
        finally:
            self._waiting_since = math.inf

    def expire(self, now: float, idle_seconds: float) -> None:
        """End the stream when it is over a limit: whoever reads gets the error. A slow reader is not idle."""
        if now >= self._deadline:
            self._fail(UpstreamTimeout("total", max(0.0, now - self._deadline)))
        elif now - self._waiting_since >= idle_seconds:
            self._fail(UpstreamTimeout("idle", idle_seconds))

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        return self._content.at_eof()

    def close(self) -> None:
        self._response.close()

    def _fail(self, error: ProxyError) -> None:
        self._content.set_exception(error)
        self._response.close()


class _Attempt:
    """The time one request has until its headers: first to get a connection, then for the answer's start.

    The watchdog ends it by cancelling the request's task, as asyncio.timeout does, without a timer of its own.
    """

    __slots__ = (
        "_cancelling",
        "_deadline",
        "_ends_at",
        "_monotonic",
        "_options",
        "_task",
        "expired",
        "phase",
        "seconds",
    )

    def __init__(self, options: TransportOptions, deadline: float, monotonic: Callable[[], float]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._options = options
        self._deadline = deadline
        self._monotonic = monotonic
        self.expired = False
        self._begin("connect", options.connect_seconds)

    def connected(self) -> None:
        self._begin("headers", self._options.headers_seconds)

    def expire(self, now: float) -> None:
        if now >= self._ends_at and not self.expired:
            self.expired = True
            self._task.cancel()

    def was_cancelled_by_us(self) -> bool:
        """Ask once, for a cancellation that came: whether it was the watchdog's alone."""
        return self.expired and self._task.uncancel() <= self._cancelling

    def _begin(self, phase: Phase, seconds: float) -> None:
        now = self._monotonic()
        within_total = now + seconds >= self._deadline
        self.phase: Phase = "total" if within_total else phase
        self.seconds = max(0.0, self._deadline - now) if within_total else seconds
        self._ends_at = now + self.seconds


_attempt: ContextVar[_Attempt] = ContextVar("attempt")  # how a connector tells the request that it is connected


class _DirectConnector(aiohttp.TCPConnector):
    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _attempt.get().connected()
        return connection

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """Once a connection, where `connect` is called once a request."""
        protocol = await super()._create_connection(req, traces, timeout)
        _keep_alive(protocol.transport)
        return protocol


class _SocksConnector(_DirectConnector, aiohttp_socks.ProxyConnector):
    """Through a SOCKS proxy, which also resolves the name: not even a DNS query goes directly."""


def _keep_alive(transport: asyncio.BaseTransport | None) -> None:
    """TCP's own probes find a peer that vanished; a stream may be silent for minutes."""
    found: socket.socket | None = None if transport is None else transport.get_extra_info("socket")
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_PROBES:
        option: int | None = getattr(socket, name, None)
        if option is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


class Transport:
    """Sends requests through exits. An exit is DIRECT or a proxy's URL: http, https, socks5 or socks5h.

    Never goes directly when an exit is given. Keeps no cookies, follows no redirects, reads no environment.
    """

    def __init__(self, clock: Clock, options: TransportOptions | None = None) -> None:
        self._clock = clock
        self._options = options or TransportOptions()
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._attempts: set[_Attempt] = set()
        self._open: set[Stream] = set()
        self._stack = AsyncExitStack()
        self._tls: ssl.SSLContext | bool = True

    @property
    def open_streams(self) -> int:
        return len(self._open)

    async def __aenter__(self) -> Self:
        if self._options.ca_file is not None:
            context = ssl.create_default_context()
            context.load_verify_locations(self._options.ca_file)
            self._tls = context
        tasks = await self._stack.enter_async_context(Tasks())
        tasks.spawn(self._watch(), name="transport watchdog")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def stream(
        self, exit: str, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        """Send, and wait for the headers of the answer. `deadline` is monotonic seconds, for everything.

        Raises ExitUnreachable, UpstreamUnavailable or UpstreamTimeout.
        """
        return _Streaming(self, exit, method, url, headers, body, deadline)

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

    async def open(
        self, exit: str, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> Stream:
        """What entering `stream` does; whoever calls this must `shut` what it gets."""
        session = self._sessions.get(exit) or await self._session(exit)
        attempt = _Attempt(self._options, deadline, self._clock.monotonic)
        token = _attempt.set(attempt)
        self._attempts.add(attempt)
        try:
            response = await session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                proxy=exit if _is_http(exit) else None,
            )
        except asyncio.CancelledError as error:
            if not attempt.was_cancelled_by_us():
                raise
            if attempt.phase == "connect" and exit != DIRECT:
                raise ExitUnreachable(f"no connection through it within {attempt.seconds:g} s") from error
            raise UpstreamTimeout(attempt.phase, attempt.seconds) from error
        except FOREIGN as error:
            raise _translated(error) from error
        finally:
            self._attempts.discard(attempt)
            _attempt.reset(token)
        if response.status == 407 and exit != DIRECT:
            response.close()
            raise ExitUnreachable("it wants other credentials: HTTP 407")
        stream = Stream(response, deadline, self._clock.monotonic)
        self._open.add(stream)
        return stream

    def shut(self, stream: Stream) -> None:
        """Close its connection, unless its body was read to the end: then it went back to the pool by itself."""
        self._open.discard(stream)
        stream.close()

    async def _session(self, exit: str) -> aiohttp.ClientSession:
        session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=self._connector(exit),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=NO_TIMERS,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        )
        return self._sessions.setdefault(exit, session)

    def _connector(self, exit: str) -> aiohttp.TCPConnector:
        keepalive_seconds = self._options.keepalive_seconds
        if exit == DIRECT or _is_http(exit):
            return _DirectConnector(limit=0, keepalive_timeout=keepalive_seconds, ssl=self._tls)
        address = "socks5" + exit[exit.index(":") :]
        return _SocksConnector.from_url(address, rdns=True, limit=0, keepalive_timeout=keepalive_seconds, ssl=self._tls)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._options.watch_interval_seconds)
            now = self._clock.monotonic()
            for attempt in tuple(self._attempts):
                attempt.expire(now)
            for stream in tuple(self._open):
                stream.expire(now, self._options.idle_seconds)


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
        self._stream = stream = await self._transport.open(*self._request)
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


def _is_http(exit: str) -> bool:
    return exit.startswith(("http://", "https://"))


SOCKS_ERRORS: Final = (aiohttp_socks.ProxyError, aiohttp_socks.ProxyConnectionError, aiohttp_socks.ProxyTimeoutError)
TLS_ERRORS: Final = (aiohttp.ClientSSLError, ssl.SSLError)
FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, *SOCKS_ERRORS)


def _translated(error: Exception) -> ProxyError:
    """What went wrong before there were headers, in our words. Their texts may hold a proxy's password."""
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp_socks.ProxyConnectionError():
            return ExitUnreachable("no connection to it")
        case _ if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)) or isinstance(
            error.__cause__, ssl.SSLError
        ):
            return UpstreamUnavailable("no trusted TLS connection")
        case aiohttp_socks.ProxyTimeoutError():
            return ExitUnreachable("no answer from it")
        case aiohttp_socks.ProxyError(error_code=code):
            if code in SOCKS_FAR_END:
                return UpstreamUnavailable(f"the proxy can't reach it: SOCKS reply {code}")
            return ExitUnreachable("it refuses" if code is None else f"it refuses: SOCKS reply {code}")
        case aiohttp.ClientHttpProxyError(status=status):
            if status in BAD_GATEWAY:
                return UpstreamUnavailable(f"the proxy can't reach it: HTTP {status}")
            return ExitUnreachable(f"it refuses: HTTP {status}")
        case aiohttp.ClientConnectorDNSError():
            return UpstreamUnavailable("name not found")
        case aiohttp.ClientConnectorError():
            return UpstreamUnavailable("no connection")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return UpstreamProtocolError("an answer that is not HTTP")
        case _:
            return UpstreamUnavailable("connection was closed")
