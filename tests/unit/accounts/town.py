"""Several processes with a pool each over one store, with a clock that stands still and one site that signs in."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from qwen_proxy.accounts.model import Account, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import AccountPool, PoolLease, PoolOptions
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.store import Beat, SlotsTaken, SlotsWanted
from qwen_proxy.state.watching import Watch
from tests.support.clock import FakeClock
from tests.support.processes import Still
from tests.unit.accounts.house import Kept, Site, outcome


class Member(Membership):
    """One whose line to the store can be cut."""

    is_cut = False

    async def beat(self) -> Beat:
        self._check_line()
        return await super().beat()

    async def take(self, wanted: SlotsWanted) -> SlotsTaken:
        self._check_line()
        return await super().take(wanted)

    def _check_line(self) -> None:
        if self.is_cut:
            raise StoreUnavailable("cut")


class Process:
    def __init__(self, name: str, kept: Kept, clock: FakeClock, site: Site, options: PoolOptions) -> None:
        self.clock = clock
        self.watch = Watch(kept.store, clock)
        self.member = Member(kept.store, clock, id=name)
        self.pool = AccountPool(kept.store, kept.vault, self.watch, self.member, site.sign_in, clock, Still(), options)
        self.member.describe(self.pool.describe)
        self._life = AsyncExitStack()
        self._tasks = Tasks()

    async def begin(self) -> None:
        await self.watch.load()
        await self._life.enter_async_context(self._tasks)
        await self._life.enter_async_context(self.member)
        self._tasks.spawn(self.watch.run(), name="watch")
        await self._life.enter_async_context(self.pool)

    async def end(self) -> None:
        await self._life.aclose()

    async def die(self) -> None:
        """Killed: not a word to the others."""
        self.member.is_cut = True
        await self._tasks.__aexit__(None, None, None)
        await self.member.stop()
        await self.pool.stop()

    async def ask(self, seconds: float = 60.0, only: str | None = None, session: str = "") -> asyncio.Task[PoolLease]:
        only_account = None if only is None else f"{only}@x.org"
        deadline = self.clock.monotonic() + seconds
        want = Want(feature=Feature.CHAT, deadline=deadline, only_account=only_account, session=session)
        task = asyncio.get_running_loop().create_task(self._lease(want))
        await self.clock.settle()
        return task

    async def _lease(self, want: Want) -> PoolLease:
        return self.pool.try_take(want) or await self.pool.take(want)

    def state(self, name: str) -> str:
        return next(report.state for report in self.pool.snapshot() if report.account == f"{name}@x.org")

    @property
    def in_use(self) -> int:
        return sum(report.in_use for report in self.pool.snapshot())


class Town:
    def __init__(self, clock: FakeClock, site: Site, kept: Kept, options: PoolOptions) -> None:
        self.clock = clock
        self.site = site
        self.kept = kept
        self._options = options
        self.processes: list[Process] = []

    async def add(self) -> Process:
        process = Process(f"p{len(self.processes)}", self.kept, self.clock, self.site, self._options)
        self.processes.append(process)
        await process.begin()
        await self.clock.settle()
        return process

    @staticmethod
    def reported(kind: OutcomeKind, rest_seconds: float | None = None) -> Outcome:
        return outcome(kind, rest_seconds=rest_seconds)

    @property
    def keeper(self) -> Process:
        return next(process for process in self.processes if process.pool.is_keeper)

    def other(self, than: Process) -> Process:
        return next(process for process in self.processes if process is not than)


@asynccontextmanager
async def town(
    *accounts: Account, processes: int = 2, strategy: Strategy = Strategy.LEAST_LOADED, **options: float
) -> AsyncGenerator[Town]:
    """All accounts are signed in, and a beat or two is past: everyone knows of everyone."""
    clock = FakeClock()
    site = Site(clock)
    kept = Kept(clock)
    for each in accounts:
        await kept.book.put(each)
    chosen = PoolOptions(
        account_concurrency=int(options.get("concurrency", 2)),
        strategy=strategy,
        signin_spacing_seconds=options.get("spacing", 0.0),
        refresh_jitter_seconds=0.0,
    )
    made = Town(clock, site, kept, chosen)
    try:
        for _ in range(processes):
            await made.add()
        await clock.advance(options.get("settle", 2.5))
        yield made
    finally:
        for process in made.processes:
            await process.end()


def ended(lease: PoolLease, kind: OutcomeKind = OutcomeKind.SUCCEEDED, rest_seconds: float | None = None) -> None:
    lease.report(outcome(kind, rest_seconds=rest_seconds))
    lease.end()
