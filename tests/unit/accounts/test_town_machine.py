"""Several pools over one store under any order of events: together never more uses than allowed, and none is lost."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwen_proxy.accounts.pool import PoolLease
from qwen_proxy.ground.errors import NoAccountUsable, StoreUnavailable
from qwen_proxy.state.store import PROCESS_SECONDS
from tests.unit.accounts.house import account
from tests.unit.accounts.town import Process, Town, town

LIMIT = 2
NAMES = "abc"
MOST_PROCESSES = 6


class TownMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.entering = town(*map(account, NAMES), processes=2, concurrency=LIMIT)
        self.town: Town = self.runner.run(self.entering.__aenter__())
        self.living: list[Process] = list(self.town.processes)
        self.held: list[tuple[Process, PoolLease]] = []
        self.waiting: list[tuple[Process, asyncio.Task[PoolLease]]] = []

    def teardown(self) -> None:
        try:
            self.runner.run(self.everyone_leaves())
        finally:
            self.runner.run(self.entering.__aexit__(None, None, None))
            self.runner.close()

    async def everyone_leaves(self) -> None:
        for _, task in self.waiting:
            task.cancel()
        await self.town.clock.settle()
        self.collect()
        for _, lease in self.held:
            lease.end()
        self.held.clear()
        await self.town.clock.advance(PROCESS_SECONDS + 3)
        held = {account: count for account, count in (await self.town.kept.store.taken("account:")).items() if count}
        assert held == {} or len(self.living) == 1, held  # one that is alone keeps all there is

    @rule(which=st.integers(0), only=st.sampled_from([None, None, *NAMES]), seconds=st.sampled_from([1.0, 30.0]))
    def ask(self, which: int, only: str | None, seconds: float) -> None:
        process = self.living[which % len(self.living)]
        self.waiting.append((process, self.runner.run(process.ask(seconds, only))))
        self.collect()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0))
    def end(self, which: int) -> None:
        _, lease = self.held.pop(which % len(self.held))
        self.runner.run(self.returned(lease))
        self.collect()

    async def returned(self, lease: PoolLease) -> None:
        lease.end()
        await self.town.clock.settle()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0))
    def leave(self, which: int) -> None:
        _, task = self.waiting.pop(which % len(self.waiting))
        task.cancel()
        self.runner.run(self.town.clock.settle())
        if not task.cancelled() and task.exception() is None:
            self.runner.run(self.returned(task.result()))

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(self.town.clock.advance(seconds))
        self.collect()

    @precondition(lambda self: len(self.town.processes) < MOST_PROCESSES)
    @rule()
    def begin(self) -> None:
        self.living.append(self.runner.run(self.town.add()))
        self.collect()

    @precondition(lambda self: len(self.living) > 1)
    @rule(which=st.integers(0))
    def die(self, which: int) -> None:
        victim = self.living.pop(which % len(self.living))
        for process, task in self.waiting:
            if process is victim:
                task.cancel()
        self.runner.run(victim.die())
        self.waiting = [each for each in self.waiting if each[0] is not victim]
        self.held = [each for each in self.held if each[0] is not victim]
        self.collect()

    @rule(which=st.integers(0), seconds=st.sampled_from([0.5, 2.0]))
    def lose_touch_for_a_while(self, which: int, seconds: float) -> None:
        process = self.living[which % len(self.living)]
        process.member.is_cut = True
        self.runner.run(self.town.clock.advance(seconds))
        process.member.is_cut = False
        self.runner.run(self.town.clock.advance(0.6))
        self.collect()

    def collect(self) -> None:
        for process, task in list(self.waiting):
            if task.done():
                self.waiting.remove((process, task))
                error = None if task.cancelled() else task.exception()
                if error is not None:
                    assert isinstance(error, NoAccountUsable | StoreUnavailable)
                elif not task.cancelled():
                    self.held.append((process, task.result()))

    @invariant()
    def together_no_account_has_more_uses_than_allowed(self) -> None:
        counts = dict.fromkeys((f"{name}@x.org" for name in NAMES), 0)
        for _, lease in self.held:
            counts[lease.credential.account_id] += 1
        assert max(counts.values()) <= LIMIT, counts

    @invariant()
    def what_a_process_uses_it_has_borrowed(self) -> None:
        for process in self.living:
            for seat in process.pool.seats():
                assert seat.in_use <= seat.held


TownMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_several_pools_under_any_order_of_events = TownMachine.TestCase
