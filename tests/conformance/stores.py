"""The stores under test: one line of STORES each, a factory over a place where that store keeps its data."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from qwen_proxy.state.store import Store
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.sqlite import SqliteStore
from tests.support.clock import FakeClock


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


STORES: Final[dict[str, Callable[[], AbstractAsyncContextManager[Place]]]] = {"memory": memory, "sqlite": sqlite}
