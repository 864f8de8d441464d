"""The pool under any order of events, against a model that only counts."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwen_proxy.accounts.model import Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import PoolLease
from qwen_proxy.ground.errors import NoAccountUsable
from tests.unit.accounts.house import House, account, house, outcome

LIMIT = 2
NAMES = "abc"
Wish = tuple[Feature, str | None]


class PoolMachine(RuleBasedStateMachine):
    """Leases are never more than allowed and never lost; who waits is served in order, or dies with the deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        exits = ["", "", "http://p"]
        self.entering = house(*map(account, NAMES, exits), concurrency=LIMIT)
        self.home: House = self.runner.run(self.entering.__aenter__())
        self.held: list[PoolLease] = []
        self.waiting: dict[Wish, list[tuple[asyncio.Task[PoolLease], float]]] = {}

    def teardown(self) -> None:
        try:
            self.runner.run(self.everyone_leaves())
            assert all(report.in_use == 0 for report in self.home.pool.snapshot())
        finally:
            self.runner.run(self.entering.__aexit__(None, None, None))
            self.runner.close()

    async def everyone_leaves(self) -> None:
        for lease in self.held:
            lease.end()
        for queue in self.waiting.values():
            for task, _ in queue:
                task.cancel()
        await self.home.clock.settle()

    @rule(
        feature=st.sampled_from([Feature.CHAT, Feature.VIDEO]),
        only=st.sampled_from([None, None, *NAMES]),
        seconds=st.sampled_from([1.0, 30.0, 400.0]),
    )
    def ask(self, feature: Feature, only: str | None, seconds: float) -> None:
        task = self.runner.run(self.home.wait(seconds, feature=feature, only=only))
        deadline = self.home.clock.monotonic() + seconds
        self.waiting.setdefault((feature, only), []).append((task, deadline))
        self.collect()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0), kind=st.sampled_from(OutcomeKind), seconds=st.sampled_from([None, 50.0]))
    def end(self, which: int, kind: OutcomeKind, seconds: float | None) -> None:
        lease = self.held.pop(which % len(self.held))
        self.runner.run(self.returned(lease, outcome(kind, rest_seconds=seconds, feature=lease.feature)))

    @precondition(lambda self: self.held and any(self.waiting.values()))
    @rule(which=st.integers(0), first=st.booleans())
    def a_waiter_leaves_as_a_lease_comes_back(self, which: int, first: bool) -> None:
        lease = self.held.pop(which % len(self.held))
        queues = [queue for queue in self.waiting.values() if queue]
        queue = queues[which % len(queues)]
        leaver, _ = queue.pop(which % len(queue))
        self.runner.run(self.returned(lease, None, leaver, first))

    async def returned(
        self,
        lease: PoolLease,
        result: Outcome | None,
        leaver: asyncio.Task[PoolLease] | None = None,
        first: bool = True,
    ) -> None:
        if leaver is not None and first:
            leaver.cancel()
        if result is not None:
            lease.report(result)
        lease.end()
        if leaver is not None:
            leaver.cancel()
        await self.home.clock.settle()
        self.collect()

    @rule(seconds=st.sampled_from([0.5, 5.0, 61.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(self.home.clock.advance(seconds))
        self.collect()

    def collect(self) -> None:
        """Take what was served; in each queue those done are the first, but for those whose deadline has come."""
        for queue in self.waiting.values():
            seen_waiting = False
            for task, deadline in list(queue):
                if not task.done():
                    seen_waiting = True
                    assert deadline > self.home.clock.monotonic()
                    continue
                queue.remove((task, deadline))
                error = task.exception()
                if error is None:
                    assert not seen_waiting
                    self.held.append(task.result())
                else:
                    assert isinstance(error, NoAccountUsable)

    @invariant()
    def no_account_has_more_uses_than_allowed_and_none_is_lost(self) -> None:
        in_use = {report.account: report.in_use for report in self.home.pool.snapshot()}
        held = dict.fromkeys(in_use, 0)
        for lease in self.held:
            held[lease.credential.account_id] += 1
        assert in_use == held
        assert max(in_use.values()) <= LIMIT

    @invariant()
    def nobody_waits_while_an_account_is_free(self) -> None:
        for (feature, only), queue in self.waiting.items():
            if queue:
                states = [self.home.state(name) for name in NAMES if only in (None, name)]
                assert feature is not Feature.CHAT or "ready" not in states


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_pool_under_any_order_of_events = PoolMachine.TestCase
