"""Allowances spent in memory out of what was drawn: exact, cheap, and given back."""

import asyncio

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.allowances import REFUSED_SECONDS, Allowance, AllowanceSpent, Share, Want
from qwen_proxy.state.store import Draw
from qwen_proxy.state.windows import Period
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.unit.state.house import START, House, Process, house, one, requests

TOKENS = Allowance("tpm:k", Period.MINUTE, 1000)
TODAY = Allowance("day:k", Period.DAY, 5000)


async def used(home: House, name: str, at: float = START, length: int = 60) -> int:
    """What the store counts as drawn."""
    (drawn,) = await home.store.draw([Draw(name=f"{name}:{int(at)}", ends_at=at + length, limit=0, need=1)])
    return drawn.used


async def granted(process: Process, times: int, limit: int) -> int:
    return sum([await process.reserve(one(limit)) is not None for _ in range(times)])


# --- exact -------------------------------------------------------------------------------------------------


async def test_a_limit_is_granted_to_its_last_and_no_further() -> None:
    async with house() as (_, (process,)):
        assert await granted(process, 12, 10) == 10


async def test_what_is_refused_says_what_is_left_and_when_the_window_ends() -> None:
    async with house() as (home, (process,)):
        await process.reserve(Want(TOKENS, 700))
        await home.clock.advance(10)
        with pytest.raises(AllowanceSpent) as caught:
            await process.allowances.reserve([Want(TOKENS, 301)])
        assert caught.value.want == Want(TOKENS, 301)
        standing = caught.value.standing
        assert (standing.limit, standing.remaining, standing.ends_at) == (1000, 300, START + 60)
        assert await process.reserve(Want(TOKENS, 300))


async def test_a_window_that_begins_starts_from_nothing() -> None:
    async with house() as (home, (process,)):
        assert await granted(process, 5, 3) == 3
        await home.clock.advance(60)
        assert await granted(process, 5, 3) == 3


async def test_processes_share_a_limit() -> None:
    async with house(3) as (_, processes):
        counts = [await granted(process, 50, 100) for process in processes]
        assert sum(counts) <= 100
        assert counts[0] == 50


async def test_several_allowances_are_reserved_together_or_not_at_all() -> None:
    async with house() as (_, (process,)):
        wants = [one(10), Want(TOKENS, 600), Want(TODAY, 600)]
        assert await process.allowances.reserve(wants)
        with pytest.raises(AllowanceSpent, match="tpm:k"):
            await process.allowances.reserve(wants)
        assert process.allowances.standing(requests(10)).remaining == 9
        assert process.allowances.standing(TODAY).remaining == 4400


# --- cheap -------------------------------------------------------------------------------------------------


async def test_who_asks_at_a_time_shares_one_draw_over_all_allowances() -> None:
    async with house() as (_, (process,)):
        wants = (one(1000), Want(Allowance("tpm:k", Period.MINUTE, 10**6), 100))
        shares = await asyncio.gather(*(process.reserve(*wants) for _ in range(200)))
        assert all(shares)
        assert process.line.calls["draw"] == 1


async def test_a_crowd_at_the_end_of_a_limit_is_served_and_refused_in_few_draws() -> None:
    async with house(2) as (_, (process, _)):
        shares = await asyncio.gather(*(process.reserve(one(40)) for _ in range(500)))
        assert sum(share is not None for share in shares) == 40
        assert process.line.calls["draw"] <= 10


async def test_a_high_pace_costs_few_draws() -> None:
    async with house(4) as (home, processes):
        process = processes[0]
        for _ in range(10):  # 100 a second
            for _ in range(10):
                assert await granted(process, 10, 60_000) == 10
                await home.clock.advance(0.1)
        assert process.line.calls["draw"] <= 40


async def test_a_flood_beyond_a_limit_is_no_flood_of_draws() -> None:
    async with house() as (home, (process,)):
        assert await granted(process, 1000, 3) == 3
        assert process.line.calls["draw"] <= 4
        await home.clock.advance(REFUSED_SECONDS)
        assert await granted(process, 1000, 3) == 0
        assert process.line.calls["draw"] <= 5


async def test_what_is_too_much_for_the_rest_leaves_it_to_smaller_ones() -> None:
    async with house() as (_, (process,)):
        await process.reserve(Want(TOKENS, 900))
        big, small, big_again = await asyncio.gather(
            process.reserve(Want(TOKENS, 200)), process.reserve(Want(TOKENS, 60)), process.reserve(Want(TOKENS, 50))
        )
        assert (big, small is not None, big_again) == (None, True, None)
        assert await process.reserve(Want(TOKENS, 40))


