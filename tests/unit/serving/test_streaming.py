"""When the status line goes out, and what keeps a silent stream alive."""

import asyncio

import aiohttp
from aiohttp import web

from qwen_proxy.ground.errors import UpstreamOverloaded
from qwen_proxy.serving.endpoint import Access, Exchange
from qwen_proxy.serving.streaming import Heartbeats, StreamedReply
from tests.support.clock import FakeClock
from tests.support.http import raw, serving

BEAT = b": beat\n\n"


class Stage:
    """A handler that streams when it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.beats = Heartbeats(clock, header_commit_seconds=15, heartbeat_seconds=10)
        self.pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.watched = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        headers = [("Content-Type", "text/event-stream")]
        reply = StreamedReply(exchange.http, headers, BEAT, self.clock.monotonic())
        exchange.stream, exchange.tell = reply, lambda error: b"told"
        with self.beats.watch(reply):
            self.watched.set()
            while (piece := await self.pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                await reply.write(piece, self.clock.monotonic())
            await reply.end()
        return reply.response


async def test_nothing_is_sent_before_the_first_piece_or_the_time_to_commit() -> None:
    clock = FakeClock()
    stage = Stage(clock)
    async with serving(stage, Access.OPEN) as served, aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(served.url))  # noqa: TID251
        await asyncio.wait_for(stage.watched.wait(), 2)
        await clock.advance(14)
        await stage.beats.tick()
        await asyncio.sleep(0.02)
        assert not asking.done()
        await clock.advance(1)
        await stage.beats.tick()
        async with await asking as response:
            assert await response.content.read(len(BEAT)) == BEAT
            await stage.pieces.put(b"data: 1\n\n")
            assert await response.content.readline() == b"data: 1\n"
            await stage.pieces.put(None)
            assert await response.content.read() == b"\n"


async def received(request: bytes, *pieces: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to a request, as they are on the wire."""
    stage = Stage(FakeClock())
    async with serving(stage, Access.OPEN) as served:
        reader, writer = await raw(served.port, request)
        for piece in pieces:
            await stage.pieces.put(piece)
        await stage.pieces.put(None)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
    return head, body


async def test_every_piece_is_one_chunk_and_an_empty_one_is_none() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, body = await received(request, b"one", b"two and more", b"", b"x" * 300)
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\nc\r\ntwo and more\r\n12c\r\n" + b"x" * 300 + b"\r\n0\r\n\r\n"


async def test_a_client_that_knows_no_chunks_gets_none() -> None:
    head, body = await received(b"POST / HTTP/1.0\r\n\r\n", b"one", b"two")
    assert b"chunked" not in head
    assert body == b"onetwo"


async def test_a_failure_before_the_time_to_commit_has_its_true_status_and_afterwards_not() -> None:
    for seconds, status in ((14, 503), (15, 200)):
        clock = FakeClock()
        stage = Stage(clock)
        async with serving(stage, Access.OPEN) as served, aiohttp.ClientSession() as session:
            asking = asyncio.ensure_future(session.post(served.url))  # noqa: TID251
            await asyncio.wait_for(stage.watched.wait(), 2)
            await clock.advance(seconds)
            await stage.beats.tick()
            await stage.pieces.put(UpstreamOverloaded())
            async with await asking as response:
                assert response.status == status
                assert ((await response.read()) == BEAT + b"told") == (status == 200)


async def test_a_beat_comes_only_after_silence() -> None:
    clock = FakeClock()
    stage = Stage(clock)
    async with serving(stage, Access.OPEN) as served, aiohttp.ClientSession() as session:
        await stage.pieces.put(b"first")
        async with session.post(served.url) as response:
            assert await response.content.read(5) == b"first"
            await clock.advance(6)
            await stage.pieces.put(b"again")
            assert await response.content.read(5) == b"again"
            await clock.advance(6)
            await stage.beats.tick()  # 12 s since the first, 6 s since the second piece
            await clock.advance(4)
            await stage.beats.tick()
            assert await response.content.read(len(BEAT)) == BEAT
            await stage.pieces.put(None)
            assert await response.content.read() == b""


async def test_the_ticker_ticks_by_itself_until_it_is_cancelled() -> None:
    clock = FakeClock()
    stage = Stage(clock)
    async with serving(stage, Access.OPEN) as served, aiohttp.ClientSession() as session:
        ticking = asyncio.ensure_future(stage.beats.run())  # noqa: TID251
        asking = asyncio.ensure_future(session.post(served.url))  # noqa: TID251
        await asyncio.wait_for(stage.watched.wait(), 2)
        await clock.advance(16)
        async with await asking as response:
            assert await response.content.read(len(BEAT)) == BEAT
        ticking.cancel()
        await asyncio.wait([ticking])


async def test_a_client_that_left_does_not_stop_the_ticker() -> None:
    clock = FakeClock()
    stage = Stage(clock)
    async with serving(stage, Access.OPEN) as served, aiohttp.ClientSession() as session:
        await stage.pieces.put(b"first")
        async with session.post(served.url) as response:
            await response.content.read(5)
            response.close()
        await clock.advance(11)
        await stage.beats.tick()
        await stage.beats.tick()


async def test_headers_that_go_out_at_once_do_not_make_the_ticker_spin() -> None:
    clock = FakeClock()
    ticking = asyncio.ensure_future(  # noqa: TID251
        Heartbeats(clock, header_commit_seconds=0, heartbeat_seconds=10).run()
    )
    await clock.settle()
    assert clock.sleepers == 1
    ticking.cancel()
    await asyncio.wait([ticking])
