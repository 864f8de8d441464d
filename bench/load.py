"""The load: streams, bursts and short chats against one proxy, measured from the client's side.

Runs in a process of its own (`python -m bench.load '{...}'`, a `Task` as JSON), prints one JSON object. Replies are
not parsed but searched: every event holds the time at which it was due after an `@` (bench.replies), a reply ends
with the last chunk, or where its head says. CPU time and memory of the proxy under load are read here too, so that
the window they span is the one whose events were counted.
"""

import asyncio
import gc
import json
import random
import re
import sys
from collections.abc import Awaitable, Callable

import msgspec
import uvloop

from bench.processes import core_seconds, cpu_seconds, memory_kb
from bench.replies import MODEL
from bench.report import summary
from bench.upstream import now_micros

_STAMP = 17  # "@" and sixteen digits
_WHOLE = re.compile(rb"\A.*?\r\ncontent-length: *(\d+).*?\r\n\r\n", re.IGNORECASE | re.DOTALL)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: `scenario` names a function of this module, `counts` are its sizes, `seconds` its times.

    direct: where the upstream itself takes the same request. stream: whether replies are wanted as events.
    """

    scenario: str
    port: int
    pid: int
    core: int
    upstream_port: int
    key: str
    direct: str
    stream: bool = True
    counts: dict[str, int]
    seconds: dict[str, float]


class Recorder:
    """What all connections of a run count together."""

    def __init__(self) -> None:
        self.events = 0
        self.recording = False
        self.late_micros: list[int] = []
        self.failures: list[str] = []


class Client(asyncio.Protocol):
    """One keep-alive connection: `ask` again once the reply has ended."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tail = b""
        self._asked_at = 0
        self._begun = False
        self._left = -1  # bytes to come of an answer that has a length
        self._ended: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.first_event_micros: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports have no common base

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("connection lost before the reply had ended")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ask(self, request: bytes) -> None:
        """Returns when the reply has ended; what went wrong stands in the recorder."""
        assert self._transport is not None
        self._tail, self._begun, self.first_event_micros = b"", False, None
        self._ended = asyncio.get_running_loop().create_future()
        self._asked_at = now_micros()
        self._transport.write(request)
        await self._ended

    def data_received(self, data: bytes) -> None:
        now = now_micros()
        if not self._begun:
            self._begun = True
            if not data.startswith(b"HTTP/1.1 200"):
                self._end(data[:300].decode(errors="replace"))
            whole = _WHOLE.match(data)
            self._left = whole.end() + int(whole[1]) if whole else -1
        self._left -= len(data)
        if self._tail:
            data = self._tail + data
        end = len(data)
        found = data.find(b"@")
        while 0 <= found <= end - _STAMP:
            self._event(data[found + 1 : found + _STAMP], now)
            found = data.find(b"@", found + _STAMP)
        if data.endswith(_LAST_CHUNK) or self._left == 0:
            self._end(None if self.first_event_micros is not None else "no event in the reply")
        else:
            # A stamp that was cut, or what may be the beginning of the last chunk: neither is counted twice.
            self._tail = data[found:] if found >= 0 else data[-(len(_LAST_CHUNK) - 1) :]

    def _event(self, due: bytes, now: int) -> None:
        recorder = self._recorder
        recorder.events += 1
        if recorder.recording and due.isdigit():  # it is not, where a chunk of the body ends within it
            recorder.late_micros.append(now - int(due))
        if self.first_event_micros is None:
            self.first_event_micros = now - self._asked_at

    def _end(self, failure: str | None) -> None:
        if self._ended is not None and not self._ended.done():
            if failure is not None:
                self._recorder.failures.append(failure)
            self._ended.set_result(None)