async def test_little_is_drawn_beyond_the_need_and_nothing_near_the_end() -> None:
    async with house(2) as (home, (first, second)):
        assert await granted(first, 20, 320) == 20
        drawn = await used(home, "rpm:k")
        assert 20 <= drawn <= 40
        assert await granted(second, 320, 320) == 320 - drawn


# --- settled -----------------------------------------------------------------------------------------------


async def reserved(process: Process, amount: int, allowance: Allowance = TOKENS) -> Share:
    (share,) = await process.allowances.reserve([Want(allowance, amount)])
    return share


async def test_what_was_not_spent_can_be_spent_again_at_once_and_without_a_draw() -> None:
    async with house() as (_, (process,)):
        share = await reserved(process, 1000)
        process.allowances.correct(share, 400)
        assert await process.reserve(Want(TOKENS, 600))
        assert await process.reserve(Want(TOKENS, 1)) is None


async def test_what_was_not_spent_is_there_for_others_within_a_second() -> None:
    async with house(2) as (home, (first, second)):
        process = await reserved(first, 1000)
        assert await second.reserve(Want(TOKENS, 1)) is None
        first.allowances.correct(process, 400)
        await home.clock.advance(1.0)
        assert await second.reserve(Want(TOKENS, 600))
        assert await second.reserve(Want(TOKENS, 1)) is None


async def test_what_was_spent_beyond_the_reservation_is_told_within_a_second() -> None:
    async with house(2) as (home, (first, second)):
        share = await reserved(first, 100)
        first.allowances.correct(share, 950)
        assert first.allowances.standing(TOKENS).remaining == 50
        await home.clock.advance(1.0)
        assert await second.reserve(Want(TOKENS, 51)) is None
        assert await second.reserve(Want(TOKENS, 50))


async def test_what_was_spent_beyond_the_reservation_is_told_before_the_next_draw() -> None:
    async with house() as (_, (process,)):
        share = await reserved(process, 100)
        process.allowances.correct(share, 950)
        assert await process.reserve(Want(TOKENS, 51)) is None
        assert await process.reserve(Want(TOKENS, 50))
        share = await reserved(process, 1000, TODAY)
        process.allowances.correct(share, 400)
        process.allowances.correct(await reserved(process, 100, TODAY), 300)  # what is in hand pays
        assert process.line.calls["charge"] == 1
        assert process.allowances.standing(TODAY).remaining == 4300


async def test_a_reservation_that_outlives_its_window_is_no_debt_of_the_next() -> None:
    async with house() as (home, (process,)):
        big, small = await reserved(process, 500), await reserved(process, 100)
        day = await reserved(process, 500, TODAY)
        await home.clock.advance(61)
        process.allowances.correct(big, 0)
        process.allowances.correct(small, 900)
        process.allowances.correct(day, 200)
        assert await process.reserve(Want(TOKENS, 1000))
        assert await process.reserve(Want(TODAY, 4800))


async def test_alone_and_busy_a_process_keeps_what_is_in_hand_and_idle_it_gives_it_back() -> None:
    async with house() as (home, (process,)):
        process.allowances.correct(await reserved(process, 1000), 10)
        await home.clock.advance(1.0)
        assert await used(home, "tpm:k") == 1000
        await home.clock.advance(2.0)
        assert await used(home, "tpm:k") == 10


async def test_what_is_in_hand_at_the_end_of_a_process_is_left_to_the_others() -> None:
    async with house(2) as (home, (first, second)):
        kept, spare = await reserved(first, 300), await reserved(first, 300)
        first.allowances.correct(spare, 0)
        first.allowances.correct(kept, 350)
        await first.leave()
        assert await used(home, "tpm:k") == 350
        assert await second.reserve(Want(TOKENS, 650))


# --- limits that change ------------------------------------------------------------------------------------


async def test_a_lower_limit_holds_for_what_is_in_hand_too() -> None:
    async with house() as (_, (process,)):
        process.allowances.correct(await reserved(process, 1000), 100)
        lower = Allowance("tpm:k", Period.MINUTE, 150)
        assert await process.reserve(Want(lower, 51)) is None
        assert await process.reserve(Want(lower, 50))


async def test_a_higher_limit_holds_at_once() -> None:
    async with house() as (_, (process,)):
        assert await granted(process, 5, 3) == 3
        assert await granted(process, 5, 5) == 2


# --- failures ----------------------------------------------------------------------------------------------


