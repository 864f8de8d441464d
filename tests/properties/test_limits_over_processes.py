"""Limits over several processes, under any order of what they do, also of their ends: never exceeded; and what nobody
has lost can be used to its last within a second."""

import asyncio
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.allowances import Allowance, AllowanceSpent, Share, Want
from qwen_proxy.state.purse import NoPlace
from qwen_proxy.state.windows import Period
from tests.unit.state.house import House, Process

MOST_PROCESSES = 4
WHICH = st.integers(0, 10**6)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.home = House()
        self.living: list[Process] = []
        self.a_process_starts_now()

    def a_process_starts_now(self) -> None:
        self.living.append(self.runner.run(self.home.open()))

    def teardown(self) -> None:
        try:
            self.runner.run(self.at_the_end())
        finally:
            self.runner.run(self.everyone_leaves())
            self.runner.close()

    async def at_the_end(self) -> None: ...

    async def everyone_leaves(self) -> None:
        for process in self.living:
            await process.leave()

    @initialize(count=st.integers(0, 2))
    def others_start(self, count: int) -> None:
        for _ in range(count):
            self.a_process_starts_now()

    @precondition(lambda self: len(self.living) < MOST_PROCESSES)
    @rule()
    def a_process_starts(self) -> None:
        self.a_process_starts_now()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(self.home.clock.advance(seconds))

    def one_of_the_living(self, which: int) -> Process:
        return self.living[which % len(self.living)]


class AllowanceMachine(Machine):
    """What is reserved and what was spent never exceed the limit of their window."""

    def __init__(self) -> None:
        super().__init__()
        self.allowance = Allowance("tpm:k", Period.MINUTE, 100)
        self.spent: Counter[str] = Counter()  # by window
        self.reserved: list[tuple[Process, Share]] = []
        self.something_is_lost = False

    @initialize(limit=st.sampled_from([1, 7, 100, 3000]))
    def limited(self, limit: int) -> None:
        self.allowance = Allowance("tpm:k", Period.MINUTE, limit)

    async def reserve(self, process: Process, amount: int) -> None:
        try:
            (share,) = await process.allowances.reserve([Want(self.allowance, amount)])
        except (AllowanceSpent, StoreUnavailable):
            return
        self.reserved.append((process, share))

    @rule(which=WHICH, amounts=st.lists(st.integers(1, 40), min_size=1, max_size=12))
    def requests_come_at_once(self, which: int, amounts: list[int]) -> None:
        process = self.one_of_the_living(which)

        async def come() -> None:
            await asyncio.gather(*(self.reserve(process, min(amount, self.allowance.limit)) for amount in amounts))

        self.runner.run(come())

    @rule(amount=st.integers(1, 20), times=st.integers(1, 4))
    def requests_come_everywhere(self, amount: int, times: int) -> None:
        async def come() -> None:
            await asyncio.gather(
                *(
                    self.reserve(process, min(amount, self.allowance.limit))
                    for _ in range(times)
                    for process in self.living
                )
            )

        self.runner.run(come())

    @precondition(lambda self: self.reserved)
    @rule(which=WHICH, part=st.sampled_from([0.0, 0.3, 1.0]))
    def a_request_ends(self, which: int, part: float) -> None:
        process, share = self.reserved.pop(which % len(self.reserved))
        spent = int(share.amount * part)
        self.spent[share.bucket.name] += spent
        process.allowances.correct(share, spent)

    @precondition(lambda self: len(self.living) > 1)
    @rule(which=WHICH, is_killed=st.booleans())
    def a_process_ends(self, which: int, is_killed: bool) -> None:
        process = self.living.pop(which % len(self.living))
        theirs = [share for owner, share in self.reserved if owner is process]
        self.reserved = [(owner, share) for owner, share in self.reserved if owner is not process]
        for share in theirs:  # a request that was under way: it may have spent all that it had reserved
            self.spent[share.bucket.name] += share.amount
        self.something_is_lost = self.something_is_lost or is_killed
        self.runner.run(process.crash() if is_killed else process.leave())

    @rule(which=WHICH, call=st.sampled_from(["draw", "charge"]), is_done=st.booleans())
    def a_line_goes_bad(self, which: int, call: str, is_done: bool) -> None:
        line = self.one_of_the_living(which).line
        line.only = frozenset({call})
        line.loses_answers, line.is_cut = is_done, not is_done
        self.something_is_lost = True

    @rule(which=WHICH)
    def a_line_is_mended(self, which: int) -> None:
        line = self.one_of_the_living(which).line
        line.loses_answers = line.is_cut = False

    @invariant()
    def no_window_is_spent_beyond_the_limit(self) -> None:
        counts = self.spent.copy()
        for _, share in self.reserved:
            counts[share.bucket.name] += share.amount
        assert all(count <= self.allowance.limit for count in counts.values())

    async def at_the_end(self) -> None:
        if self.something_is_lost:
            return
        clock = self.home.clock
        if clock.now() % 60 > 55:
            await clock.advance(6)
        for process, share in self.reserved:
            process.allowances.correct(share, 0)
        self.reserved.clear()
        await clock.advance(1.0)
        # What others had in hand has come back: one alone can spend all that is left.
        left = self.allowance.limit - self.spent[f"tpm:k:{int(clock.now() // 60 * 60)}"]
        if left:
            assert await self.living[0].allowances.reserve([Want(self.allowance, left)])


