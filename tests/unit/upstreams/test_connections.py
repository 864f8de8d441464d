"""Connections that are kept, and that are made through exits, on both event loops."""

import asyncio
import shutil
import ssl
import subprocess
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import uvloop

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import ExitUnreachable, UpstreamUnavailable
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.upstreams.connections import Pool, Route
from qwen_proxy.upstreams.http1 import Connection
from qwen_proxy.upstreams.transport import Transport, TransportOptions
from tests.support.clock import FakeClock
from tests.support.proxies import HttpProxy, Proxy, Socks5Proxy
from tests.support.waiting import until
from tests.support.wire_server import Visit, WireServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOOPS: tuple[Callable[[], asyncio.AbstractEventLoop], ...] = (asyncio.new_event_loop, uvloop.new_event_loop)


async def ok(visit: Visit) -> None:
    await visit.send(OK)


async def ok_once(visit: Visit) -> None:
    await visit.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


async def get(transport: Transport, url: str, exit: str = DIRECT, method: str = "GET") -> bytes:
    return (await transport.request(exit, method, url, headers={}, timeout_seconds=10)).body


async def use(pool: Pool, route: Route) -> Connection:
    """One exchange, on what waits or on a new connection."""
    connection = pool.take(route) or await pool.connect(route)
    await connection.exchange(route.render("GET", "/", {}, None))
    while await connection.read():
        pass
    pool.put_back(route, connection)
    return connection


@asynccontextmanager
async def pooling(clock: FakeClock) -> AsyncGenerator[tuple[WireServer, Pool, Route]]:
    pool = Pool(clock.monotonic, 30, None)
    async with WireServer(ok) as server:
        yield server, pool, pool.route(DIRECT, server.url + "/")[0]
        await pool.close()


# --- the pool ----------------------------------------------------------------------------------------------


async def test_the_connection_used_last_is_used_next() -> None:
    async with pooling(FakeClock()) as (server, pool, route):
        first, second = await pool.connect(route), await pool.connect(route)
        for connection in (first, second):
            await connection.exchange(route.render("GET", "/", {}, None))
            pool.put_back(route, connection)
        assert await use(pool, route) is second
        assert server.connections == 2


async def test_a_connection_waits_for_its_time_and_not_longer() -> None:
    clock = FakeClock()
    async with pooling(clock) as (server, pool, route):
        first = await use(pool, route)
        await clock.advance(29)
        pool.sweep()
        assert await use(pool, route) is first
        await clock.advance(31)
        assert await use(pool, route) is not first
        await clock.advance(31)
        pool.sweep()
        assert not route.idle
        await until(lambda: server.left.is_set())


async def test_a_connection_that_the_other_side_closes_while_it_waits_is_forgotten() -> None:
    async def once(visit: Visit) -> None:
        await visit.send(OK)
        raise EOFError

    async with WireServer(once) as server, Transport(SystemClock()) as transport:
        for _ in range(2):
            assert await get(transport, server.url) == b"ok"
            await until(server.left.is_set)
            await asyncio.sleep(0.02)
        assert server.connections == 2


async def test_a_route_lives_as_long_as_its_connections() -> None:
    async with pooling(FakeClock()) as (_, pool, found):
        origin = f"http://127.0.0.1:{found.port}"
        route, target = pool.route(DIRECT, origin + "/x")
        seen = weakref.ref(route)
        (await use(pool, route)).rest()
        del route
        again, _ = pool.route(DIRECT, origin)
        assert (again is seen(), target, len(again.idle)) == (True, "/x", 1)
        next(iter(again.idle)).abort()
        del again
        await until(lambda: seen() is None)


@pytest.mark.parametrize("url", ["", "ftp://a/", "//a/", "http://", "http://a:port/", "http://a:99999/", "http://[a/"])
async def test_what_is_not_an_address(url: str) -> None:
    async with Transport(SystemClock()) as transport:
        with pytest.raises(UpstreamUnavailable, match="not an address"):
            await get(transport, url)


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://a", b"GET / HTTP/1.1", "a"),
        ("http://a:81?b#c", b"GET /?b HTTP/1.1", "a:81"),
        ("http://[::1]:81/x#y", b"GET /x HTTP/1.1", "[::1]:81"),
        ("https://user:pw@A/x%20y", b"GET /x%20y HTTP/1.1", "a"),
    ],
)
def test_a_url_becomes_a_request(url: str, line: bytes, host: str) -> None:
    route, target = Pool(FakeClock().monotonic, 30, None).route(DIRECT, url)
    first, second, *_ = route.render("GET", target, {}, None).split(b"\r\n")
    assert (first, second) == (line, f"Host: {host}".encode())


def test_a_proxy_is_told_the_whole_address_and_who_asks() -> None:
    exit = "http://us%40er:p%3Aw@proxy:3128"
    pool = Pool(FakeClock().monotonic, 30, None)
    route, target = pool.route(exit, "http://[::1]/x")
    assert route.render("GET", target, {}, None) == (
        b"GET http://[::1]/x HTTP/1.1\r\nHost: [::1]\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, zstd\r\n"
        b"Proxy-Authorization: Basic dXNAZXI6cDp3\r\n\r\n"
    )
    route, target = pool.route(exit, "https://[::1]/x")
    assert route.connect_request().startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
    assert b"Proxy-Authorization: Basic dXNAZXI6cDp3\r\n" in route.connect_request()
    assert b"Proxy" not in route.render("GET", target, {}, None)


