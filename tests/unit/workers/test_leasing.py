"""The pool seen through a channel: the worker's questions and the supervisor's answers, without a process between."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from qwen_proxy.accounts.leasing import Leasing, Overview
from qwen_proxy.accounts.model import Feature, OutcomeKind
from qwen_proxy.ground.errors import AccountsBusy, AccountsOutOfQuota, CredentialRejected, ShuttingDown
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.workers.keeping import Desk
from qwen_proxy.workers.messages import (
    DriftCount,
    DriftSeen,
    Frames,
    FromSupervisor,
    FromWorker,
    Ready,
    Retire,
    Survey,
    encode,
    supervisor_decoder,
    worker_decoder,
)
from qwen_proxy.workers.remote import RemoteLeasing
from tests.unit.accounts.house import House, account, house, outcome

CHAT = Feature.CHAT


class Pair:
    """A worker and its desk. What they send is delivered as bytes, one loop turn later, in order."""

    def __init__(self, home: House, tasks: Tasks) -> None:
        self.home = home
        self.retired: list[float] = []
        self.readies = 0
        self.sent: list[FromWorker] = []
        self.is_slow = False
        self.delayed: list[FromSupervisor] = []
        self._to_desk = Frames(worker_decoder())
        self._to_worker = Frames(supervisor_decoder())
        self.desk = Desk(home.pool, home.clock, tasks, self.to_worker, self.ready, self.survey)
        self.leasing = RemoteLeasing(self.to_desk, home.clock, self.retired.append)

    def ready(self) -> None:
        self.readies += 1

    async def survey(self) -> Survey:
        return Survey(pool=await self.home.pool.status(), workers=(), drift=tuple(self.desk.drift))

    def to_desk(self, message: FromWorker) -> None:
        self.sent.append(message)
        asyncio.get_running_loop().call_soon(self._deliver_to_desk, encode(message))

    def _deliver_to_desk(self, chunk: bytes) -> None:
        for message in self._to_desk.feed(chunk):
            self.desk.received(message)

    def to_worker(self, message: FromSupervisor) -> None:
        if self.is_slow:
            self.delayed.append(message)
        else:
            asyncio.get_running_loop().call_soon(self._deliver_to_worker, encode(message))

    def _deliver_to_worker(self, chunk: bytes) -> None:
        for message in self._to_worker.feed(chunk):
            self.leasing.received(message)

    def deadline(self, seconds: float = 60.0) -> float:
        return self.home.clock.monotonic() + seconds

    async def hold(self, gate: asyncio.Event, seconds: float = 60.0, kind: OutcomeKind = OutcomeKind.SUCCEEDED) -> str:
        """Lease an account, hold it until the gate opens, and report."""
        async with self.leasing.lease(CHAT, deadline=self.deadline(seconds)) as lease:
            await gate.wait()
            lease.report(outcome(kind))
            lease.report(outcome(OutcomeKind.CHALLENGED))  # only the first counts
            return lease.credential.token.reveal()

    async def start(self, gate: asyncio.Event, seconds: float = 60.0) -> "asyncio.Task[str]":
        return await self.home.start(self.hold(gate, seconds))

    def in_use(self) -> int:
        return self.home.pool.snapshot()[0].in_use


@asynccontextmanager
async def pair() -> AsyncGenerator[Pair]:
    async with house(account("a"), concurrency=1) as home, Tasks() as tasks:
        yield Pair(home, tasks)


async def test_a_lease_crosses_over_and_comes_back_with_its_outcome() -> None:
    async with pair() as both:
        fits: Leasing = both.leasing
        told_of: Overview = both.leasing
        gate = asyncio.Event()
        held = await both.start(gate)
        assert (both.in_use(), both.desk.leases) == (1, 1)
        gate.set()
        assert await held == "a-1"
        await both.home.clock.settle()
        assert (both.in_use(), both.desk.leases) == (0, 0)
        assert (await told_of.status()).accounts[0].succeeded == 1
        assert fits is told_of


async def test_those_who_wait_are_served_in_turn() -> None:
    async with pair() as both:
        gates = [asyncio.Event() for _ in range(3)]
        tasks = [await both.start(gate) for gate in gates]
        for gate, task in zip(gates, tasks, strict=True):
            assert both.in_use() == 1
            gate.set()
            await task


async def test_the_deadline_holds_over_there() -> None:
    async with pair() as both:
        gate = asyncio.Event()
        held, waiting = await both.start(gate), await both.start(gate, 5)
        await both.home.clock.advance(6)
        with pytest.raises(AccountsBusy):
            await waiting
        gate.set()
        await held


async def test_a_refusal_crosses_over_with_its_facts() -> None:
    async with pair() as both:
        both.home.use(OutcomeKind.OUT_OF_QUOTA, rest_seconds=100)
        with pytest.raises(AccountsOutOfQuota) as caught:
            await both.hold(asyncio.Event())
        assert caught.value.retry_after_seconds == 100


async def test_a_waiter_that_leaves_leaves_the_line() -> None:
    async with pair() as both:
        gate = asyncio.Event()
        held, leaver, last = [await both.start(gate) for _ in range(3)]
        leaver.cancel()
        await both.home.clock.settle()
        assert both.home.pool.waiting == 1
        gate.set()
        assert await held == await last


async def test_a_grant_that_crosses_a_cancellation_goes_back() -> None:
    async with pair() as both:
        both.is_slow = True
        gate = asyncio.Event()
        leaver = await both.start(gate)
        assert (both.in_use(), len(both.delayed)) == (1, 1)
        leaver.cancel()
        await both.home.clock.settle()
        assert both.in_use() == 0
        both.leasing.received(both.delayed[0])  # nobody waits for it any more
        assert both.desk.leases == 0


async def test_a_task_cancelled_as_its_grant_arrives_gives_it_back() -> None:
    async with pair() as both:
        both.is_slow = True
        leaver = await both.start(asyncio.Event())
        both.leasing.received(both.delayed[0])
        leaver.cancel()
        await both.home.clock.settle()
        assert leaver.cancelled()
        assert both.in_use() == 0


async def test_a_task_cancelled_as_its_refusal_arrives_is_quiet() -> None:
    async with pair() as both:
        both.home.use(OutcomeKind.OUT_OF_QUOTA, rest_seconds=100)
        both.is_slow = True
        leaver = await both.start(asyncio.Event())
        both.leasing.received(both.delayed[0])
        both.leasing.received(both.delayed[0])
        leaver.cancel()
        await both.home.clock.settle()
        assert leaver.cancelled()


async def test_all_a_dead_worker_held_goes_back_and_its_waiters_leave() -> None:
    async with pair() as both:
        gate = asyncio.Event()
        held, waiting = await both.start(gate), await both.start(gate)
        both.desk.close()
        await both.home.clock.settle()
        assert (both.in_use(), both.home.pool.waiting) == (0, 0)
        both.leasing.lost()
        with pytest.raises(ShuttingDown):
            await waiting
        gate.set()
        await held
        with pytest.raises(ShuttingDown):
            await both.leasing.status()


async def test_a_rejected_token_is_renewed_or_the_refusal_crosses_over() -> None:
    async with pair() as both:
        both.home.use(OutcomeKind.SUCCEEDED)
        lease = both.home.take()
        await both.leasing.renew(lease.credential, deadline=both.deadline())
        lease.end()
        lease = both.home.take()
        assert lease.credential.token.reveal() == "a-2"
        with pytest.raises(CredentialRejected):  # it is fresh, and never worked
            await both.leasing.renew(lease.credential, deadline=both.deadline())


async def test_the_rest_is_heard() -> None:
    async with pair() as both:
        both.desk.received(Ready())
        note = DriftCount(kind="phase", name="odd", count=1, first_at=1.0)
        both.desk.received(DriftSeen((note,)))
        both.leasing.received(Retire(7.0))
        assert (both.readies, list(both.desk.drift), both.retired) == (1, [note], [7.0])
        assert (await both.leasing.survey()).drift == (note,)
