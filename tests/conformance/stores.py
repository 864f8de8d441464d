"""The stores under test: one line of STORES each, a factory over a place where that store keeps its data."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.store import Store
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.storage.sqlite import SqliteStore
from tests.support.clock import FakeClock
from tests.support.redis_server import shared


class Place(Struct, frozen=True):
    """`open`: one more process's hold on the data of this place; what was written before is there, also after all were
    closed. `now`: by the store's own clock; `pass_time`: seconds go by for it, in fact or by a fake clock."""

    open: Callable[[], AbstractAsyncContextManager[Store]]
    now: Callable[[], float]
    pass_time: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def memory() -> AsyncGenerator[Place]:
    """One object is the place: to open it again is to have it again."""
    clock = FakeClock()
    store = MemoryStore(clock)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Store]:
        async with store as entered:
            yield entered

    yield Place(open=opened, now=clock.now, pass_time=clock.advance)


@asynccontextmanager
async def sqlite() -> AsyncGenerator[Place]:
    clock = FakeClock()
    with TemporaryDirectory() as folder:
        yield Place(
            open=lambda: SqliteStore(Path(folder) / "new" / "test.db", clock), now=clock.now, pass_time=clock.advance
        )


@asynccontextmanager
async def redis() -> AsyncGenerator[Place]:
    """The server's time stands in a key, in place of its own."""
    server = shared()
    prefix = f"test-{SystemIds().token(12)}"
    clock = FakeClock()
    async with server.raw() as redis:

        async def pass_time(seconds: float) -> None:
            await redis.execute_command("SET", f"{prefix}-now", round((clock.now() + seconds) * 1_000_000))
            await clock.advance(seconds)

        await pass_time(0)
        time = f"local function now() return tonumber(redis.call('GET', '{prefix}-now')) end\n"
        yield Place(
            open=lambda: RedisStore(Secret(server.socket_url), prefix, clock, time=time),
            now=clock.now,
            pass_time=pass_time,
        )


STORES: Final[dict[str, Callable[[], AbstractAsyncContextManager[Place]]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
}
