"""A streamed reply on the wire: the status line, heartbeats, one write per batch, and how it ends.

| state | what the client has | a failure now |
|---|---|---|
| pending | nothing | a true HTTP status (the caller answers) |
| headers sent | the status line, and heartbeats since | told in the stream |
| content sent | a part of the reply | told in the stream |

Pending ends with the first write, or when `header_commit_seconds` are over (the ticker sends the headers then, and a
heartbeat with them).
"""

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType

from aiohttp import web

from qwen_proxy.runtime.clock import Clock

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SHORTEST_TICK_SECONDS = 0.01  # headers that are to go out at once must not make the ticker spin


class _HeadersWithFirstPiece(web.StreamResponse):
    """Keeps the status line until there is something to send behind it, as aiohttp's own whole responses do: a write
    costs more than all else that is done for a short reply."""

    _send_headers_immediately = False


class StreamedReply:
    """One response. Only its own task calls `write` and `end`; the ticker calls `beat`."""

    __slots__ = (
        "_heartbeat",
        "_request",
        "_response",
        "_starting",
        "_writes_chunks",
        "ended",
        "pending_since",
        "wrote_at",
    )

    def __init__(
        self, request: web.BaseRequest, headers: Iterable[tuple[str, str]], heartbeat: bytes, started_at: float
    ) -> None:
        self._request = request
        self._response = (_HeadersWithFirstPiece if heartbeat else web.StreamResponse)(headers=headers)
        self._heartbeat = heartbeat
        self._starting: asyncio.Future[None] | None = None
        self._writes_chunks = False
        self.ended = False
        self.pending_since = started_at
        self.wrote_at = started_at

    @property
    def headers_sent(self) -> bool:
        return self._starting is not None

    @property
    def response(self) -> web.StreamResponse:
        return self._response

    async def write(self, piece: bytes, now: float) -> None:
        """Send a piece, the headers before it when they have not gone out. Waits while the client is slow."""
        if not self._writes_chunks:
            await self._write_first(piece, now)
            return
        self.wrote_at = now
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        if piece:  # an empty chunk would be the end
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if transport.get_write_buffer_size():
            await self._request.writer.drain()

    async def _write_first(self, piece: bytes, now: float) -> None:
        """Through aiohttp, with the headers. More pieces of a chunked body are framed by `write`, as aiohttp frames
        them: its own way, of four calls, costs more than what it does."""
        if self._starting is None or not self._starting.done():
            await self._start()
        self.wrote_at = now
        await self._response.write(piece)
        self._writes_chunks = self._response.headers.get("Transfer-Encoding") == "chunked"

    async def end(self, piece: bytes = b"") -> None:
        """Send the last piece and the end of the body, in one write."""
        self.ended = True
        if self._starting is None or not self._starting.done():
            await self._start()
        await self._response.write_eof(piece)

    async def beat(self, now: float) -> None:
        """Keep the connection alive; does nothing while the client has not taken what was written before."""
        if self.ended:
            return
        await self._start()
        transport = self._request.transport
        if self._heartbeat and transport is not None and transport.get_write_buffer_size() == 0:
            self.wrote_at = now
            await self._response.write(self._heartbeat)

    async def _start(self) -> None:
        # The ticker and the reply's own task may both come here; the second waits for the first.
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_future()
            try:
                await self._response.prepare(self._request)
            finally:
                self._starting.set_result(None)
        elif not self._starting.done():
            await asyncio.shield(self._starting)


class Heartbeats:
    """One ticker for all streams of this process."""

    def __init__(self, clock: Clock, *, header_commit_seconds: float, heartbeat_seconds: float) -> None:
        self._clock = clock
        self._header_commit_seconds = header_commit_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._streams: set[StreamedReply] = set()

    def watch(self, reply: StreamedReply) -> "_Watch":
        """The block in which a reply is kept alive."""
        return _Watch(self._streams, reply)

    async def run(self) -> None:
        """Tick until cancelled."""
        tick = max(
            SHORTEST_TICK_SECONDS, min(TICK_SECONDS, self._header_commit_seconds / 4, self._heartbeat_seconds / 4)
        )
        while True:
            await self._clock.sleep(tick)
            await self.tick()

    async def tick(self) -> None:
        now = self._clock.monotonic()
        for reply in tuple(self._streams):
            if reply.headers_sent:
                due = now - reply.wrote_at >= self._heartbeat_seconds
            else:
                due = now - reply.pending_since >= self._header_commit_seconds
            if due:
                try:
                    await reply.beat(now)
                except (ConnectionError, RuntimeError) as error:  # gone between two ticks; its task is cancelled
                    log.debug("heartbeat not sent", extra={"reason": type(error).__name__})


class _Watch:
    __slots__ = ("_reply", "_streams")

    def __init__(self, streams: set[StreamedReply], reply: StreamedReply) -> None:
        self._streams = streams
        self._reply = reply

    def __enter__(self) -> None:
        self._streams.add(self._reply)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.discard(self._reply)
