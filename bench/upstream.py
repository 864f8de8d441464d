"""The upstream of the benchmark: enough of the site for a gateway to work, and cheap enough not to be the bottleneck.

Speaks upstream protocol §1.1 (sign-in), §2 (models), §3.1 and §3.5 (new chat, delete) and §4.4 (the stream of events,
with usage in every frame, a finished mark, no `[DONE]`), and beside it OpenAI's chat completions, over HTTP/1.1 with
keep-alive and chunked bodies. It checks nothing: the simulator does that. What a reply holds is chosen by the user's
text (`Pace.read`); every event carries the microsecond of CLOCK_MONOTONIC at which it was due, so that whoever receives
it can tell how late it is: the clock is one for all processes of a machine.

`python -m bench.upstream --port 9000`; prints `ready` once it listens.
"""

import argparse
import asyncio
import base64
import gc
import heapq
import itertools
import json
import re
import time
from dataclasses import dataclass

import uvloop

from bench.replies import API, MODEL, SITE, Writing, api_whole

_PACE = re.compile(rb"events=(\d+) rate=(\d+) burst=(\d+) chunk=(\d+)")
_STREAMED = re.compile(rb'"stream": *true')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

_JSON_HEAD = (
    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nx-actual-status-code: %s\r\nContent-Length: %d\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


def now_micros() -> int:
    """CLOCK_MONOTONIC in microseconds."""
    return time.monotonic_ns() // 1000


@dataclass(frozen=True, slots=True)
class Pace:
    """What a reply holds: `writes` times `burst` events, `gap_micros` apart; no writes: one event, all at once."""

    writes: int = 0
    gap_micros: int = 0
    burst: int = 1
    chunk_bytes: int = 0

    @staticmethod
    def read(body: bytes) -> "Pace":
        """From the user's text: `events=200 rate=20 burst=1 chunk=0`; anything else is a short reply."""
        found = _PACE.search(body)
        if found is None:
            return Pace()
        writes, rate, burst, chunk_bytes = map(int, found.groups())
        return Pace(writes, 1_000_000 // rate, burst, chunk_bytes)


class Counts:
    """How often each call came; what shows that two proxies did the same work."""

    def __init__(self) -> None:
        self.created = self.completed = self.deleted = self.signed_in = self.listed = 0


class Pacer:
    """One timer for all streams: a heap of (due, order, stream), emptied of what is due each millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[int, int, Connection]] = []
        self._order = itertools.count()
        self._ticking = False

    def add(self, due: int, connection: "Connection") -> None:
        heapq.heappush(self._due, (due, next(self._order), connection))
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(0.001, self._tick)

    def _tick(self) -> None:
        now = now_micros()
        while self._due and self._due[0][0] <= now:
            due, _, connection = heapq.heappop(self._due)
            following = connection.send_due(due)
            if following is not None:
                heapq.heappush(self._due, (following, next(self._order), connection))
        if self._due:
            self._loop.call_later(0.001, self._tick)
        else:
            self._ticking = False


class Connection(asyncio.Protocol):
    """One keep-alive connection; a request is answered once its body is here."""

    def __init__(self, pacer: Pacer, counts: Counts, ids: "itertools.count[int]") -> None:
        self._pacer = pacer
        self._counts = counts
        self._ids = ids
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self._pace = Pace()
        self._writing = SITE
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports have no common base

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:head_end]
            length = _LENGTH.search(head)
            body_end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < body_end:
                return
            body, self._buffer = self._buffer[head_end + 4 : body_end], self._buffer[body_end:]
            method, target, _ = head[: head.index(b"\r\n")].split(b" ")
            self._answer(method, target, body)

    def send_due(self, due: int) -> int | None:
        """Send what was due at `due`; returns when the next is, None if that was all."""
        if self._transport is None:
            return None
        pace = self._pace
        self._left -= 1
        events = self._writing.events_at(due, pace.burst, pace.chunk_bytes)
        if self._left:
            self._transport.write(events)
            return due + pace.gap_micros
        self._transport.write(events + self._writing.end)
        return None

    def _answer(self, method: bytes, target: bytes, body: bytes) -> None:
        assert self._transport is not None
        path, _, query = target.partition(b"?")
        counts = self._counts
        if path.endswith(b"/api/v2/chat/completions"):
            counts.completed += 1
            self._stream(SITE, query.rpartition(b"=")[2], Pace.read(body))
            return
        if path == b"/v1/chat/completions":
            counts.completed += 1
            if _STREAMED.search(body):
                self._stream(API, b"", Pace.read(body))
            else:
                self._transport.write(_whole(api_whole(now_micros())))
            return
        if path.endswith(b"/api/v2/chats/new"):
            counts.created += 1
            self._transport.write(_envelope({"id": f"605fdeab-bcc7-4b00-ab4c-{next(self._ids):012x}"}))
        elif method == b"DELETE":
            counts.deleted += 1
            self._transport.write(_envelope({"status": True}))
        elif path.endswith((b"/models", b"/models/")):
            counts.listed += 1
            self._transport.write(_answer({"data": [_MODEL]}) if b"/v2/" not in path else _envelope({"data": [_MODEL]}))
        elif path.endswith(b"/auths/signin"):
            counts.signed_in += 1
            self._transport.write(_answer(_account()))
        elif path.endswith(b"/auths/"):
            self._transport.write(_answer(_account()))
        elif path == b"/bench/counts":
            self._transport.write(_answer(vars(counts)))
        elif path.startswith(b"/api/v2/users/"):
            self._transport.write(_envelope({}))
        else:
            self._transport.write(_answer({"detail": "Not Found"}, b"404 Not Found"))

    def _stream(self, writing: Writing, chat_id: bytes, pace: Pace) -> None:
        assert self._transport is not None
        now = now_micros()
        self._writing, self._pace, self._left = writing, pace, pace.writes
        head = writing.opened(chat_id)
        if pace.writes:
            self._transport.write(head)
            self._pacer.add(now, self)
        else:
            self._transport.write(head + writing.events_at(now, 1, 0) + writing.end)


def _answer(payload: object, status: bytes = b"200 OK") -> bytes:
    return _whole(json.dumps(payload).encode(), status)


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return _JSON_HEAD % (status, status[:3], len(body)) + body


def _envelope(data: object) -> bytes:
    return _answer({"success": True, "request_id": "0d3f2a9c-1f5b-4f6f-9d9c-0a3f5b1f7b11", "data": data})


def _account() -> dict[str, object]:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    account = "7c1f6f3e-0b4a-4f0e-9a55-2d9a0f5b7a10"
    expires = int(time.time()) + 30 * 86400
    token = ".".join((part({"alg": "HS256", "typ": "JWT"}), part({"id": account, "exp": expires}), "c2ln"))
    return {"id": account, "email": "bench@example.com", "role": "user", "token_type": "Bearer", "token": token}


_MODEL: dict[str, object] = {
    "id": MODEL, "name": "Qwen3.7-Plus", "object": "model", "owned_by": "qwen", "preset": True, "action_ids": [],
    "info": {
        "id": MODEL, "base_model_id": None, "name": "Qwen3.7-Plus", "is_active": True, "is_visitor_active": True,
        "meta": {
            "capabilities": {"vision": True, "document": True, "thinking": True, "search": True},
            "abilities": {"vision": 1, "document": 1, "thinking": 3}, "chat_type": ["t2t", "search"],
            "max_context_length": 1000000, "max_summary_generation_length": 65536, "modality": ["text"],
            "auto_thinking": True, "auto_search": True, "thinking_format": "summary", "think_skip": {"enable": True},
        },
    },
}  # fmt: skip


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    pacer, counts, ids = Pacer(loop), Counts(), itertools.count(1)
    server = await loop.create_server(lambda: Connection(pacer, counts, ids), "127.0.0.1", port, backlog=1024)
    gc.freeze()
    gc.disable()  # a collection would make every stream late at once; a run leaves little garbage in cycles
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    uvloop.run(serve(arguments.parse_args().port))
