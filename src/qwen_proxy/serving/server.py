"""The HTTP server on a listening socket that someone else bound, and how it leaves without cutting anyone off."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.serving.endpoint import Endpoints, Serve

# A peer that vanished without a FIN is noticed after 30 + 3 x 10 s, also while nothing is being sent.
KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_PROBES = 3
IDLE_CONNECTION_SECONDS = 75.0
LATE_REQUEST_SECONDS = 0.5  # a connection accepted a moment before a drain has not sent its request yet
LATEST_REQUEST_SECONDS = 3.0  # ... and on a busy machine takes longer; one that has asked before is not waited for
LOOK_SECONDS = 0.05


def keep_alive(listener: socket.socket) -> None:
    """Set TCP keep-alive on a listener; on Linux the connections it accepts inherit it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", (KEEPALIVE_IDLE_SECONDS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS) * 1000),
    ):
        if (option := getattr(socket, name, None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


class WireLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's own log. What it says of bytes that are no HTTP quotes them, and a key may be among them: of those
    only the kind of fault is told."""

    def exception(self, msg: object, *args: object, exc_info: object = None, **_: object) -> None:
        self._tell(logging.ERROR, msg, args, exc_info)

    def debug(self, msg: object, *args: object, exc_info: object = None, **_: object) -> None:
        self._tell(logging.DEBUG, msg, args, exc_info)

    def _tell(self, level: int, msg: object, args: tuple[object, ...], error: object) -> None:
        if isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            self.logger.log(min(level, logging.INFO), "no valid HTTP", extra={"reason": type(error).__name__})
        else:
            self.logger.log(level, msg, *args, exc_info=error if isinstance(error, BaseException) else None)


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _directly(routes: Mapping[str, Serve], otherwise: Handle) -> Handle:
    """The usual paths are looked up here, and all else by aiohttp: its router and application are two calls to wait in
    for each token, and for a short request a thirtieth of all."""

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        serve = routes.get(request.raw_path) if request.method == "POST" else None
        return otherwise(request) if serve is None else serve(cast(web.Request, request))

    return handle


class HttpServer:
    """Serves inside its block. Leaving the block without `drain` ends what still runs at once.

    settle: waits, at most so many seconds, for what runs without a request.
    """

    def __init__(
        self,
        app: web.Application,
        endpoints: Endpoints,
        listener: socket.socket,
        settle: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        # handler_cancellation: a client that leaves cancels its handler, which unwinds everything it holds.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            logger=WireLog(logging.getLogger(__name__)),
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
            shutdown_timeout=0.5,
        )
        self._endpoints = endpoints
        self._listener = listener
        self._settle = settle

    async def __aenter__(self) -> Self:
        keep_alive(self._listener)
        await self._runner.setup()
        if (server := self._runner.server) is not None:
            server.request_handler = _directly(self._endpoints.direct, server.request_handler)
        await web.SockSite(self._runner, self._listener, backlog=1024).start()
        return self

    async def close_silent(self, clock: Clock, limit_seconds: float) -> None:
        """Until cancelled: close connections on which no request's head has come whole within the limit, or soon after.

        aiohttp itself bounds that only behind a first request, by IDLE_CONNECTION_SECONDS.
        """
        asked = self._endpoints.asked
        since: dict[RequestHandler, float] = {}
        while (server := self._runner.server) is not None:
            now = clock.monotonic()
            connections = server.connections
            asked.intersection_update(connections)
            since = {each: since.get(each, now) for each in connections if each not in asked}
            for connection, opened_at in since.items():
                if now - opened_at >= limit_seconds:
                    connection.force_close()
            # Often, since connections that have gone stay in `asked` until now.
            await clock.sleep(min(1.0, limit_seconds / 4))

    async def drain(self, timeout_seconds: float) -> None:
        """Stop accepting at once, close idle connections, let requests, and then what runs without one, run to their
        end or to the timeout."""
        for site in self._runner.sites:
            await site.stop()
        self._endpoints.draining = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(min(LATE_REQUEST_SECONDS, timeout_seconds))
        latest = began + min(LATEST_REQUEST_SECONDS, timeout_seconds)
        while self._awaits_a_first_request() and loop.time() < latest:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
        await self._endpoints.drain(timeout_seconds - (loop.time() - began))
        if self._settle is not None:
            await self._settle(max(0.0, timeout_seconds - (loop.time() - began)))

    def _awaits_a_first_request(self) -> bool:
        server = self._runner.server
        return server is not None and any(each not in self._endpoints.asked for each in server.connections)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
