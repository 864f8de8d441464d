"""Real proxies on loopback, HTTP (CONNECT and absolute addresses) and SOCKS5: they write down what they are asked."""

import asyncio
import base64
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Enter it; `port` is then valid. `asked` holds `host:port` of each connection made for somebody, `ports` the local
    ports of those connections: by them the other end can tell what came through here.

    `credentials` ("user:password"): ask for them. `refuse`: an HTTP status or a SOCKS reply to give to everybody.
    `names`: hosts that only this proxy knows, and when it is known, their port on loopback.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        refuse: int | None = None,
        names: Mapping[str, asyncio.Future[int]] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.ports: set[int] = set()
        self.port = 0
        self._credentials = credentials
        self._refuse = refuse
        self._names = names or {}
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
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
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    @property
    def credentials(self) -> str | None:
        return self._credentials

    @property
    def refusal(self) -> int | None:
        return self._refuse

    async def join(
        self,
        host: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        first: bytes,
        ready: bytes,
    ) -> None:
        """Connect, tell the client `ready`, send `first` on, and copy both ways until one side ends."""
        self.asked.append(f"{host}:{port}")
        if host in self._names:
            host, port = "127.0.0.1", await self._names[host]
        there_reader, there_writer = await asyncio.open_connection(host, port)
        self.ports.add(int(there_writer.get_extra_info("sockname")[1]))
        writer.write(ready)
        there_writer.write(first)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, there_writer))
                group.create_task(_copy(there_reader, writer))
        except* OSError:
            pass
        finally:
            there_writer.close()


class HttpProxy(Proxy):
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        if self.credentials is not None:
            wanted = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if f"proxy-authorization: {wanted}".lower() not in [header.lower() for header in headers]:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        if self.refusal is not None:
            writer.write(f"HTTP/1.1 {self.refusal} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            ready = b"HTTP/1.1 200 Connection established\r\n\r\n"
            await self.join(host, int(port), reader, writer, first=b"", ready=ready)
            return
        parts = urlsplit(target)
        rest = target.split(parts.netloc, 1)[1]
        first = "\r\n".join([f"{method} {rest} HTTP/1.1", *headers]).encode()
        await self.join(parts.hostname or "", parts.port or 80, reader, writer, first=first, ready=b"")


class Socks5Proxy(Proxy):
    """RFC 1928, with names resolved here, and RFC 1929."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 2 if self.credentials is not None else 0
        writer.write(bytes((5, method if method in methods else 255)))
        if self.credentials is not None:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            is_right = f"{user.decode()}:{password.decode()}" == self.credentials
            writer.write(bytes((1, 0 if is_right else 1)))
            if not is_right:
                return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2))
        if self.refusal is not None:
            writer.write(bytes((5, self.refusal, 0, 1, 0, 0, 0, 0, 0, 0)))
            return
        await self.join(host, port, reader, writer, first=b"", ready=bytes((5, 0, 0, 1, 0, 0, 0, 0, 0, 0)))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
