"""Replicas of the gateway in virtual time: the real pools, memberships and allowances, over one store with a queue.

What is left out: HTTP, the upstream's bytes, and what these cost. A request here takes an account, holds it as long as
a reply lasts, and reports how it went.
"""

import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from bench.queued import QueuedStore, Service
from bench.virtual import START, VirtualClock
from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.model import Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import AccountPool, PoolOptions
from qwen_proxy.chat.events import Usage
from qwen_proxy.config.choices import Strategy
from qwen_proxy.gateway.usage import FLUSH_SECONDS, UsageRecorder
from qwen_proxy.ground.errors import ProxyError, StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.allowances import Allowance, Allowances, AllowanceSpent, Want
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.store import Beat, Hold, SlotsTaken, SlotsWanted
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.state.windows import Period

QUEUE_SECONDS = 60.0
SAMPLE_SECONDS = 0.1
RESTART_SECONDS = 2.0
SPREAD = 1.0  # variance of the logarithm of a reply's length: one in a hundred is six times as long as the average
MONTH_SECONDS = 30 * 86400.0
TIGHT_SHARE = 0.1  # of the requests come with a key of which the limit lets about half through


class Case(Struct, frozen=True, kw_only=True):
    """load: of what the accounts can hold, on average. imbalance: how many requests the busiest replica gets for one of
    an average one. failures: the part of the replies that the upstream breaks off. crashes: replicas killed.
    cut_seconds: for so long one replica's line to the store is cut while its replies go on."""

    replicas: int
    accounts: int
    load: float
    service: Service
    limit: int = 2
    reply_seconds: float = 10.0
    imbalance: float = 2.0
    failures: float = 0.005
    crashes: int = 0
    cut_seconds: float = 0.0
    strategy: Strategy = Strategy.LEAST_LOADED
    warm_up_seconds: float = 6.0
    seconds: float = 20.0
    seed: int = 1

    @property
    def places(self) -> int:
        return self.accounts * self.limit

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.load * self.places / self.reply_seconds


class Truth:
    """What nobody in the world knows whole: how many replies each account has, and what was granted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_use: Counter[str] = Counter()
        self.total = 0
        self.over_admissions = 0
        self.waits: list[float] = []
        self.begun = 0
        self.failed: Counter[str] = Counter()
        self.tight: Counter[float] = Counter()  # granted, by window

    def begin(self, account_id: str) -> None:
        self.in_use[account_id] += 1
        self.total += 1
        self.over_admissions += self.in_use[account_id] > self._limit

    def end(self, account_id: str) -> None:
        self.in_use[account_id] -= 1
        self.total -= 1


class Member(Membership):
    """One that may be killed, or cut off: then not a word of it reaches the store."""

    is_dead = False
    is_cut = False

    async def beat(self) -> Beat:
        self._check_line()
        return await super().beat()

    async def take(self, wanted: SlotsWanted) -> SlotsTaken:
        self._check_line()
        return await super().take(wanted)

    async def give(self, holds: Sequence[Hold]) -> None:
        if self.is_cut or self.is_dead:
            self.doubt()
        else:
            await super().give(holds)

    def _check_line(self) -> None:
        if self.is_cut or self.is_dead:
            raise StoreUnavailable("cut off")


class Replica:
    def __init__(self, id: str, world: "World") -> None:
        self.id = id
        self._clock = clock = world.clock
        store = world.store
        self.watch = Watch(store, clock)
        self.member = Member(store, clock, id=id)
        options = PoolOptions(account_concurrency=world.case.limit, strategy=world.case.strategy)
        self.pool = AccountPool(
            store, world.vault, self.watch, self.member, world.sign_in, clock, random.Random(id), options
        )
        self.allowances = Allowances(store, self.member, clock)
        self.usage = UsageRecorder(store, clock)
        self.member.add(self.allowances)
        self.member.describe(self.pool.describe)
        self.tasks = Tasks()

    async def begin(self) -> None:
        await self.watch.load()
        await self.member.__aenter__()
        self.tasks.spawn(self.watch.run(), name="watch")
        self.tasks.spawn(self._tell_usage(), name="usage")
        await self.pool.__aenter__()

    async def _tell_usage(self) -> None:
        """As the recorder does while it is entered; but that adds once more when it is left, as the dead do not."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.usage.flush()

    async def die(self) -> None:
        self.member.is_dead = True
        await self.member.stop()
        await self.pool.stop()
        await self.tasks.__aexit__(None, None, None)