async def test_without_the_store_what_has_to_be_drawn_is_refused_as_such() -> None:
    async with house() as (_, (process,)):
        process.allowances.correct(await reserved(process, 1000), 400)
        process.line.is_cut = True
        with pytest.raises(StoreUnavailable):
            await process.allowances.reserve([one(10)])
        assert await process.reserve(Want(TOKENS, 100))  # it was drawn
        process.line.is_cut = False
        assert await granted(process, 20, 10) == 10


async def test_out_of_touch_nothing_is_granted_not_even_from_what_is_in_hand() -> None:
    async with house() as (home, (process,)):
        process.allowances.correct(await reserved(process, 1000), 0)
        process.line.is_cut = True
        await home.clock.advance(5.0)
        with pytest.raises(StoreUnavailable):
            await process.allowances.reserve([Want(TOKENS, 1)])


async def test_an_answer_that_is_lost_costs_what_it_granted_and_exceeds_nothing() -> None:
    async with house() as (_, (process,)):
        process.line.loses_answers = True
        with pytest.raises(StoreUnavailable):
            await process.allowances.reserve([Want(TOKENS, 300)])
        process.line.loses_answers = False
        assert await process.reserve(Want(TOKENS, 701)) is None
        assert await process.reserve(Want(TOKENS, 700))


@pytest.mark.parametrize("is_done", [True, False])
async def test_what_could_not_be_given_back_is_lost_and_what_was_owed_is_told_again(is_done: bool) -> None:
    async with house(2) as (home, (first, _)):
        spare = await reserved(first, 500)
        debt = await reserved(first, 500, TODAY)
        first.allowances.correct(spare, 100)
        first.allowances.correct(debt, 600)
        first.line.only = frozenset({"charge"})
        first.line.loses_answers, first.line.is_cut = is_done, not is_done
        await home.clock.advance(1.0)
        assert first.allowances.standing(TOKENS).remaining == 500
        first.line.loses_answers = first.line.is_cut = False
        await home.clock.advance(2.0)
        assert await used(home, "tpm:k") == (100 if is_done else 500)
        assert await used(home, "day:k", START - START % 86400, 86400) == (700 if is_done else 600)


async def test_a_debt_that_cannot_be_told_keeps_the_next_draw_waiting_for_the_store() -> None:
    async with house() as (_, (process,)):
        process.allowances.correct(await reserved(process, 100), 900)
        process.line.is_cut = True
        with pytest.raises(StoreUnavailable):
            await process.allowances.reserve([Want(TOKENS, 50)])
        process.line.is_cut = False
        assert await process.reserve(Want(TOKENS, 101)) is None


async def test_a_request_that_leaves_while_it_waits_takes_nothing() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        leaver = asyncio.gather(process.reserve(Want(TOKENS, 400)))
        stayer = asyncio.gather(process.reserve(Want(TOKENS, 400)))
        await home.clock.settle()
        leaver.cancel()
        process.line.opened.set()
        assert (await stayer)[0]
        assert await process.reserve(Want(TOKENS, 600))
        with pytest.raises(asyncio.CancelledError):
            await leaver


async def test_a_request_that_leaves_as_it_is_served_gives_it_back() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        task = asyncio.gather(process.reserve(Want(TOKENS, 1000)))
        await home.clock.settle()
        process.line.opened.set()
        while process.allowances.standing(TOKENS).remaining:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()  # it was served in this turn of the loop, and has not run since
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await process.reserve(Want(TOKENS, 1000))


async def test_who_waits_when_the_process_ends_is_let_go() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        task = asyncio.gather(process.reserve(Want(TOKENS, 1)))
        await home.clock.settle()
        leaving = asyncio.gather(process.leave())
        process.line.is_cut = True
        process.line.opened.set()
        await leaving
        with pytest.raises(StoreUnavailable):
            await task


# --- clocks ------------------------------------------------------------------------------------------------


class Ahead(MemoryStore):
    """Its clock is ahead of ours."""

    def __init__(self, clock: FakeClock, by_seconds: float) -> None:
        super().__init__(FakeClock(now=clock.now() + by_seconds))


async def test_a_window_that_is_over_for_the_store_is_over() -> None:
    home = House()
    home.store = Ahead(home.clock, 30)
    process = await home.open()
    await home.clock.advance(40)  # 10 seconds into the next minute there
    home.store._clock = FakeClock(now=START + 70)  # pyright: ignore[reportPrivateUsage]
    assert await granted(process, 10, 5) == 5
    assert process.allowances.standing(requests(5)).ends_at == START + 120
    await process.leave()


async def test_clocks_that_are_minutes_apart_are_told_as_such() -> None:
    home = House()
    home.store = Ahead(home.clock, 150)
    process = await home.open()
    with pytest.raises(StoreUnavailable, match="clock"):
        await process.allowances.reserve([one(5)])
    await process.leave()
