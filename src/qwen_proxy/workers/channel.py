"""One end of the socket pair between a worker and its supervisor."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from qwen_proxy.workers.messages import Frames, FromSupervisor, FromWorker, encode

log = logging.getLogger(__name__)

M = TypeVar("M")


class Channel(asyncio.Protocol, Generic[M]):
    """`received(message)` is called for each message in order; `closed` is set when the other end is gone.

    Sending never waits: messages are small, and each side reads all the time. A message to a closed end is dropped.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], received: Callable[[M], None]) -> None:
        self._frames = Frames(decoder)
        self._received = received
        self._transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.Event()
        self._unsent: list[bytes] = []

    async def open(self, sock: socket.socket) -> None:
        """Take over a connected socket; it is closed with the channel."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def send(self, message: FromWorker | FromSupervisor) -> None:
        if self._transport is None or self.closed.is_set():
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(encode(message))

    def _flush(self) -> None:
        """What was sent in one turn of the loop goes out in one write."""
        unsent = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None and not self.closed.is_set():
            self._transport.write(unsent)

    def close(self) -> None:
        if self._unsent:
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # It can write, but uvloop's is no instance of asyncio's classes.
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._received(message)
        except ValueError:
            log.exception("the other end of the channel speaks nonsense")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
