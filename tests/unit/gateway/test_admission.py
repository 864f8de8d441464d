"""What of a key's limits a request reserves, what it keeps, and how it is refused."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from qwen_proxy.config.keys import ClientKey, KeyLimits, Role
from qwen_proxy.gateway.admission import MOST_KNOWN, Admission, LimitDefaults
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground.errors import KeyLimitReached, LimitTooSmall, StoreUnavailable
from qwen_proxy.ground.limits import LimitFacts, LimitName, WindowFacts
from tests.support.clock import FakeClock
from tests.support.keys import client_key
from tests.support.processes import Alone
from tests.unit.state.house import START, House, Process, house

NONE = LimitDefaults(requests_per_minute=0, concurrent_requests=0)


class Gate:
    """The admission of a process."""

    def __init__(self, admission: Admission, clock: FakeClock, process: Process) -> None:
        self.admission = admission
        self.clock = clock
        self.process = process

    async def ask(self, key: ClientKey, prompt: int = 1, reply: int | None = None, choices: int = 1) -> int | None:
        """A request that ends at once with nothing used; what of its tokens' limit was left meanwhile."""
        async with self.admission.admit(key, lambda: Size(prompt, reply, choices)) as permit:
            facts = permit.facts()
            return None if facts is None or facts.tokens is None else facts.tokens.remaining

    async def use(self, key: ClientKey, tokens: int, prompt: int = 1) -> None:
        async with self.admission.admit(key, lambda: Size(prompt, 0)) as permit:
            permit.settle(tokens)


@asynccontextmanager
async def gate(defaults: LimitDefaults = NONE) -> AsyncGenerator[Gate]:
    async with house() as (home, (process,)):
        yield Gate(Admission(process.allowances, process.purse, home.clock, defaults), home.clock, process)


@asynccontextmanager
async def timeless_gate() -> AsyncGenerator[Gate]:
    """Its process has no heartbeat, so that the clock may leap by days."""
    home = House()
    process = Process("p", home.store, home.clock, Alone(home.store, home.clock))
    await process.enter()
    yield Gate(Admission(process.allowances, process.purse, home.clock, NONE), home.clock, process)
    await process.leave()


def key(**limits: int) -> ClientKey:
    return client_key(limits=KeyLimits(**limits))


# --- whether there is a limit ------------------------------------------------------------------------------


async def test_a_key_without_limits_costs_nothing_and_needs_no_store() -> None:
    def never() -> Size:
        raise AssertionError("nobody has to know")

    async with gate() as here:
        here.process.line.is_cut = True
        await here.clock.advance(10)
        async with here.admission.admit(client_key(), never) as permit:
            permit.settle(5)
            assert permit.facts() is None
        assert here.admission.admit(client_key(), never) is here.admission.admit(client_key("other"), never)


async def test_defaults_are_for_users_and_a_keys_own_word_comes_first() -> None:
    defaults = LimitDefaults(requests_per_minute=2, concurrent_requests=0)
    async with gate(defaults) as here:

        async def most(each: ClientKey) -> int:
            count = 0
            while count < 5:
                try:
                    await here.ask(each)
                except KeyLimitReached:
                    break
                count += 1
            return count

        assert await most(client_key("user")) == 2
        assert await most(client_key("admin", role=Role.ADMIN)) == 5
        assert await most(client_key("free", limits=KeyLimits(requests_per_minute=0))) == 5
        assert await most(client_key("more", limits=KeyLimits(requests_per_minute=3))) == 3
        assert await most(client_key("boss", role=Role.ADMIN, limits=KeyLimits(requests_per_minute=1))) == 1


async def test_a_change_of_the_key_or_of_the_defaults_holds_at_once() -> None:
    async with gate(LimitDefaults(requests_per_minute=1)) as here:
        user = client_key()
        await here.ask(user)
        with pytest.raises(KeyLimitReached):
            await here.ask(user)
        here.admission.defaults = LimitDefaults(requests_per_minute=2)
        await here.ask(user)
        changed = ClientKey(user.id, replace(user.record, limits=KeyLimits(requests_per_minute=3)))
        await here.ask(changed)
        with pytest.raises(KeyLimitReached):
            await here.ask(changed)


async def test_the_limits_at_hand_are_bounded() -> None:
    async with gate() as here:
        for number in range(MOST_KNOWN + 5):
            here.admission.admit(client_key(str(number)), lambda: Size(0))
        assert len(vars(here.admission)["_known"]) <= MOST_KNOWN


# --- requests per minute -----------------------------------------------------------------------------------


async def test_requests_are_counted_by_the_minute() -> None:
    async with gate() as here:
        user = key(requests_per_minute=2)
        await here.ask(user)
        await here.clock.advance(20)
        await here.ask(user)
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user)
        error = caught.value
        assert (error.name, error.limit, error.used, error.requested) == (LimitName.REQUESTS_PER_MINUTE, 2, 2, 1)
        assert (error.resets_at, error.retry_after_seconds) == (START + 60, 40)
        assert error.facts == LimitFacts(at=START + 20, requests=WindowFacts(2, 0, START + 60))
        await here.clock.advance(40)
        await here.ask(user)


# --- tokens ------------------------------------------------------------------------------------------------