class World:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.clock = VirtualClock()
        self.store = QueuedStore(self.clock, case.service)
        self.vault = Vault(new_document())
        self.truth = Truth(case.limit)
        self.replicas: list[Replica] = []
        self.dead: set[str] = set()
        self.samples: list[Sample] = []
        self.stranded_seconds: list[float] = []
        self._chance = random.Random(case.seed)
        self._names = 0
        self.tight_limit = max(1, int(case.rate * TIGHT_SHARE * 60 / 2))
        steps = max(1, case.replicas - 1)
        least = max(0.0, 2.0 - case.imbalance)  # so that the average is 1
        self._weights = [case.imbalance - (case.imbalance - least) * at / steps for at in range(case.replicas)]

    @property
    def over(self) -> int:
        """Replies and requests beyond a limit, until now."""
        return self.truth.over_admissions + sum(max(0, count - self.tight_limit) for count in self.truth.tight.values())

    async def sign_in(self, account: Account) -> Credential:
        await self.clock.sleep(1.0)
        return credential(account.id)

    async def begin(self) -> None:
        book = AccountBook(self.store, self.vault)
        for number in range(self.case.accounts):
            account = Account(id=f"user{number:04}@x.org", email=f"user{number:04}@x.org")
            await book.put(account, credential=credential(account.id))
        for _ in range(self.case.replicas):
            self.replicas.append(await self._new_replica())

    async def _new_replica(self) -> Replica:
        replica = Replica(f"p{self._names}", self)
        self._names += 1
        await replica.begin()
        return replica

    # --- what happens

    async def arrivals(self) -> None:
        """First as many as there are on average, in the middle of their replies; then one by one."""
        case, chance = self.case, self._chance
        for _ in range(int(case.load * case.places)):
            await self.clock.sleep(1.0 / (case.load * case.places))
            self._arrive(chance.random() * case.reply_seconds * chance.lognormvariate(SPREAD / 2, SPREAD**0.5))
        while True:
            await self.clock.sleep(chance.expovariate(case.rate))
            self._arrive(case.reply_seconds * chance.lognormvariate(-SPREAD / 2, SPREAD**0.5))

    def _arrive(self, length: float) -> None:
        (replica,) = self._chance.choices(self.replicas, self._weights)
        if not replica.member.is_dead:
            replica.tasks.spawn(self._request(replica, length), name="request")

    async def _request(self, replica: Replica, length: float) -> None:
        chance, truth, began = self._chance, self.truth, self.clock.monotonic()
        failing, is_tight, tokens = chance.random() < self.case.failures, chance.random() < TIGHT_SHARE, 0
        session = f"s{chance.randrange(10 * self.case.places)}"
        truth.begun += 1
        try:
            if is_tight:
                await replica.allowances.reserve([Want(Allowance("rpm:tight", Period.MINUTE, self.tight_limit), 1)])
                truth.tight[self.clock.now() // 60] += 1
            tokens = Allowance("tpm:open", Period.MINUTE, 10**9)
            (share,) = await replica.allowances.reserve([Want(tokens, 1000)])
            deadline = began + QUEUE_SECONDS
            async with replica.pool.lease(Feature.CHAT, deadline=deadline, session=session) as lease:
                truth.waits.append(self.clock.monotonic() - began)
                account_id = lease.credential.account_id
                truth.begin(account_id)
                try:
                    await self.clock.sleep(length)
                    kind = OutcomeKind.UPSTREAM_FAILED if failing else OutcomeKind.SUCCEEDED
                    lease.report(Outcome(kind=kind))
                finally:
                    truth.end(account_id)
            replica.allowances.correct(share, int(length * 50))
            usage = Usage(prompt_tokens=500, completion_tokens=int(length * 50))
            replica.usage.note(
                key_id="k", account_id=account_id, model="m", feature="chat", usage=usage, has_failed=failing
            )
        except (ProxyError, AllowanceSpent) as error:
            truth.failed[type(error).__name__] += 1

    async def crash(self) -> None:
        """Kill the busiest replica: its replies end with it. Its supervisor dies with it too, so that its uses come
        back by the missed heartbeat only; another takes its place."""
        place = self._busiest()
        killed = self.replicas[place]
        await killed.die()
        self.dead.add(killed.id)
        at = self.clock.monotonic()
        await self.clock.sleep(RESTART_SECONDS)
        self.replicas[place] = await self._new_replica()
        while self.store.slots_of({killed.id}):
            await self.clock.sleep(SAMPLE_SECONDS)
        self.stranded_seconds.append(self.clock.monotonic() - at)

    async def cut(self) -> None:
        member = self.replicas[self._busiest()].member
        member.is_cut = True
        await self.clock.sleep(self.case.cut_seconds)
        member.is_cut = False

    def _busiest(self) -> int:
        return max(range(len(self.replicas)), key=lambda at: sum(self.replicas[at].pool.describe().in_use.values()))

    async def watch(self) -> None:
        everyone = {f"p{number}" for number in range(self.case.replicas + self.case.crashes + 1)}
        while True:
            await self.clock.sleep(SAMPLE_SECONDS)
            held = self.store.slots_of(everyone)
            stranded = self.store.slots_of(self.dead) if self.dead else 0
            self.samples.append(Sample(self.truth.total, held - stranded - self.truth.total, stranded))


class Sample(Struct, frozen=True):
    """Of all uses: how many serve a reply, lie idle in a process's pocket, and are held by the dead."""

    in_use: int
    idle: int
    stranded: int


def credential(account_id: str) -> Credential:
    return Credential(account_id=account_id, token=Secret("t"), expires_at=START + MONTH_SECONDS)


@asynccontextmanager
async def living(case: Case) -> AsyncGenerator[World]:
    """A world after its warm-up, from where everything counts; it goes on until the block ends."""
    world = World(case)
    async with Tasks() as tasks:
        await world.begin()
        tasks.spawn(world.arrivals(), name="arrivals")
        await world.clock.sleep(case.warm_up_seconds)
        world.store.reset()
        world.truth.waits.clear()
        world.truth.failed.clear()
        world.truth.begun = 0
        tasks.spawn(world.watch(), name="watch")
        yield world
        for replica in world.replicas:
            await replica.die()
