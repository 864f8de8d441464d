"""To a server: the running one where one answers at the configured address, else one of our own for a moment."""

import errno
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto

from msgspec import Struct

from qwen_proxy.config.credentials import LoadedKeys
from qwen_proxy.config.settings import Settings
from qwen_proxy.operations.client import ServerClient
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.upstreams.transport import Transport

# Serves with these settings and keys on a free loopback port while its block lasts; gives its address.
LocalServer = Callable[[Settings, LoadedKeys], AbstractAsyncContextManager[str]]


class Reached(Struct, frozen=True):
    """`is_running`: it was there before us."""

    client: ServerClient
    is_running: bool


class Port(Enum):
    FREE = auto()
    TAKEN = auto()
    DENIED = auto()


@asynccontextmanager
async def reach(
    settings: Settings, keys: LoadedKeys, transport: Transport, clock: Clock, local: LocalServer
) -> AsyncGenerator[Reached]:
    client = ServerClient(transport, address(settings), keys.admin, clock)
    if settings.port and await client.is_up():
        yield Reached(client, True)
        return
    async with local(settings, keys) as base_url:
        yield Reached(ServerClient(transport, base_url, keys.admin, clock), False)


def address(settings: Settings) -> str:
    """Where the server with these settings is found from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{settings.port}"


def probe_port(host: str, port: int) -> Port:
    """Whether a server could listen there. Raises OSError for an address this machine does not have."""
    family, kind, protocol, _, target = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no obstacle
        try:
            probe.bind(target)
            probe.listen(1)
        except PermissionError:
            return Port.DENIED
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return Port.TAKEN
            raise
    return Port.FREE
