"""A server of our own for a moment, in this process."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from qwen_proxy.app import open_all
from qwen_proxy.config.credentials import LoadedKeys
from qwen_proxy.config.settings import Settings
from qwen_proxy.operations.upstream import open_destination


@asynccontextmanager
async def serve_locally(settings: Settings, keys: LoadedKeys) -> AsyncGenerator[str]:
    """Serve on a free loopback port while the block lasts; gives the address."""
    async with open_destination(settings) as destination:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        async with open_all(
            destination.settings,
            keys.keys,
            listener,
            base_url=destination.base_url,
            accounts=destination.accounts,
        ):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
