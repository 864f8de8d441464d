"""A pool with a clock that stands still, a site that signs in as told, and a store in memory."""

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.model import DIRECT, Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import AccountPool, PoolLease, PoolOptions
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.processes import Alone, Still

T = TypeVar("T")
MONTH_SECONDS = 30 * 24 * 3600.0


def account(name: str, exit: str = DIRECT, password: str | None = "secret") -> Account:
    email = f"{name}@x.org"
    return Account(id=email, email=email, password=Secret(password) if password else None, exit=exit)


def outcome(kind: OutcomeKind, *, rest_seconds: float | None = None, feature: Feature = Feature.CHAT) -> Outcome:
    return Outcome(kind=kind, feature=feature, rest_seconds=rest_seconds, detail="why")


class Site:
    """Signs in, counts, dawdles, and refuses as told: `errors["a"]` is used up one by one."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.attempts: list[tuple[float, str]] = []
        self.errors: dict[str, list[Exception]] = {}
        self.takes_seconds = 0.0
        self.life_seconds: float | None = MONTH_SECONDS
        self.running: dict[str, int] = {}
        self.most_at_once = 0

    async def sign_in(self, account: Account) -> Credential:
        name = account.id.partition("@")[0]
        self.attempts.append((self.clock.monotonic(), name))
        self.running[account.exit] = self.running.get(account.exit, 0) + 1
        self.most_at_once = max(self.most_at_once, self.running[account.exit])
        try:
            await self.clock.sleep(self.takes_seconds)
        finally:
            self.running[account.exit] -= 1
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        return Credential(
            account_id=account.id,
            token=Secret(f"{name}-{len(self.attempts)}"),
            exit=account.exit,
            expires_at=None if self.life_seconds is None else self.clock.now() + self.life_seconds,
        )

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.attempts]


class Kept:
    """What outlives a pool."""

    def __init__(self, clock: FakeClock) -> None:
        self.store = MemoryStore(clock)
        self.vault = Vault(new_document())
        self.book = AccountBook(self.store, self.vault)


class House:
    def __init__(self, pool: AccountPool, site: Site, clock: FakeClock, kept: "Kept") -> None:
        self.pool = pool
        self.site = site
        self.clock = clock
        self.kept = kept

    def want(self, seconds: float = 60.0, *, feature: Feature = Feature.CHAT, only: str | None = None) -> Want:
        only_account = None if only is None else f"{only}@x.org"
        return Want(feature=feature, deadline=self.clock.monotonic() + seconds, only_account=only_account)

    def take(self, *, feature: Feature = Feature.CHAT, only: str | None = None) -> PoolLease:
        """One that is free this moment."""
        lease = self.pool.try_take(self.want(feature=feature, only=only))
        assert lease is not None
        return lease

    def use(self, kind: OutcomeKind, *, only: str | None = None, rest_seconds: float | None = None) -> None:
        """Take one, and let it end so."""
        lease = self.take(only=only)
        lease.report(outcome(kind, rest_seconds=rest_seconds))
        lease.end()

    async def wait(
        self, seconds: float = 60.0, *, feature: Feature = Feature.CHAT, only: str | None = None
    ) -> asyncio.Task[PoolLease]:
        """Begin to wait for one."""
        return await self.start(self.pool.take(self.want(seconds, feature=feature, only=only)))

    async def start(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        await self.clock.settle()
        return task

    def state(self, name: str) -> str:
        return next(report.state for report in self.pool.snapshot() if report.account == f"{name}@x.org")


@asynccontextmanager
async def house(
    *accounts: Account, kept: Kept | None = None, settle: bool = True, **options: float
) -> AsyncGenerator[House]:
    """Without spacing or jitter unless told, so that all accounts are signed in once it is entered. It is alone in the
    world: heartbeats and other processes are what test_processes.py is about."""
    clock = FakeClock()
    site = Site(clock)
    kept = kept or Kept(clock)
    for each in accounts:
        await kept.book.put(each)
    chosen = PoolOptions(
        account_concurrency=int(options.get("concurrency", 2)),
        signin_spacing_seconds=options.get("spacing", 0.0),
        refresh_jitter_seconds=options.get("jitter", 0.0),
    )
    watch = Watch(kept.store, clock)
    alone = Alone(kept.store, clock)
    chance = random.Random(7) if "jitter" in options else Still()
    pool = AccountPool(kept.store, kept.vault, watch, alone, site.sign_in, clock, chance, chosen)
    await watch.load()
    async with alone, pool:
        if settle:
            await clock.settle()
        yield House(pool, site, clock, kept)
