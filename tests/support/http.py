"""A real server on loopback around one handler, and a plain client for it."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from qwen_proxy.ground.secret import Secret
from qwen_proxy.protocols.openai_chat import OpenAIChat
from qwen_proxy.runtime.clock import Clock, SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.auth import Authenticator
from qwen_proxy.serving.endpoint import Access, Endpoints, Handler
from qwen_proxy.serving.server import HttpServer
from tests.support.fixed_keys import FixedKeys

ADMIN_KEY = "sk-admin-key-of-the-tests"
USER_KEY = "sk-user-key-of-the-tests"


def listener() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


class Served:
    def __init__(self, port: int, server: HttpServer, endpoints: Endpoints) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.server = server
        self.endpoints = endpoints


@asynccontextmanager
async def serving(
    handler: Handler, access: Access = Access.KEY, clock: Clock | None = None, read_seconds: float = 60
) -> AsyncGenerator[Served]:
    """`POST /` and `GET /` go to the handler, with OpenAI's errors."""
    endpoints = Endpoints(
        Authenticator(FixedKeys([Secret(ADMIN_KEY), Secret(USER_KEY)])),
        clock=clock or SystemClock(),
        ids=SystemIds(),
        read_seconds=read_seconds,
    )
    app = web.Application(client_max_size=1000)
    app.router.add_route("*", "/", endpoints.endpoint(handler, OpenAIChat(), access))
    sock = listener()
    async with Tasks() as tasks, HttpServer(app, endpoints, sock) as server:
        tasks.spawn(server.close_silent(SystemClock(), read_seconds), name="silent connections")
        yield Served(sock.getsockname()[1], server, endpoints)


async def raw(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send bytes as they are; the caller closes the writer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    return reader, writer
