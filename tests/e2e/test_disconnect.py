"""A client that leaves, in every phase of its request and in both ways of leaving; a slow one; a server that stops."""

import asyncio
import json
import socket
import struct
from typing import Literal

import psutil
import pytest

from qwen_proxy.serving.server import keep_alive
from qwen_proxy.simulator import Reply, Scenario, SendHeaders, frames
from tests.support.freed import freed, until
from tests.support.http import USER_KEY
from tests.support.running import Running, ask, running

Leaving = Literal["FIN", "RST"]


class Visit:
    """One request over a bare socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def leave(self, how: Leaving) -> None:
        if how == "RST":
            sock: socket.socket = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()
        await asyncio.wait([asyncio.ensure_future(self.writer.wait_closed())])  # noqa: TID251


async def visit(gateway: Running, body: dict[str, object]) -> Visit:
    port = int(gateway.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    text = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    writer.write(head.encode() + text)
    await writer.drain()
    return Visit(reader, writer)


async def until_generating(gateway: Running, count: int = 1) -> None:
    assert await until(lambda: gateway.simulator.open_generations >= count)


def unpunished(gateway: Running) -> bool:
    (report,) = gateway.pool.snapshot()
    return report.state == "ready" and report.failed == 0


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("phase", ["[[sim hang]]", "[[sim stall 0]] hello", "[[sim stall 5]] [[sim repeat 50]]"])
async def test_leaving_frees_everything_within_a_second(how: Leaving, streamed: bool, phase: str) -> None:
    async with running() as gateway:
        client = await visit(gateway, ask(phase, stream=streamed))
        await until_generating(gateway)
        if streamed and "repeat" in phase:
            await client.reader.readuntil(b"word5")
        await client.leave(how)
        assert await freed(gateway)
        assert gateway.simulator.seen("completions")[-1].closed_early
        assert unpunished(gateway)


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving_the_queue_for_an_account_takes_nothing(how: Leaving, streamed: bool) -> None:
    async with running(ACCOUNT_CONCURRENCY="1") as gateway:
        first = await visit(gateway, ask("[[sim stall 5]] [[sim repeat 50]]", stream=True))
        await until_generating(gateway)
        second = await visit(gateway, ask("second", stream=streamed))
        assert await until(lambda: gateway.pool.waiting == 1)
        await second.leave(how)
        assert await until(lambda: gateway.pool.waiting == 0, within_seconds=1)
        assert gateway.leases() == 1
        await first.leave(how)
        assert await freed(gateway)
        assert len(gateway.simulator.seen("completions")) == 1
        assert unpunished(gateway)


async def test_leaving_ends_every_one_of_several_choices() -> None:
    async with running(ACCOUNT_CONCURRENCY="3") as gateway:
        client = await visit(gateway, ask("[[sim stall 5]] [[sim repeat 50]]", stream=True, n=3))
        await until_generating(gateway, 3)
        await client.leave("RST")
        assert await freed(gateway)
        assert unpunished(gateway)


async def test_leaving_while_the_account_signs_in_lets_the_sign_in_finish_for_others() -> None:
    async with running(Scenario(latency={"signin_v1": 0.3})) as gateway:
        client = await visit(gateway, ask("hello"))
        assert await until(lambda: gateway.simulator.seen("signin_v1"))
        await client.leave("FIN")
        assert await freed(gateway)
        async with gateway.client.post("/v1/chat/completions", json=ask()) as response:
            assert response.status == 200
        assert len(gateway.simulator.seen("signin_v1")) == 1


async def test_a_client_that_reads_nothing_holds_the_upstream_back_and_costs_no_memory() -> None:
    piece = frames.answer("x" * 50_000)
    reply = Reply([frames.created(), *[piece] * 1000, frames.finished()])  # 50 MB
    async with running(Scenario(replies=[reply])) as gateway:
        client = await visit(gateway, ask("much", stream=True))
        await client.reader.readuntil(b"xxxx")
        process = psutil.Process()
        before = process.memory_info().rss
        await asyncio.sleep(1.0)  # long enough for all of it to come, were it not held back
        assert gateway.simulator.open_generations == 1
        assert process.memory_info().rss - before < 16 * 1024 * 1024
        await client.leave("RST")
        assert await freed(gateway)


async def test_a_server_that_drains_lets_a_stream_end_and_takes_no_new_request() -> None:
    async with running() as gateway:
        client = await visit(gateway, ask("[[sim slow 20ms]] [[sim repeat 20]]", stream=True))
        await client.reader.readuntil(b"word2")
        drained = asyncio.ensure_future(gateway.server.drain(10))  # noqa: TID251
        await asyncio.sleep(0)
        rest = await asyncio.wait_for(client.reader.readuntil(b"[DONE]"), 5)
        assert b"word20" in rest
        await asyncio.wait_for(drained, 5)
        with pytest.raises(ConnectionRefusedError):
            await visit(gateway, ask())
        await client.leave("FIN")
        assert await freed(gateway)


async def test_a_drain_that_takes_too_long_tells_its_streams_and_ends() -> None:
    async with running() as gateway:
        streaming = await visit(gateway, ask("[[sim stall 3]] [[sim repeat 20]]", stream=True))
        await streaming.reader.readuntil(b"word3")
        pending = await visit(gateway, ask("[[sim hang]]"))
        await until_generating(gateway, 2)
        await asyncio.wait_for(gateway.server.drain(0.2), 5)
        assert b"shutting_down" in await asyncio.wait_for(streaming.reader.read(), 5)
        assert (await asyncio.wait_for(pending.reader.readline(), 5)).startswith(b"HTTP/1.1 503")
        await streaming.leave("FIN")
        await pending.leave("FIN")
        assert await freed(gateway)


async def test_a_stream_whose_headers_went_out_with_a_heartbeat_is_freed_too() -> None:
    reply = Reply([SendHeaders(), *[frames.keep_alive()] * 3, frames.created(), frames.answer("hi")])
    scenario = Scenario(replies=[reply], latency={"completions": 0.0})
    async with running(scenario, HEADER_COMMIT_SECONDS="0", HEARTBEAT_SECONDS="0.05") as gateway:
        client = await visit(gateway, ask("[[sim hang]]", stream=True))
        await client.leave("FIN")
        assert await freed(gateway)
    async with running(HEADER_COMMIT_SECONDS="0.1", HEARTBEAT_SECONDS="0.05") as gateway:
        client = await visit(gateway, ask("[[sim stall 0]] hello", stream=True))
        await client.reader.readuntil(b": keep-alive")
        await client.leave("RST")
        assert await freed(gateway)
        assert unpunished(gateway)


async def test_leaving_in_the_middle_of_its_body_asks_nothing() -> None:
    async with running() as gateway:
        port = int(gateway.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Length: 900\r\n\r\n"
        writer.write(head.encode() + b'{"messages": [')
        await writer.drain()
        await Visit(reader, writer).leave("FIN")
        assert await freed(gateway)
        assert gateway.simulator.seen("chats_new") == []


def test_connections_inherit_the_probes_that_find_a_vanished_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keep_alive(listener)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert not client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
