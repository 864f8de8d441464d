"""Connections to upstreams, made through exits and kept for the next request.

An exit is DIRECT or a proxy's URL: http, https, socks5 or socks5h. Behind a proxy names are resolved by the proxy.
"""

import asyncio
import base64
import functools
import re
import socket
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

import aiohappyeyeballs
import python_socks
from python_socks.async_.asyncio import Proxy

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.ground.errors import ExitUnreachable, UpstreamUnavailable
from qwen_proxy.upstreams.http1 import Connection
from qwen_proxy.upstreams.question import Question

KEEPALIVE_PROBES: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
HAPPY_EYEBALLS_SECONDS: Final = 0.25  # RFC 8305 §5
BAD_GATEWAY: Final = (502, 503, 504)  # a proxy that works, and can't reach the other end
SOCKS_FAR_END: Final = (3, 4, 5, 6)  # RFC 1928 §6: network, host, refused, TTL: the same
FOREVER_SECONDS: Final = 1e6  # python-socks wants a limit; the transport's watchdog keeps ours
URL_PARTS: Final = re.compile(r"(https?://[^/?#]+)([^#]*)")
PORTS: Final = {"http": 80, "https": 443}


class Route:
    """Where requests to one origin through one exit go, and the connections that wait there, the last used last.

    It lives as long as one of its connections.
    """

    __slots__ = ("__weakref__", "_hop", "_prefix", "exit", "host", "idle", "is_tls", "name", "port", "proxy")

    def __init__(self, exit: str, origin: str) -> None:
        """Raises UpstreamUnavailable for an origin without a host or with a port that is none."""
        self.exit = exit
        self.idle: dict[Connection, float] = {}
        try:
            parts, proxy = urlsplit(origin), urlsplit(exit)
            self.port = parts.port or PORTS[parts.scheme]
            self.proxy = (proxy.hostname or "", proxy.port or PORTS.get(proxy.scheme, 0))
        except ValueError as error:
            raise UpstreamUnavailable("not an address") from error
        self.host = parts.hostname or ""
        self.is_tls = parts.scheme == "https"
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        self.name = f"{bracketed}:{self.port}" if parts.port else bracketed
        is_told_to_proxy = not self.is_tls and is_http(exit)  # RFC 9112 §3.2.2
        self._prefix = f"http://{self.name}" if is_told_to_proxy else ""
        self._hop = proxy_authorization(exit) if is_told_to_proxy else ""

    def render(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        return self.question(method, target, headers).render(body)

    def question(self, method: str, target: str, headers: Mapping[str, str]) -> Question:
        """Raises ValueError for what can't stand in one."""
        target = target if target.startswith("/") else f"/{target}"
        return Question(method, self._prefix + target, self.name, headers, hop=self._hop)

    def connect_request(self) -> bytes:
        """RFC 9110 §9.3.6."""
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        authority = f"{bracketed}:{self.port}"
        return Question("CONNECT", authority, authority, {}, hop=proxy_authorization(self.exit)).render(None)

    def forget(self, connection: Connection) -> None:
        self.idle.pop(connection, None)


class Pool:
    """Makes connections, and keeps those that may be used again for `keepalive_seconds`. Close it at the end."""

    def __init__(self, monotonic: Callable[[], float], keepalive_seconds: float, ca_file: str | None) -> None:
        self._monotonic = monotonic
        self._keepalive_seconds = keepalive_seconds
        self._ca_file = ca_file
        self._routes: WeakValueDictionary[tuple[str, str], Route] = WeakValueDictionary()

    def route(self, exit: str, url: str) -> tuple[Route, str]:
        """The route to a URL, and the rest of it. Raises UpstreamUnavailable for what is not an HTTP URL."""
        found = URL_PARTS.match(url)
        if found is None:
            raise UpstreamUnavailable("not an address")
        origin, target = found.groups()
        route = self._routes.get((exit, origin))
        if route is None:
            self._routes[exit, origin] = route = Route(exit, origin)
        return route, target

    def take(self, route: Route) -> Connection | None:
        """The connection that was used last, if one waits."""
        now = self._monotonic()
        while route.idle:
            connection, since = route.idle.popitem()
            if connection.is_reusable and now - since < self._keepalive_seconds:
                return connection
            connection.abort()
        return None

    def put_back(self, route: Route, connection: Connection) -> None:
        """Keep it, or close it if its exchange did not end as it should."""
        connection.rest()
        if connection.is_reusable:
            route.idle[connection] = self._monotonic()
        else:
            connection.abort()

    def sweep(self) -> None:
        """Close what waited too long."""
        oldest = self._monotonic() - self._keepalive_seconds
        for route in tuple(self._routes.values()):
            for connection in [each for each, since in route.idle.items() if since <= oldest]:
                route.forget(connection)
                connection.abort()

    async def close(self) -> None:
        for route in tuple(self._routes.values()):
            while route.idle:
                route.idle.popitem()[0].abort()
        await asyncio.sleep(0)  # the loop tells them that they are lost

    async def connect(self, route: Route) -> Connection:
        """A new one. Raises ExitUnreachable when the exit is to blame, else UpstreamUnavailable."""
        tls = self._tls if route.is_tls else None
        if route.exit == DIRECT:
            with _far_end():
                return await _attach(await _dial(route.host, route.port), Connection(route.forget), tls, route.host)
        if not is_http(route.exit):
            with _through_socks():
                proxy = Proxy.from_url("socks5" + route.exit[route.exit.index(":") :], rdns=True)
                sock = await proxy.connect(route.host, route.port, timeout=FOREVER_SECONDS)
            with _far_end():
                return await _attach(sock, Connection(route.forget), tls, route.host)
        host, port = route.proxy
        with _to_proxy():
            outer = self._tls if route.exit.startswith("https:") else None
            connection = await _attach(await _dial(host, port), Connection(route.forget), outer, host)
        return connection if tls is None else await self._tunnel(route, connection, tls)

    async def _tunnel(self, route: Route, outside: Connection, tls: ssl.SSLContext) -> Connection:
        await outside.exchange(route.connect_request(), has_body=False)
        if not 200 <= outside.status < 300:
            outside.abort()
            if outside.status in BAD_GATEWAY:
                raise UpstreamUnavailable(f"the proxy can't reach it: HTTP {outside.status}")
            raise ExitUnreachable(f"it refuses: HTTP {outside.status}")
        outer = outside.detach()
        inside = Connection(route.forget)
        try:
            with _far_end():
                inner = await asyncio.get_running_loop().start_tls(outer, inside, tls, server_hostname=route.host)
                assert inner is not None
        except BaseException:
            outer.abort()
            raise
        inside.connection_made(inner)
        return inside

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(("http/1.1",))
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        return context


def is_http(exit: str) -> bool:
    return exit.startswith(("http://", "https://"))


def proxy_authorization(exit: str) -> str:
    """A header line with the credentials in the exit's URL, or nothing. Source: RFC 7617."""
    parts = urlsplit(exit)
    if parts.username is None:
        return ""
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"


async def _dial(host: str, port: int) -> socket.socket:
    """A connected socket. TCP's own probes find a peer that vanished; a stream may be silent for minutes."""
    addresses = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return await aiohappyeyeballs.start_connection(  # pyright: ignore[reportUnknownMemberType] - an address is any tuple
        addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1
    )


async def _attach(sock: socket.socket, connection: Connection, tls: ssl.SSLContext | None, host: str) -> Connection:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_PROBES:
        option: int | None = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection, sock=sock, ssl=tls, server_hostname=None if tls is None else host
        )
    except BaseException:
        sock.close()
        raise
    return connection


@contextmanager
def _far_end() -> Generator[None]:
    try:
        yield
    except socket.gaierror as error:
        raise UpstreamUnavailable("name not found") from error
    except ssl.SSLError as error:
        raise UpstreamUnavailable("no trusted TLS connection") from error
    except OSError as error:
        raise UpstreamUnavailable("no connection") from error


@contextmanager
def _to_proxy() -> Generator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ExitUnreachable("no trusted TLS connection to it") from error
    except OSError as error:
        raise ExitUnreachable("no connection to it") from error


@contextmanager
def _through_socks() -> Generator[None]:
    try:
        yield
    except python_socks.ProxyError as error:
        code = error.error_code
        if code in SOCKS_FAR_END:
            raise UpstreamUnavailable(f"the proxy can't reach it: SOCKS reply {code}") from error
        raise ExitUnreachable("it refuses" if code is None else f"it refuses: SOCKS reply {code}") from error
    except OSError as error:
        raise ExitUnreachable("no connection to it") from error
