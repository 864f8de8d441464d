"""A server of our own for a moment, in this process."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.whole import open_server
from qwen_proxy.config.credentials import LoadedKeys
from qwen_proxy.config.settings import Settings
from qwen_proxy.operations.places import own_place
from qwen_proxy.operations.upstream import open_destination


@asynccontextmanager
async def serve_locally(settings: Settings, keys: LoadedKeys, *, works: bool = True) -> AsyncGenerator[str]:
    """Serve on a free loopback port while the block lasts, with what is kept; gives the address.

    works False: it is there for the admin API alone: it signs nobody in and asks nothing of the site by itself.
    """
    machine = Machine()
    async with (
        open_commons(own_place(settings, machine.ids), machine, takes_roles=works) as commons,
        open_destination(settings, commons, machine) as destination,
    ):
        await commons.key_book.adopt(keys.keys)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        async with open_server(
            destination.settings,
            commons,
            listener,
            machine,
            base_url=destination.base_url,
            is_simulated=destination.is_simulated,
            warms_up=works,
        ):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
