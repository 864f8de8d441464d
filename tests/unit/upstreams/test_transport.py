"""The transport against real servers and real proxies on loopback."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from backports import zstd

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    ProxyError,
    ReplyCut,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.upstreams.transport import MAX_BODY_BYTES, Transport, TransportOptions
from tests.support.proxies import HttpProxy, Proxy, Socks5Proxy
from tests.support.wire_server import Answer, Visit, WireServer

CLOCK = SystemClock()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: yes\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
SHORT = TransportOptions(
    connect_seconds=0.2, headers_seconds=0.2, idle_seconds=0.2, watch_interval_seconds=0.02, keepalive_seconds=5
)


async def ok(visit: Visit) -> None:
    await visit.send(OK)


async def nothing(visit: Visit) -> None:
    await visit.until_left()


async def trickle(visit: Visit) -> None:
    """A stream that goes on until its reader leaves."""
    await visit.send(STREAM + b"\r\n")
    for _ in range(2000):
        await visit.chunk(b"x")
        await asyncio.sleep(0.005)


async def first_then_nothing(visit: Visit) -> None:
    await visit.send(STREAM + b"\r\n")
    await visit.chunk(b"first")
    await visit.until_left()


@asynccontextmanager
async def serving(
    answer: Answer, options: TransportOptions | None = None
) -> AsyncGenerator[tuple[WireServer, Transport]]:
    async with WireServer(answer) as server, Transport(CLOCK, options) as transport:
        yield server, transport


async def get(transport: Transport, url: str, exit: str = DIRECT, seconds: float = 10) -> bytes:
    response = await transport.request(
        exit, "POST", url, headers={"User-Agent": "t"}, body=b"q", timeout_seconds=seconds
    )
    return response.body


def within(seconds: float) -> float:
    return CLOCK.monotonic() + seconds


# --- plain exchanges ---------------------------------------------------------------------------------------


async def test_request_and_answer_arrive_whole() -> None:
    async with serving(ok) as (server, transport):
        response = await transport.request(
            DIRECT, "POST", server.url + "/a%2Fb?c=%20d", headers={"User-Agent": "t", "X-A": "1"}, body=b"hello",
            timeout_seconds=5,
        )  # fmt: skip
        assert (response.status, response.body, response.headers["x-seen"]) == (200, b"ok", "yes")
        head = server.visits[0].head
        assert head.startswith("POST /a%2Fb?c=%20d HTTP/1.1\r\n")
        assert "X-A: 1\r\n" in head and "User-Agent: t\r\n" in head and "Accept-Encoding: gzip, deflate, zstd" in head
        assert server.visits[0].body == b"hello"


async def test_connections_are_used_again_after_a_whole_body() -> None:
    async with serving(ok) as (server, transport):
        for _ in range(3):
            await get(transport, server.url)
        assert server.connections == 1


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    async def redirect(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with serving(redirect) as (server, transport):
        for _ in range(2):
            response = await transport.request(DIRECT, "GET", server.url, headers={}, timeout_seconds=5)
            assert response.status == 302
        assert "cookie" not in server.visits[1].head.lower()


async def test_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with serving(ok) as (server, transport):
        assert await get(transport, server.url) == b"ok"


async def test_a_body_over_the_cap_is_refused() -> None:
    async def endless(visit: Visit) -> None:
        await visit.send(STREAM + b"\r\n")
        while True:
            await visit.chunk(bytes(65536))

    async with serving(endless) as (server, transport):
        with pytest.raises(UpstreamProtocolError, match=str(MAX_BODY_BYTES)):
            await get(transport, server.url)
        await server.left.wait()


# --- streams -----------------------------------------------------------------------------------------------


def gzip_pieces(parts: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    return [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts] + [packer.flush()]


def deflate_pieces(parts: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj()
    return [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts] + [packer.flush()]


def zstd_pieces(parts: list[bytes]) -> list[bytes]:
    packer = zstd.ZstdCompressor()
    return [packer.compress(part, packer.FLUSH_BLOCK) for part in parts] + [packer.flush()]


def plain_pieces(parts: list[bytes]) -> list[bytes]:
    return [*parts, b""]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("identity", plain_pieces), ("gzip", gzip_pieces), ("deflate", deflate_pieces), ("zstd", zstd_pieces)],
)
async def test_each_flush_is_delivered_before_the_next_is_sent(
    encoding: str, pack: Callable[[list[bytes]], list[bytes]]
) -> None:
    parts = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]
    has_read = asyncio.Event()

    async def answer(visit: Visit) -> None:
        *pieces, end = pack(parts)
        await visit.send(STREAM + f"Content-Encoding: {encoding}\r\n\r\n".encode())
        for piece in pieces:
            await visit.chunk(piece)
            await has_read.wait()
            has_read.clear()
        if end:
            await visit.chunk(end)
        await visit.chunk(b"")

    async with serving(answer) as (server, transport):
        async with transport.stream(DIRECT, "POST", server.url, headers={}, body=b"{}", deadline=within(5)) as stream:
            for part in parts:
                assert await stream.read() == part
                has_read.set()
            assert await stream.read() == b""
            assert await stream.read() == b""
        assert server.connections == 1
        assert transport.open_streams == 0


async def test_leaving_before_the_end_closes_the_connection_at_once() -> None:
    async with serving(trickle) as (server, transport):
        async with transport.stream(DIRECT, "GET", server.url, headers={}, body=None, deadline=within(9)) as stream:
            await stream.read()
            assert transport.open_streams == 1
        assert transport.open_streams == 0
        await asyncio.wait_for(server.left.wait(), 1)


async def test_cancelling_a_reader_closes_the_connection_at_once() -> None:
    async with serving(first_then_nothing) as (server, transport):
        reading = asyncio.Event()

        async def read() -> None:
            async with transport.stream(DIRECT, "GET", server.url, headers={}, body=None, deadline=within(9)) as stream:
                await stream.read()
                reading.set()
                await stream.read()

        task = asyncio.ensure_future(read())  # noqa: TID251
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.left.wait(), 1)
        assert transport.open_streams == 0


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_body_that_breaks_off_is_a_cut_reply(end: str) -> None:
    async def answer(visit: Visit) -> None:
        await visit.send(STREAM + b"\r\n")
        await visit.chunk(b"first")
        await asyncio.wait_for(has_read.wait(), 5)
        if end == "reset":
            visit.reset()
        raise EOFError

    has_read = asyncio.Event()
    async with serving(answer) as (server, transport):
        async with transport.stream(DIRECT, "GET", server.url, headers={}, body=None, deadline=within(5)) as stream:
            assert await stream.read() == b"first"
            has_read.set()
            with pytest.raises(ReplyCut):
                await stream.read()


async def test_a_body_that_does_not_decompress_is_a_cut_reply() -> None:
    async def answer(visit: Visit) -> None:
        await visit.send(STREAM + b"Content-Encoding: gzip\r\n\r\n")
        await visit.chunk(gzip.compress(b"x")[:8] + b"nonsense" * 10)
        await visit.until_left()

    async with serving(answer) as (server, transport):
        with pytest.raises(ReplyCut):
            await get(transport, server.url)


# --- time --------------------------------------------------------------------------------------------------


async def test_headers_that_do_not_come() -> None:
    async with serving(nothing, SHORT) as (server, transport):
        with pytest.raises(UpstreamTimeout) as caught:
            await get(transport, server.url)
        assert caught.value.phase == "headers"
        await asyncio.wait_for(server.left.wait(), 1)


async def test_headers_that_do_not_come_on_a_connection_used_again() -> None:
    async def once(visit: Visit) -> None:
        await (ok if len(server.visits) == 1 else nothing)(visit)

    async with serving(once, SHORT) as (server, transport):
        await get(transport, server.url)
        with pytest.raises(UpstreamTimeout) as caught:
            await get(transport, server.url)
        assert (caught.value.phase, server.connections) == ("headers", 1)


async def test_a_connection_that_does_not_come() -> None:
    """TLS to a server that never answers the handshake."""
    async with serving(nothing, SHORT) as (server, transport):
        with pytest.raises(UpstreamTimeout) as caught:
            await get(transport, server.url.replace("http:", "https:"))
        assert caught.value.phase == "connect"


async def test_a_stream_that_goes_silent() -> None:
    async with serving(first_then_nothing, SHORT) as (server, transport):
        async with transport.stream(DIRECT, "GET", server.url, headers={}, body=None, deadline=within(9)) as stream:
            assert await stream.read() == b"first"
            with pytest.raises(UpstreamTimeout) as caught:
                await stream.read()
            assert caught.value.phase == "idle"
            await asyncio.wait_for(server.left.wait(), 1)


async def test_a_reader_that_takes_its_time_is_not_an_idle_stream() -> None:
    async def slowly(visit: Visit) -> None:
        await visit.send(STREAM + b"\r\n")
        await visit.chunk(b"first")
        await go_on.wait()
        await visit.chunk(b"second")
        await visit.until_left()

    go_on = asyncio.Event()
    async with serving(slowly, SHORT) as (server, transport):
        async with transport.stream(DIRECT, "GET", server.url, headers={}, body=None, deadline=within(9)) as stream:
            assert await stream.read() == b"first"
            await asyncio.sleep(3 * SHORT.idle_seconds)
            go_on.set()
            assert await stream.read() == b"second"


async def test_a_stream_that_takes_too_long_in_all() -> None:
    async with serving(trickle, SHORT) as (server, transport):
        with pytest.raises(UpstreamTimeout) as caught:
            await get(transport, server.url, seconds=0.15)
        assert caught.value.phase == "total"
        await asyncio.wait_for(server.left.wait(), 1)


async def test_a_deadline_before_the_headers() -> None:
    async with serving(nothing) as (server, transport):
        with pytest.raises(UpstreamTimeout) as caught:
            await get(transport, server.url, seconds=0.1)
        assert caught.value.phase == "total"


# --- what goes wrong before the headers --------------------------------------------------------------------


async def test_nobody_listens() -> None:
    async with Transport(CLOCK) as transport:
        with pytest.raises(UpstreamUnavailable, match="no connection"):
            await get(transport, "http://127.0.0.1:9")


async def test_an_unknown_name() -> None:
    async with Transport(CLOCK) as transport:
        with pytest.raises(UpstreamUnavailable, match="name not found"):
            await get(transport, "http://no-such-host.invalid")


async def test_a_post_on_a_connection_that_died_in_the_pool_is_told_and_not_sent_twice() -> None:
    async def once(visit: Visit) -> None:
        if len(server.visits) == 1:
            await visit.send(OK)
        else:
            raise EOFError

    async with serving(once) as (server, transport):
        await get(transport, server.url)
        with pytest.raises(UpstreamUnavailable, match="connection was closed"):
            await get(transport, server.url)
        assert len(server.visits) == 2


async def test_an_answer_that_is_not_http() -> None:
    async def answer(visit: Visit) -> None:
        await visit.send(b"SSH-2.0-whatever\r\n\r\n")

    async with serving(answer) as (server, transport):
        with pytest.raises(UpstreamProtocolError):
            await get(transport, server.url)


# --- exits -------------------------------------------------------------------------------------------------


def address(proxy: Proxy, credentials: str = "") -> str:
    scheme = "http" if isinstance(proxy, HttpProxy) else "socks5"
    return f"{scheme}://{credentials}{'@' if credentials else ''}127.0.0.1:{proxy.port}"


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
async def test_a_proxy_sees_every_call(kind: type[Proxy]) -> None:
    async with serving(ok) as (server, transport), kind() as proxy:
        for _ in range(2):
            assert await get(transport, server.url, address(proxy)) == b"ok"
        assert set(proxy.asked) == {f"localhost:{server.port}"}
        assert len(proxy.asked) == server.connections == 1


async def test_a_socks_proxy_resolves_names_whatever_its_scheme_says() -> None:
    async with serving(ok) as (server, transport), Socks5Proxy() as proxy:
        assert await get(transport, server.url, address(proxy).replace("socks5:", "socks5h:")) == b"ok"
        assert proxy.asked == [f"localhost:{server.port}"]


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
async def test_credentials_go_to_the_proxy_only(kind: type[Proxy]) -> None:
    async with serving(ok) as (server, transport), kind(credentials="user:pass") as proxy:
        assert await get(transport, server.url, address(proxy, "user:pass")) == b"ok"
        with pytest.raises(ExitUnreachable) as caught:
            await get(transport, server.url, address(proxy, "user:wrong"))
        assert "wrong" not in str(caught.value)
        assert len(server.visits) == 1
        assert kind is HttpProxy or "proxy-authorization" not in server.visits[0].head.lower()


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
async def test_with_a_dead_proxy_nothing_goes_directly(scheme: str) -> None:
    async with serving(ok) as (server, transport):
        with pytest.raises(ExitUnreachable):
            await get(transport, server.url, f"{scheme}://127.0.0.1:9")
        assert server.connections == 0


async def test_a_proxy_that_dies_later_ends_the_stream_and_nothing_goes_directly() -> None:
    async with serving(first_then_nothing) as (server, transport):
        async with HttpProxy() as proxy:
            exit = address(proxy)
            async with transport.stream(exit, "GET", server.url, headers={}, body=None, deadline=within(9)) as stream:
                await stream.read()
                await proxy.__aexit__(None, None, None)
                with pytest.raises(ReplyCut):
                    await stream.read()
        with pytest.raises(ExitUnreachable):
            await get(transport, server.url, exit)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("kind", "reply", "error"),
    [
        (HttpProxy, 403, ExitUnreachable),
        (HttpProxy, 502, UpstreamUnavailable),
        (Socks5Proxy, 1, ExitUnreachable),
        (Socks5Proxy, 5, UpstreamUnavailable),
    ],
)
async def test_what_a_refusing_proxy_says_tells_whose_fault_it_is(
    kind: type[Proxy], reply: int, error: type[ProxyError]
) -> None:
    async with Transport(CLOCK) as transport, kind(refuse=reply) as proxy:
        with pytest.raises(error):
            await get(transport, "https://localhost:9", address(proxy))


async def test_a_proxy_that_never_answers_is_the_exits_fault() -> None:
    async with serving(nothing, SHORT) as (server, transport):
        with pytest.raises(ExitUnreachable):
            await get(transport, "https://localhost:9", f"http://127.0.0.1:{server.port}")


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.mark.parametrize("kind", [None, HttpProxy, Socks5Proxy])
async def test_a_certificate_of_the_operators_own(certificate: tuple[Path, Path], kind: type[Proxy] | None) -> None:
    key, trusted = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(trusted, key)
    async with WireServer(ok, tls=tls) as server, (kind or HttpProxy)() as proxy:
        exit = DIRECT if kind is None else address(proxy)
        async with Transport(CLOCK, TransportOptions(ca_file=str(trusted))) as transport:
            assert await get(transport, server.url, exit) == b"ok"
        async with Transport(CLOCK) as transport:
            with pytest.raises(UpstreamUnavailable, match="TLS"):
                await get(transport, server.url, exit)
        assert len(proxy.asked) == (0 if kind is None else 2)
