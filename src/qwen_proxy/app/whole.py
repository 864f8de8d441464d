"""The whole program in one process."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from qwen_proxy.app.backends import open_backends
from qwen_proxy.app.commons import Commons, live_settings, open_pool
from qwen_proxy.app.door import open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.service import open_service
from qwen_proxy.config.settings import Settings
from qwen_proxy.serving.server import HttpServer


@asynccontextmanager
async def open_server(
    settings: Settings,
    commons: Commons,
    listener: socket.socket,
    machine: Machine,
    *,
    base_url: str,
    is_simulated: bool,
    warms_up: bool = True,
) -> AsyncGenerator[HttpServer]:
    """For tests and for the commands that need no second process. The accounts are those that are kept."""
    live = live_settings(settings, commons)
    async with (
        open_door(settings, base_url, machine, is_simulated=is_simulated) as door,
        open_backends(live, commons, machine, chat_base_url=door.base_url) as others,
        open_pool(live, door, machine, commons) as pool,
        open_service(live, commons, door, pool, others, listener, machine, warms_up=warms_up) as server,
    ):
        yield server
