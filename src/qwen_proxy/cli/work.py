"""What commands have in common: the settings, one event loop, and the way to a server."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from qwen_proxy.app.door import transport_options
from qwen_proxy.config.choices import SimulatorUse
from qwen_proxy.config.credentials import LoadedKeys, load_keys
from qwen_proxy.config.settings import Settings, load
from qwen_proxy.ground.redact import redacted
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.client import ServerClient
from qwen_proxy.operations.local import serve_locally
from qwen_proxy.operations.offline import kept_place
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
    with Logs(LogOptions(level="ERROR", floor="ERROR", redact=redacted)):
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


def administer(ask: Callable[[Administration], Awaitable[T]], *, works: bool = False) -> T:
    """Ask the admin API of the running server, else of one of our own for a moment, over what is kept.

    works: whether that one may sign accounts in. Raises ServerRefused, ServerSilent, WrongSetting, StoreUnavailable.
    """
    settings, clock = settings_now(), SystemClock()
    keys = load_keys(settings, SystemIds())

    @asynccontextmanager
    async def local(settings: Settings, keys: LoadedKeys) -> AsyncGenerator[str]:
        kept_place(settings)  # what nothing outlives is not worth a change
        if settings.simulator is SimulatorUse.AUTO:  # it would stand in, since there is no account yet
            settings = replace(settings, simulator=SimulatorUse.NEVER)
        async with serve_locally(settings, keys, works=works) as url:
            yield url

    async def work() -> T:
        async with (
            Transport(clock, transport_options(settings)) as transport,
            reach(settings, keys, transport, clock, local) as reached,
        ):
            return await ask(Administration(reached.client, clock, is_running=reached.is_running))

    return run(work())