class Load:
    """What the scenarios share: connections to the proxy and to the upstream, requests, the window."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.recorder = Recorder()
        self.probes = Recorder()

    def request(self, text: str) -> bytes:
        """A chat, as a program sends it."""
        body = json.dumps(
            {"model": MODEL, "stream": self.task.stream, "messages": [{"role": "user", "content": text}]}
        ).encode()
        accept = "text/event-stream" if self.task.stream else "application/json"
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Accept: {accept}\r\nAuthorization: Bearer {self.task.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def direct_request(self, text: str) -> bytes:
        """The same to the upstream itself: the one call that answers."""
        return self.request(text).replace(b"/v1/chat/completions", self.task.direct.encode(), 1)

    async def connect(self, port: int, recorder: Recorder) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(lambda: Client(recorder), "127.0.0.1", port)
        return client

    async def shorts(self, connections: int, each: int) -> list[int]:
        """Short chats, `each` one after the other on every connection; their times to the first event."""
        request = self.request("short")
        times: list[int] = []

        async def one_after_the_other() -> None:
            client = await self.connect(self.task.port, self.recorder)
            for _ in range(each):
                await client.ask(request)
                if client.first_event_micros is not None:
                    times.append(client.first_event_micros)
            client.close()

        await asyncio.gather(*(one_after_the_other() for _ in range(connections)))
        return times

    async def upstream_counts(self) -> dict[str, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.task.upstream_port)
        writer.write(b"GET /bench/counts HTTP/1.1\r\nHost: upstream\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        counts: dict[str, int] = json.loads(await reader.readexactly(length))
        writer.close()
        return counts

    async def settled(self) -> dict[str, int]:
        """The upstream's counts once every chat is deleted, or after ten seconds."""
        for _ in range(200):
            counts = await self.upstream_counts()
            if counts["deleted"] >= counts["created"]:
                break
            await asyncio.sleep(0.05)
        return counts

    async def window(self, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
        """What `work` took, in seconds: `cpu`, `others` (on the proxy's core) and by the clock; and its events.

        The lateness of events is recorded meanwhile.
        """
        task, recorder = self.task, self.recorder
        recorder.recording = True
        started, events = now_micros(), recorder.events
        cpu, core = cpu_seconds(task.pid), core_seconds(task.core)
        await work()
        cpu, core = cpu_seconds(task.pid) - cpu, core_seconds(task.core) - core
        recorder.recording = False
        return {
            "cpu": cpu,
            "others": max(0.0, core - cpu),
            "events": recorder.events - events,
            "seconds": (now_micros() - started) / 1e6,
        }

    async def paced(self, count: int, text: str, over_seconds: float) -> list[asyncio.Task[int | None]]:
        """Open `count` streams, evenly staggered; each task ends with its stream."""
        request = self.request(text)

        async def stream() -> int | None:
            client = await self.connect(self.task.port, self.recorder)
            await client.ask(request)
            client.close()
            return client.first_event_micros

        loop = asyncio.get_running_loop()
        begun, tasks = loop.time(), []
        for index in range(count):
            await asyncio.sleep(begun + index * over_seconds / count - loop.time())
            tasks.append(asyncio.create_task(stream()))
        return tasks


def pace(seconds: float, rate: int, burst: int, chunk_bytes: int) -> str:
    """The text that makes bench.upstream answer so (`Pace.read`)."""
    return f"events={round(seconds * rate)} rate={rate} burst={burst} chunk={chunk_bytes}"


async def streams(load: Load) -> dict[str, object]:
    """Many streams, open together: CPU per event, lateness, memory; then the time to the first event of new ones."""
    counts, seconds = load.task.counts, load.task.seconds
    await load.shorts(8, 10)
    idle = memory_kb(load.task.pid)
    total = seconds["ramp"] + seconds["warm"] + seconds["window"] + seconds["probes"] + 1.0
    tasks = await load.paced(counts["streams"], pace(total, counts["rate"], 1, 0), seconds["ramp"])
    await asyncio.sleep(seconds["warm"])
    window = await load.window(lambda: asyncio.sleep(seconds["window"]))
    busy = memory_kb(load.task.pid)
    direct, proxied = await probe(load, seconds["probes"], counts["probe_rate"])
    open_at_probes = sum(not task.done() for task in tasks)
    first = await asyncio.gather(*tasks)
    return window | {
        "late_ms": summary(load.recorder.late_micros),
        "rss_kb": busy["rss"] - idle["rss"],
        "uss_kb": busy["uss"] - idle["uss"],
        "idle_rss_kb": idle["rss"],
        "first_ms": summary([time for time in first if time is not None]),
        "direct_ms": summary(direct),
        "proxied_ms": summary(proxied),
        "open_at_probes": open_at_probes,
    }


async def probe(load: Load, over_seconds: float, rate: int) -> tuple[list[int], list[int]]:
    """Short chats at irregular times, each on a connection of its own, by turns direct and through the proxy."""
    times: tuple[list[int], list[int]] = ([], [])
    ports = load.task.upstream_port, load.task.port
    requests = load.direct_request("short"), load.request("short")
    chance = random.Random(7)

    async def one(way: int) -> None:
        client = await load.connect(ports[way], load.probes)
        await client.ask(requests[way])
        if client.first_event_micros is not None:
            times[way].append(client.first_event_micros)
        client.close()

    tasks: list[asyncio.Task[None]] = []
    for index in range(round(over_seconds * rate)):
        tasks.append(asyncio.create_task(one(index % 2)))
        await asyncio.sleep(chance.uniform(0.5, 1.5) / rate)
    await asyncio.gather(*tasks)
    return times


async def bursts(load: Load) -> dict[str, object]:
    """A few streams that bring many events at once, again and again: CPU per event where reads are full."""
    counts, seconds = load.task.counts, load.task.seconds
    await load.shorts(8, 10)
    text = pace(seconds["warm"] + seconds["window"] + 0.5, counts["rate"], counts["burst"], counts["chunk"])
    tasks = await load.paced(counts["streams"], text, 1 / counts["rate"])
    await asyncio.sleep(seconds["warm"])
    window = await load.window(lambda: asyncio.sleep(seconds["window"]))
    await asyncio.gather(*tasks)
    return dict(window)


async def shorts(load: Load) -> dict[str, object]:
    """Chats of one event on kept connections: CPU per chat, with the deletion of its upstream chat."""
    counts = load.task.counts
    await load.shorts(counts["connections"], counts["warm"])
    before = await load.settled()
    after: dict[str, int] = {}

    async def work() -> None:
        await load.shorts(counts["connections"], counts["each"])
        after.update(await load.settled())

    window = await load.window(work)
    chats = counts["connections"] * counts["each"]
    calls = sum(after[name] - before[name] for name in ("created", "completed", "deleted"))
    return window | {"chats": chats, "calls_per_chat": calls / chats}


async def run(task: Task) -> dict[str, object]:
    scenarios = {"streams": streams, "bursts": bursts, "shorts": shorts}
    gc.disable()  # a collection here would count as lateness of the proxy
    load = Load(task)
    measured = await scenarios[task.scenario](load)
    return measured | {"failures": [*load.recorder.failures, *load.probes.failures]}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Task)))))
