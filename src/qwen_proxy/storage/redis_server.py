"""Connections to a Redis or Valkey server: commands and scripts within a bounded time, its errors as ours.

A command is sent once. When its answer is lost nobody knows whether it was done, and most of ours must not be done
twice; so the call raises StoreUnavailable, and the caller decides (`state.membership` tells the store anew what it
holds). The next call connects anew by itself.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

from msgspec import Struct
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.storage.redis_problems import is_of_a_replica, problem
from qwen_proxy.storage.redis_replies import Part

CONNECT_SECONDS: Final = 2.0
CALL_SECONDS: Final = 3.0  # for all of a call: until a connection is free, to connect, and for the answer
CONNECTIONS: Final = 8  # at most, and one that listens for changes
# A server that vanished is noticed after some 11 seconds also where nothing is sent.
KEEPALIVE_PROBES: Final = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))

SERVER_TIME: Final = """local function now() -- microseconds
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end
"""


class Script(Struct, frozen=True):
    """keys: how many there are, then each as it stands in Redis; some are the beginnings of keys."""

    text: str
    sha: str
    keys: tuple[Part, ...]


class _Client(Protocol):
    async def execute_command(self, *parts: Part) -> object: ...


class RedisServer:
    """`prefix` is what all keys begin with, in braces: so a cluster keeps them in one slot, as the scripts need it."""

    def __init__(self, url: Secret, prefix: str, ca_file: Path | None) -> None:
        self._base = f"{{{prefix}}}:"
        self._pool = ConnectionPool(**_options(url, ca_file))
        self._turns = asyncio.Semaphore(CONNECTIONS)  # who came first is served first, which no pool of redis-py does
        self._redis = Redis(connection_pool=self._pool)
        self._redis.response_callbacks.clear()  # the answers as they are
        self._client: _Client = self._redis

    def key(self, name: str) -> str:
        return self._base + name

    def script(self, name: str, keys: str, prelude: str) -> Script:
        """`keys` with spaces between. prelude: Lua for what the script uses and does not define."""
        text = prelude + files("qwen_proxy.storage").joinpath("redis_scripts", f"{name}.lua").read_text()
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        names = [self.key(key).encode() for key in keys.split()]
        return Script(text, sha, (len(names), *names))

    async def close(self) -> None:
        with suppress(RedisError, OSError):  # no connection is as good as one that is closed
            await self._pool.aclose()

    async def call(self, *parts: Part) -> object:
        """Bytes, numbers, None, and lists of these. Raises StoreUnavailable."""
        with _Ours():
            return await self._send(*parts)

    async def ask(self, *parts: Part) -> object:
        """As `call`, but None where the server refuses the command, as one does that another manages."""
        with _Ours(), suppress(ResponseError):
            return await self._send(*parts)

    async def run(self, script: Script, function: str, *parts: Part) -> bytes:
        """The MessagePack that the script gives. Raises StoreUnavailable."""
        with _Ours():
            try:
                told = await self._send("EVALSHA", script.sha, *script.keys, function, *parts)
            except NoScriptError:  # after a restart; nothing was done
                told = await self._send("EVAL", script.text, *script.keys, function, *parts)
        assert isinstance(told, bytes)
        return told

    async def _send(self, *parts: Part) -> object:
        async with asyncio.timeout(CALL_SECONDS), self._turns:
            try:
                return await self._client.execute_command(*parts)
            except ResponseError as error:
                if is_of_a_replica(error):
                    # Another has its place now. Connections that are made anew find it, where the name leads there.
                    await self._pool.disconnect(inuse_connections=False)
                raise

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncGenerator["Subscription"]:
        """Raises StoreUnavailable, also from what is done inside."""
        pubsub: Any = self._redis.pubsub()  # pyright: ignore[reportUnknownMemberType] - it takes any keyword
        with _Ours():
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await pubsub.subscribe(channel)
                yield pubsub
            finally:
                await pubsub.aclose()


class Subscription(Protocol):
    async def get_message(self, *, timeout: float | None) -> object:
        """The next that comes: first that it is subscribed."""
        ...


class _Ours:  # a class, since this is around every call: a generator costs several times as much
    """Foreign exceptions become ours here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RedisError | OSError):
            raise StoreUnavailable(problem(error)) from error


def _options(url: Secret, ca_file: Path | None) -> dict[str, Any]:
    """RESP2, since all of ours fits it and every proxy before a Redis speaks it."""
    options: dict[str, Any] = dict(parse_url(url.reveal()))
    is_tls = url.reveal().startswith("rediss:")
    if not url.reveal().startswith("unix:"):
        probes = ((getattr(socket, name, None), value) for name, value in KEEPALIVE_PROBES)
        options["socket_keepalive_options"] = {name: value for name, value in probes if name is not None}
    if is_tls and ca_file is not None:
        options["ssl_ca_certs"] = str(ca_file)
    return options | {
        "protocol": 2,
        "driver_info": None,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
