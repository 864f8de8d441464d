"""A server on loopback that writes exactly the bytes a test wants, and says what became of its connections."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Answer = Callable[["Visit"], Awaitable[None]]


class Visit:
    """One request: `head` is its bytes up to the empty line, `body` what its Content-Length said."""

    def __init__(self, head: str, body: bytes, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        self.head = head
        self.body = body
        self.writer = writer
        self.reader = reader

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; b"" ends it."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def reset(self) -> None:
        """RST instead of FIN."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_left(self) -> None:
        """Until the client closes its side."""
        while await self.reader.read(1024):
            pass


class WireServer:
    """Enter it. Each request is answered by `answer`; the connection is kept until that closes it."""

    def __init__(self, answer: Answer, *, tls: ssl.SSLContext | None = None) -> None:
        self.visits: list[Visit] = []
        self.connections = 0
        self.left = asyncio.Event()
        self._answer = answer
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")]
                visit = Visit(head, await reader.readexactly(int(sizes[0]) if sizes else 0), writer, reader)
                self.visits.append(visit)
                await self._answer(visit)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.left.set()
            self._running.discard(task)
            writer.close()