# --- one that died in the pool -----------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "visits"), [("GET", 3), ("DELETE", 3), ("POST", 2)])
async def test_only_what_may_be_done_twice_is_sent_again(method: str, visits: int) -> None:
    async def second_dies(visit: Visit) -> None:
        if len(server.visits) == 2:
            raise EOFError
        await visit.send(OK)

    async with WireServer(second_dies) as server, Transport(SystemClock()) as transport:
        await get(transport, server.url)
        if method == "POST":
            with pytest.raises(UpstreamUnavailable, match="connection was closed"):
                await get(transport, server.url, method=method)
        else:
            assert await get(transport, server.url, method=method) == b"ok"
        assert len(server.visits) == visits


@pytest.mark.parametrize("first_bytes", [b"", b"HTTP/1.1 2"])
async def test_it_is_sent_again_once_and_only_if_nothing_was_answered(first_bytes: bytes) -> None:
    async def later_die(visit: Visit) -> None:
        if len(server.visits) > 1:
            await visit.send(first_bytes)
            raise EOFError
        await visit.send(OK)

    async with WireServer(later_die) as server, Transport(SystemClock()) as transport:
        await get(transport, server.url)
        with pytest.raises(UpstreamUnavailable, match="connection was closed"):
            await get(transport, server.url)
        assert len(server.visits) == (2 if first_bytes else 3)


async def test_an_answer_to_head_ends_with_its_headers() -> None:
    async def head(visit: Visit) -> None:
        await visit.send(OK[:-2])

    async with WireServer(head) as server, Transport(SystemClock()) as transport:
        assert await get(transport, server.url, method="HEAD") == b""
        assert await get(transport, server.url, method="HEAD") == b""
        assert server.connections == 2


# --- exits, on both loops ----------------------------------------------------------------------------------


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


def server_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    key, chain = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    return tls


def run(loop: Callable[[], asyncio.AbstractEventLoop], what: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(what)


@asynccontextmanager
async def tls_proxy(tls: ssl.SSLContext, credentials: str) -> AsyncGenerator[tuple[HttpProxy, str]]:
    """An HTTP proxy that is spoken to over TLS."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await proxy.serve(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async with HttpProxy(credentials=credentials) as proxy:
        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        yield proxy, f"localhost:{server.sockets[0].getsockname()[1]}"
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("is_tls_inside", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_proxy_that_is_spoken_to_over_tls(
    certificate: tuple[Path, Path], loop: Callable[[], asyncio.AbstractEventLoop], is_tls_inside: bool
) -> None:
    async def main() -> None:
        tls = server_side(certificate)
        options = TransportOptions(ca_file=str(certificate[1]))
        async with tls_proxy(tls, credentials="user:pw") as (proxy, address):
            async with WireServer(ok, tls=tls if is_tls_inside else None) as server:
                async with Transport(SystemClock(), options) as transport:
                    for _ in range(2):
                        assert await get(transport, server.url, f"https://user:pw@{address}") == b"ok"
                    with pytest.raises(ExitUnreachable):
                        await get(transport, server.url, f"https://{address}")
                async with Transport(SystemClock()) as transport:
                    with pytest.raises(ExitUnreachable, match="TLS"):
                        await get(transport, server.url, f"https://user:pw@{address}")
                assert proxy.asked == [f"localhost:{server.port}"] and server.connections == 1

    run(loop, main())


@pytest.mark.parametrize("kind", [None, HttpProxy, Socks5Proxy])
@pytest.mark.parametrize("loop", LOOPS)
def test_cancelling_at_any_moment_leaves_nothing_open(
    certificate: tuple[Path, Path], loop: Callable[[], asyncio.AbstractEventLoop], kind: type[Proxy] | None
) -> None:
    # asyncio's own server forgets a client that leaves in the middle of a handshake; uvloop's, which we run, does not.
    tls = server_side(certificate) if loop is uvloop.new_event_loop else None

    async def main() -> None:
        async with WireServer(ok_once, tls=tls) as server, (kind or HttpProxy)() as proxy:
            scheme = "socks5" if kind is Socks5Proxy else "http"
            exit = DIRECT if kind is None else f"{scheme}://127.0.0.1:{proxy.port}"
            async with Transport(SystemClock(), TransportOptions(ca_file=str(certificate[1]))) as transport:
                done = turns = 0
                while done < 2:
                    task = asyncio.ensure_future(get(transport, server.url, exit))  # noqa: TID251
                    for _ in range(turns):
                        await asyncio.sleep(0.0004)
                    task.cancel()
                    done += not isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)
                    turns += 1
                    assert transport.open_streams == 0
            await until(lambda: not open_to({server.port, proxy.port}))

    run(loop, main())


def open_to(ports: set[int]) -> list[str]:
    """The sockets of this process that are an end, either one, of a connection to these ports."""
    return [
        each.status
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and not ports.isdisjoint((each.raddr.port, each.laddr.port))
    ]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_closes_instead_of_answering(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Transport(SystemClock()) as transport:
            with pytest.raises(UpstreamUnavailable, match="connection was closed"):
                await get(transport, "https://localhost:9", f"http://{address}")
            for scheme in ("https", "socks5"):
                with pytest.raises(ExitUnreachable):
                    await get(transport, "https://localhost:9", f"{scheme}://{address}")
            with pytest.raises(UpstreamUnavailable):
                await get(transport, f"https://{address}")

    run(loop, main())


async def test_a_transport_that_ends_closes_the_streams_that_are_open() -> None:
    async def first(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await visit.until_left()

    async with WireServer(first) as server:
        async with Transport(SystemClock()) as transport:
            asking = transport.asking(DIRECT, "GET", server.url, {})
            stream = await transport.open(asking, None, SystemClock().monotonic() + 9)
            assert await stream.read() == b"first"
        await until(server.left.is_set)
        assert transport.open_streams == 0
