"""What a key may spend a day on paid backends."""

import pytest

from qwen_proxy.config.keys import ClientKey, KeyLimits, Role
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground.errors import KeyLimitReached, LimitTooSmall, StoreUnavailable
from qwen_proxy.ground.limits import LimitName
from tests.support.keys import client_key
from tests.unit.state.house import house

NONE = LimitDefaults(requests_per_minute=0, concurrent_requests=0)


def key(limit: int | None) -> ClientKey:
    return client_key(limits=KeyLimits(api_tokens_per_day=limit))


async def test_a_try_reserves_prompt_and_reply_and_keeps_what_it_used() -> None:
    async with house() as (home, (process,)):
        admission = Admission(process.allowances, process.purse, home.clock, NONE)
        async with admission.admit(key(5000), lambda: Size(1000, 500, 3)) as permit:
            assert permit.facts() is None  # it is no limit of every request
            budget = permit.api
            assert budget is not None and budget.prompt_tokens == 1000
            share = await budget.reserve()
            assert budget.standing().remaining == 3500
            budget.settle(share, 1200)
            assert budget.standing().remaining == 3800
        async with admission.admit(key(5000), lambda: Size(1000)) as permit:
            assert permit.api is not None
            await permit.api.reserve()  # 1024 for a reply of unknown length
            assert permit.api.standing().remaining == 3800 - 2024


async def test_a_try_of_several_prompts_reserves_for_one_of_them() -> None:
    async with house() as (home, (process,)):
        admission = Admission(process.allowances, process.purse, home.clock, NONE)
        async with admission.admit(key(1000), lambda: Size(1001, 50, 4, 2)) as permit:
            budget = permit.api
            assert budget is not None and budget.prompt_tokens == 501
            await budget.reserve()
            assert budget.standing().remaining == 1000 - 551


async def test_a_used_up_budget_is_refused_until_tomorrow_and_one_that_is_too_small_for_ever() -> None:
    async with house() as (home, (process,)):
        admission = Admission(process.allowances, process.purse, home.clock, NONE)
        async with admission.admit(key(1000), lambda: Size(900, 50)) as permit:
            budget = permit.api
            assert budget is not None
            await budget.reserve()
            with pytest.raises(
                KeyLimitReached, match=r"API tokens per day: Limit 1000, Used 950, Requested 950"
            ) as caught:
                await budget.reserve()
            assert caught.value.name is LimitName.API_TOKENS_PER_DAY
            assert caught.value.resets_at is not None and caught.value.resets_at % 86400 == 0
        async with admission.admit(key(1000), lambda: Size(1001)) as permit:
            assert permit.api is not None
            with pytest.raises(LimitTooSmall, match="API tokens per day: Limit 1000, Requested 1001"):
                await permit.api.reserve()


async def test_what_can_not_be_counted_is_not_let_through() -> None:
    async with house() as (home, (process,)):
        admission = Admission(process.allowances, process.purse, home.clock, NONE)
        async with admission.admit(key(1000), lambda: Size(1)) as permit:
            process.line.is_cut = True
            await home.clock.advance(10)
            assert permit.api is not None
            with pytest.raises(StoreUnavailable):
                await permit.api.reserve()


async def test_the_default_is_for_users_and_a_keys_own_word_comes_first() -> None:
    async with house() as (home, (process,)):
        defaults = LimitDefaults(requests_per_minute=0, concurrent_requests=0, api_tokens_per_day=7)
        admission = Admission(process.allowances, process.purse, home.clock, defaults)

        async def limit(each: ClientKey) -> int | None:
            async with admission.admit(each, lambda: Size(1)) as permit:
                return None if permit.api is None else permit.api.standing().limit

        assert await limit(client_key("user")) == 7
        assert await limit(client_key("boss", role=Role.ADMIN)) is None
        assert await limit(client_key("more", limits=KeyLimits(api_tokens_per_day=9))) == 9
        assert await limit(client_key("free", limits=KeyLimits(api_tokens_per_day=0, requests_per_minute=1))) is None