async def test_a_prompt_and_the_most_its_replies_may_have_are_reserved() -> None:
    async with gate() as here:
        user = key(tokens_per_minute=10_000)
        assert await here.ask(user, 100, 50) == 9850
        assert await here.ask(user, 100, 50, choices=3) == 9750
        assert await here.ask(user, 100) == 10_000 - 100 - 1024
        assert await here.ask(user, 100, 0) == 9900


async def test_a_request_keeps_what_it_used_and_the_rest_can_be_spent_again() -> None:
    async with gate() as here:
        user = key(tokens_per_minute=2000)
        await here.use(user, 700)
        assert await here.ask(user, 100, 1200) == 0
        await here.use(user, 1500)  # more than it had reserved
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user, 1, 0)
        assert (caught.value.name, caught.value.used) == (LimitName.TOKENS_PER_MINUTE, 2000)


async def test_a_reply_of_unknown_length_may_take_the_whole_limit_and_a_prompt_may_not_exceed_it() -> None:
    async with gate() as here:
        user = key(tokens_per_minute=500, tokens_per_day=800)
        assert await here.ask(user, 400, 5000) == 0
        with pytest.raises(LimitTooSmall) as caught:
            await here.ask(user, 501)
        assert (caught.value.name, caught.value.limit, caught.value.requested) == (
            LimitName.TOKENS_PER_MINUTE,
            500,
            501,
        )
        assert caught.value.facts.tokens == WindowFacts(500, 500, START + 60)


async def test_days_and_months_are_counted_too_and_the_tightest_is_told() -> None:
    async with timeless_gate() as here:
        user = key(tokens_per_minute=1000, tokens_per_day=1500, tokens_per_month=1600)
        await here.use(user, 900)
        assert await here.ask(user, 10, 0) == 90
        await here.clock.advance(60)
        assert await here.ask(user, 10, 0) == 590
        await here.use(user, 550)
        await here.clock.advance(60)
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user, 60, 0)
        day = START - START % 86400 + 86400
        assert (caught.value.name, caught.value.resets_at) == (LimitName.TOKENS_PER_DAY, day)
        await here.clock.advance(86400)
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user, 160, 0)
        assert caught.value.name is LimitName.TOKENS_PER_MONTH


async def test_a_request_that_is_refused_for_its_tokens_is_no_request_of_the_minute() -> None:
    async with gate() as here:
        user = key(requests_per_minute=2, tokens_per_minute=100)
        for _ in range(3):
            with pytest.raises(KeyLimitReached):
                await here.use(user, 0, prompt=101)
        await here.use(user, 100)
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user, 1, 0)
        assert caught.value.name is LimitName.TOKENS_PER_MINUTE
        assert caught.value.facts.requests == WindowFacts(2, 1, START + 60)


# --- requests at a time ------------------------------------------------------------------------------------


async def begun(here: Gate, user: ClientKey, ends: asyncio.Event) -> asyncio.Task[None]:
    """A request that goes on until it is told to end."""

    async def go_on() -> None:
        async with here.admission.admit(user, lambda: Size(1)):
            await ends.wait()

    task = asyncio.get_running_loop().create_task(go_on())
    await here.clock.settle()
    return task


async def test_requests_at_a_time_are_limited_and_whoever_ends_lets_the_next_one_in() -> None:
    async with gate() as here:
        user, ends = key(concurrent_requests=2), asyncio.Event()
        tasks = [await begun(here, user, ends) for _ in range(2)]
        with pytest.raises(KeyLimitReached) as caught:
            await here.ask(user)
        error = caught.value
        assert (error.name, error.limit, error.resets_at) == (LimitName.CONCURRENT_REQUESTS, 2, None)
        assert error.facts == LimitFacts(at=START)
        ends.set()
        await asyncio.gather(*tasks)
        await here.ask(user)


async def test_a_client_that_leaves_frees_its_place_and_its_tokens() -> None:
    async with gate() as here:
        user, ends = key(concurrent_requests=1, tokens_per_minute=2000), asyncio.Event()
        task = await begun(here, user, ends)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await here.ask(user, 2000) == 0


async def test_who_is_refused_otherwise_frees_its_place() -> None:
    async with gate() as here:
        user = key(concurrent_requests=1, requests_per_minute=1)
        await here.ask(user)
        for _ in range(2):
            with pytest.raises(KeyLimitReached) as caught:
                await here.ask(user)
            assert caught.value.name is LimitName.REQUESTS_PER_MINUTE
        assert here.process.purse.in_use("key:key_1") == 0


async def test_only_a_limit_of_places_has_no_facts_to_tell() -> None:
    async with gate() as here:
        async with here.admission.admit(key(concurrent_requests=1), lambda: Size(1)) as permit:
            assert permit.facts() is None
            permit.settle(5)


# --- the store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [key(requests_per_minute=5), key(concurrent_requests=5)])
async def test_without_the_store_a_key_with_limits_is_refused_as_such(user: ClientKey) -> None:
    async with gate() as here:
        here.process.line.is_cut = True
        with pytest.raises(StoreUnavailable):
            await here.ask(user)
        here.process.line.is_cut = False
        await here.ask(user)
