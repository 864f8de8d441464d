"""What commands have in common: the settings, one event loop, and the way to a server."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Final, TypeVar

from qwen_proxy.app.door import transport_options
from qwen_proxy.config.credentials import load_keys
from qwen_proxy.config.settings import Settings, load
from qwen_proxy.ground.redact import redacted
from qwen_proxy.operations.client import ServerClient
from qwen_proxy.operations.local import serve_locally
from qwen_proxy.operations.reach import reach
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.environment import environment
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.logs import LogOptions, Logs
from qwen_proxy.upstreams.transport import Transport

T = TypeVar("T")

DOTENV: Final = Path(".env")


def settings_now() -> Settings:
    return load(environment(), DOTENV)


def run(work: Coroutine[None, None, T]) -> T:
    """Run it with a quiet log: only what went wrong, beside the output."""
    with Logs(LogOptions(level="ERROR", redact=redacted)):
        return asyncio.run(work)


async def through_server(settings: Settings, ask: Callable[[ServerClient], Awaitable[T]]) -> T:
    """Ask the running server, else one of our own for a moment. Raises ServerRefused, ServerSilent."""
    clock = SystemClock()
    keys = load_keys(settings, SystemIds())
    async with (
        Transport(clock, transport_options(settings)) as transport,
        reach(settings, keys, transport, clock, serve_locally) as reached,
    ):
        return await ask(reached.client)