class PurseMachine(Machine):
    """What is in use never exceeds the limit, that of a killed process included until it counts as gone."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3
        self.in_use: list[Process] = []
        self.killed: list[tuple[float, int]] = []  # until when it surely counts, how many

    @initialize(limit=st.sampled_from([1, 3, 16]))
    def limited(self, limit: int) -> None:
        self.limit = limit

    async def take(self, process: Process) -> None:
        try:
            await process.purse.take("key:k", self.limit)
        except NoPlace:
            return
        self.in_use.append(process)

    @rule(which=WHICH, count=st.integers(1, 8))
    def requests_come_at_once(self, which: int, count: int) -> None:
        process = self.one_of_the_living(which)

        async def come() -> None:
            await asyncio.gather(*(self.take(process) for _ in range(count)))

        self.runner.run(come())

    @rule(count=st.integers(1, 3))
    def requests_come_everywhere(self, count: int) -> None:
        async def come() -> None:
            await asyncio.gather(*(self.take(process) for _ in range(count) for process in self.living))

        self.runner.run(come())

    @precondition(lambda self: self.in_use)
    @rule(which=WHICH)
    def a_request_ends(self, which: int) -> None:
        process = self.in_use.pop(which % len(self.in_use))
        process.purse.give_back("key:k")

    @precondition(lambda self: len(self.living) > 1)
    @rule(which=WHICH, is_killed=st.booleans())
    def a_process_ends(self, which: int, is_killed: bool) -> None:
        process = self.living.pop(which % len(self.living))
        if is_killed:
            count = self.in_use.count(process)
            self.killed.append((self.home.clock.monotonic() + 3.9, count))  # its last beat may be a second old
        self.in_use = [each for each in self.in_use if each is not process]
        self.runner.run(process.crash() if is_killed else process.leave())

    @invariant()
    def no_more_is_in_use_than_there_is(self) -> None:
        now = self.home.clock.monotonic()
        assert len(self.in_use) + sum(count for until, count in self.killed if now < until) <= self.limit

    async def at_the_end(self) -> None:
        for process in self.in_use:
            process.purse.give_back("key:k")
        self.in_use.clear()
        # A process that was killed counts as gone after five seconds, and the others hear of it at their next beat.
        await self.home.clock.advance(6.1 if self.killed else 1.0)
        process = self.living[0]
        for _ in range(self.limit):
            await self.take(process)
        assert len(self.in_use) == self.limit


AllowanceMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
PurseMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_allowances_under_any_order_of_events = AllowanceMachine.TestCase
test_places_under_any_order_of_events = PurseMachine.TestCase
