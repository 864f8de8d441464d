"""Sends a `Reply` over a connection: chunking, compression, pauses and the ways a stream can end."""

import asyncio
import socket
import struct
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from qwen_proxy.simulator.replies import (
    Cut,
    Drop,
    Encoding,
    Pause,
    Reply,
    Reset,
    SendHeaders,
    Stall,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LONG_PAUSE_SECONDS = 0.25


class Compressor(Protocol):
    """Compresses piece by piece; each piece comes out whole, so that a stream streams."""

    def piece(self, data: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class Identity:
    def piece(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class Zlib:
    def __init__(self, window_bits: int) -> None:
        self._zlib = zlib.compressobj(wbits=window_bits)

    def piece(self, data: bytes) -> bytes:
        return self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._zlib.flush()


class Zstd:
    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor()

    def piece(self, data: bytes) -> bytes:
        return self._zstd.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._zstd.flush()


def compressor(encoding: Encoding) -> Compressor:
    """`deflate` is the zlib format, as RFC 9110 §8.4.1.2 has it."""
    match encoding:
        case "identity":
            return Identity()
        case "gzip":
            return Zlib(31)
        case "deflate":
            return Zlib(15)
        case "zstd":
            return Zstd()


def accepted(encoding: Encoding, accept_encoding: str) -> Encoding:
    """The wanted encoding if the client takes it, else none: the site answers what it is asked for (§4.4)."""
    offered = {part.partition(";")[0].strip().lower() for part in accept_encoding.split(",")}
    return encoding if encoding in offered else "identity"


def fill(data: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """Replace the names of frames by this exchange's ids."""
    if b"$$" not in data:
        return data
    for name, value in names.items():
        data = data.replace(name, value)
    return data


def names_of(now: float, **ids: str) -> dict[bytes, bytes]:
    """What the names in a reply stand for; `$$request_id$$` is new each time."""
    ids |= {"request_id": str(uuid.uuid4()), "timestamp": str(int(now))}
    return {f"$${name}$$".encode(): value.encode() for name, value in ids.items()}


class Sending:
    """One reply on its way. `run` sends it all; `answered` tells whether it came to its own end."""

    def __init__(
        self,
        request: web.Request,
        reply: Reply,
        names: Mapping[bytes, bytes],
        stopping: asyncio.Event,
        cut_short: Callable[[], bool],
    ) -> None:
        self._request = request
        self._reply = reply
        self._names = names
        self._stopping = stopping
        self._cut_short = cut_short
        self._encoding = accepted(reply.encoding, request.headers.get("Accept-Encoding", ""))
        self._compressor = compressor(self._encoding)
        self._held: list[bytes] = []
        self._response = self._make_response()
        self._prepared = False

    async def run(self) -> web.StreamResponse:
        """Send every step. Raises ConnectionError when the client has left; is cancelled if it leaves meanwhile."""
        reply = self._reply
        if len(reply.steps) == 1 and isinstance(reply.steps[0], bytes) and self._is_plain():
            return self._whole(reply.steps[0])
        last_frame = max((at for at, step in enumerate(reply.steps) if isinstance(step, str)), default=-1)
        for at, step in enumerate(reply.steps):
            if self._cut_short():
                break
            match step:
                case str():
                    await self._put(self._framed(step, at == last_frame and not reply.done))
                case bytes():
                    await self._put(fill(step, self._names))
                case SendHeaders():
                    await self._prepare()
                case Pause(seconds):
                    await self._flush()
                    if not await self._pause(seconds):
                        return self._close()
                case Cut():
                    return await self._finish()
                case Drop():
                    await self._flush()
                    return self._close()
                case Reset():
                    await self._flush()
                    return await self._reset()
                case Stall():
                    await self._flush()
                    await self._stopping.wait()
                    return self._close()
        if reply.done:
            await self._put(self._framed("[DONE]", True))
        return await self._finish()

    def _is_plain(self) -> bool:
        return self._encoding == "identity" and self._reply.chunking == "frame"

    def _whole(self, body: bytes) -> web.Response:
        response = web.Response(body=fill(body, self._names), status=self._reply.status)
        self._add_headers(response)
        return response

    def _make_response(self) -> web.StreamResponse:
        response = web.StreamResponse(status=self._reply.status)
        self._add_headers(response)
        if self._encoding != "identity":
            response.headers["Content-Encoding"] = self._encoding
        return response

    def _add_headers(self, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Content-Type"] = self._reply.content_type
        if self._reply.actual_status is not None:
            headers["x-actual-status-code"] = str(self._reply.actual_status)
        for cookie in self._reply.cookies:
            headers.add("Set-Cookie", cookie)
        headers.update(self._reply.headers)

    def _framed(self, text: str, is_last: bool) -> bytes:
        newline = self._reply.newline
        end = newline if is_last and not self._reply.trailing_blank_line else newline * 2
        return fill(f"data: {text}{end}".encode(), self._names)

    async def _prepare(self) -> None:
        if not self._prepared:
            self._prepared = True
            await self._response.prepare(self._request)

    async def _put(self, data: bytes) -> None:
        """Send, or hold until the next pause or end when everything is to go in one write."""
        if self._reply.chunking == "one":
            self._held.append(data)
        else:
            await self._write(self._compressor.piece(data))

    async def _flush(self) -> None:
        """Send what was held, so that a pause or an end comes after it."""
        if self._held:
            data, self._held = b"".join(self._held), []
            await self._write(self._compressor.piece(data))

    async def _write(self, data: bytes) -> None:
        await self._prepare()
        size = self._reply.chunking
        if not isinstance(size, int):
            if data:
                await self._response.write(data)
            return
        for start in range(0, len(data), size):
            await self._response.write(data[start : start + size])
            # Give the reader a chance to read each piece alone.
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> bool:
        """Wait; False if the simulator stops meanwhile."""
        if seconds <= LONG_PAUSE_SECONDS:
            await asyncio.sleep(seconds)
            return not self._stopping.is_set()
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def _finish(self) -> web.StreamResponse:
        """The clean end of the body."""
        await self._prepare()
        await self._flush()
        await self._write(self._compressor.end())
        await self._response.write_eof()
        return self._response

    def _close(self) -> web.StreamResponse:
        """FIN in the middle of the body; what was written still arrives."""
        if self._request.transport is not None:
            self._request.transport.close()
        return self._response

    async def _reset(self) -> web.StreamResponse:
        """RST. Closing with a linger time of zero discards what is unsent, so what was written goes out first."""
        transport = self._request.transport
        if transport is None:
            return self._response
        deadline = time.monotonic() + 1.0  # noqa: TID251
        while transport.get_write_buffer_size():
            if time.monotonic() > deadline:  # noqa: TID251
                break
            await asyncio.sleep(0.001)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return self._response
