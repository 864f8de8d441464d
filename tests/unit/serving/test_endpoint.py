"""What stands around every route, seen from the wire."""

import asyncio
import json
import logging

import aiohttp
import pytest
from aiohttp import web

from qwen_proxy.ground.errors import QuotaExhausted
from qwen_proxy.serving.endpoint import Access, Exchange, incoming
from qwen_proxy.serving.streaming import StreamedReply
from tests.support.http import ADMIN_KEY, USER_KEY, raw, serving

USER = {"Authorization": f"Bearer {USER_KEY}"}
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


async def echo(exchange: Exchange) -> web.StreamResponse:
    return web.Response(body=(await incoming(exchange)).body)


async def test_a_caller_is_known_before_the_body_is_read() -> None:
    async with serving(echo) as served:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
        reader, writer = await raw(served.port, head)  # no byte of the body is ever sent
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 401")
        writer.close()


async def test_an_error_has_the_protocols_shape_and_a_request_id() -> None:
    async def fail(exchange: Exchange) -> web.StreamResponse:
        raise QuotaExhausted(90)

    async with serving(fail) as served, aiohttp.ClientSession() as session:
        async with session.post(served.url, headers=USER) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "90"
            assert response.headers["x-request-id"].startswith("req_")
            assert (await response.json())["error"]["code"] == "upstream_quota"


async def test_a_bug_is_a_500_that_tells_nothing() -> None:
    async def fail(exchange: Exchange) -> web.StreamResponse:
        raise KeyError("sk-very-secret")

    async with serving(fail) as served, aiohttp.ClientSession() as session:
        async with session.post(served.url, headers=USER) as response:
            assert response.status == 500
            assert "secret" not in await response.text()


async def test_a_body_beyond_the_cap_is_refused_by_name() -> None:
    async with serving(echo) as served, aiohttp.ClientSession() as session:
        async with session.post(served.url, headers=USER, data=b"x" * 1001) as response:
            assert response.status == 413
            assert "1000" in (await response.json())["error"]["message"]


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with serving(echo, read_seconds=0.1) as served:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Length: 2\r\n\r\n{{"
        reader, writer = await raw(served.port, head.encode())
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 408")
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: x\r\nx-api-"])
async def test_a_connection_that_does_not_ask_is_closed(sent: bytes) -> None:
    async with serving(echo, read_seconds=0.1) as served:
        reader, writer = await raw(served.port, sent)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_a_connection_that_has_asked_may_wait_for_its_answer_and_between_requests() -> None:
    async def slow(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.Response(body=b"{}")

    async with serving(slow, read_seconds=0.1) as served:
        reader, writer = await raw(served.port, b"")
        for _ in range(2):
            writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.readuntil(b"{}"), 2)).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)
        writer.close()


async def test_an_admin_route_refuses_a_users_key() -> None:
    async with serving(echo, Access.ADMIN) as served, aiohttp.ClientSession() as session:
        async with session.get(served.url, headers=USER) as response:
            assert response.status == 403
        async with session.get(served.url, headers=ADMIN) as response:
            assert response.status == 200


async def test_a_failure_behind_the_headers_is_told_in_the_stream() -> None:
    async def stream(exchange: Exchange) -> web.StreamResponse:
        reply = StreamedReply(exchange.http, [("Content-Type", "text/event-stream")], b": beat\n\n", 0)
        exchange.stream, exchange.tell = reply, lambda error: f"told: {error}".encode()
        await reply.write(b"data: 1\n\n", 0)
        raise QuotaExhausted

    async with serving(stream) as served, aiohttp.ClientSession() as session:
        async with session.post(served.url, headers=USER) as response:
            assert response.status == 200
            assert (await response.text()).startswith("data: 1\n\ntold: the account's quota")


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(exchange: Exchange) -> web.StreamResponse:
        await incoming(exchange)
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with serving(wait) as served:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
        _, writer = await raw(served.port, head.encode())
        await asyncio.wait_for(started.wait(), 2)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 1)
        await asyncio.sleep(0)
        assert served.endpoints.active == 0


async def test_draining_lets_requests_end_and_closes_their_connections() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(exchange: Exchange) -> web.StreamResponse:
        started.set()
        await go_on.wait()
        return web.Response(body=b"{}")

    async with serving(wait) as served, aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(served.url, headers=USER))  # noqa: TID251
        await asyncio.wait_for(started.wait(), 2)
        draining = asyncio.ensure_future(served.server.drain(10))  # noqa: TID251
        await asyncio.sleep(0.05)
        assert not draining.done()
        go_on.set()
        async with await asking as response:
            assert response.status == 200
            assert response.headers["Connection"] == "close"
        await asyncio.wait_for(draining, 2)


async def test_a_drain_that_takes_too_long_tells_the_rest() -> None:
    async def wait(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with serving(wait) as served, aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(served.url, headers=USER))  # noqa: TID251
        while not served.endpoints.active:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.01)
        await served.server.drain(0.05)
        async with await asking as response:
            assert response.status == 503
            assert "shutting down" in json.loads(await response.text())["error"]["message"]


@pytest.mark.parametrize(
    ("access", "method", "is_shown"),
    [(Access.OPEN, "GET", False), (Access.OPEN, "POST", True), (Access.KEY, "GET", True), (Access.KEY, "POST", True)],
)
async def test_what_only_looks_at_open_routes_leaves_no_line_and_a_sign_in_does(
    access: Access, method: str, is_shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo, access) as served, aiohttp.ClientSession(headers=USER) as session:
        with caplog.at_level(logging.INFO):
            async with session.request(method, served.url) as response:
                assert response.status == 200
    assert ("request" in [record.message for record in caplog.records]) is is_shown
