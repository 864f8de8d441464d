"""Processes that share one store, each on a line of its own; a clock that stands still."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from qwen_proxy.state.allowances import Allowance, Allowances, AllowanceSpent, Share, Want
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.purse import NoPlace, Purse
from qwen_proxy.state.windows import Period
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.line import Line

START = 1_800_000_000.0  # a minute and an hour begin


class Process:
    def __init__(self, id: str, store: MemoryStore, clock: FakeClock, membership: Membership | None = None) -> None:
        self.clock = clock
        self.line = Line(store)
        self.membership = membership or Membership(self.line, clock, id=id)
        self.allowances = Allowances(self.line, self.membership, clock)
        self.purse = Purse(self.membership, clock)
        self.membership.add(self.allowances)
        self.membership.add(self.purse)

    async def enter(self) -> None:
        await self.membership.__aenter__()
        await self.allowances.__aenter__()
        await self.purse.__aenter__()

    async def leave(self) -> None:
        await self.purse.__aexit__(None, None, None)
        await self.allowances.__aexit__(None, None, None)
        await self.membership.__aexit__(None, None, None)

    async def crash(self) -> None:
        """Nothing it does gets through any more."""
        self.line.is_cut = True
        await self.leave()

    async def reserve(self, *wants: Want) -> list[Share] | None:
        """None when it is refused."""
        try:
            return await self.allowances.reserve(wants)
        except AllowanceSpent:
            return None

    async def takes(self, name: str, limit: int) -> bool:
        try:
            await self.purse.take(name, limit)
        except NoPlace:
            return False
        return True


class House:
    def __init__(self) -> None:
        self.clock = FakeClock(now=START)
        self.store = MemoryStore(self.clock)
        self.processes: list[Process] = []

    async def open(self) -> Process:
        process = Process(f"p{len(self.processes)}", self.store, self.clock)
        self.processes.append(process)
        await process.enter()
        return process


@asynccontextmanager
async def house(count: int = 1) -> AsyncGenerator[tuple[House, Sequence[Process]]]:
    home = House()
    for _ in range(count):
        await home.open()
    if count > 1:
        await home.clock.advance(1.0)  # so that each knows of the others
    try:
        yield home, tuple(home.processes)
    finally:
        await asyncio.gather(*(process.leave() for process in home.processes))


def requests(limit: int, name: str = "rpm:k") -> Allowance:
    return Allowance(name, Period.MINUTE, limit)


def one(limit: int) -> Want:
    return Want(requests(limit), 1)
