"""A server on loopback that passes everything on to another, and what comes back as a test wants it."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Self

from qwen_proxy.runtime.tasks import Tasks

Answer = Callable[[bytes], bytes | None]


class Forwarder:
    """Enter it. `connections` were made in all, `open` are so now.

    `answer` is what becomes of bytes that come back: None loses them and the connection with them.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.connections = 0
        self.open = 0
        self.answer: Answer = lambda data: data
        self._to = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with Tasks() as tasks:
                    there = tasks.spawn(_pass(reader, onward, lambda data: data), name="there")
                    here = tasks.spawn(_pass(back, writer, lambda data: self.answer(data)), name="back")
                    await asyncio.wait([there, here], return_when=asyncio.FIRST_COMPLETED)
            finally:
                onward.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            self.open -= 1
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, become: Answer) -> None:
    try:
        while data := await reader.read(65536):
            if (after := become(data)) is None:
                return
            writer.write(after)
            await writer.drain()
    except OSError:
        pass
