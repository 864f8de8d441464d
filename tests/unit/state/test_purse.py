"""Places at a time: never more than there are, and free again within a second."""

import asyncio

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.purse import FULL_SECONDS, NoPlace
from tests.unit.state.house import house


async def test_places_are_granted_to_the_last_and_no_further() -> None:
    async with house() as (home, (process,)):
        assert [await process.takes("key:k", 3) for _ in range(5)] == [True, True, True, False, False]
        process.purse.give_back("key:k")
        assert await process.takes("key:k", 3)
        assert process.purse.in_use("key:k") == 3
        assert await home.store.taken("key:") == {"key:k": 3}


async def test_names_do_not_share_places() -> None:
    async with house() as (_, (process,)):
        assert await process.takes("key:a", 1)
        assert await process.takes("key:b", 1)
        assert process.purse.in_use("key:c") == 0


async def test_processes_share_places() -> None:
    async with house(3) as (_, processes):
        taken = [await process.takes("key:k", 10) for _ in range(5) for process in processes]
        assert sum(taken) <= 10
        assert taken[:6] == [True] * 6


async def test_who_asks_at_a_time_shares_one_question() -> None:
    async with house() as (_, (process,)):
        taken = await asyncio.gather(*(process.takes("key:k", 40) for _ in range(100)))
        assert taken == [True] * 40 + [False] * 60
        assert process.line.calls["take"] == 1


async def test_who_asks_while_a_question_is_under_way_has_the_next_one() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        first = asyncio.gather(process.takes("key:k", 2))
        await home.clock.settle()
        second = asyncio.gather(process.takes("key:k", 2), process.takes("key:k", 2))
        await home.clock.settle()
        process.line.opened.set()
        assert await first == [True]
        assert await second == [True, False]
        assert process.line.calls["take"] == 2


async def test_a_place_that_comes_back_serves_who_waits() -> None:
    async with house(2) as (home, (process, other)):
        assert await process.takes("key:k", 2)
        assert await other.takes("key:k", 2)
        process.line.opened.clear()
        waiting = asyncio.gather(process.takes("key:k", 2))
        await home.clock.settle()
        process.purse.give_back("key:k")
        process.line.opened.set()
        assert await waiting == [True]


async def test_a_flood_beyond_the_limit_is_no_flood_of_questions() -> None:
    async with house(2) as (home, (process, other)):
        assert await other.takes("key:k", 2)
        assert await process.takes("key:k", 2)
        asked = process.line.calls["take"]
        assert not any([await process.takes("key:k", 2) for _ in range(100)])
        assert process.line.calls["take"] == asked + 1
        await home.clock.advance(FULL_SECONDS)
        assert not await process.takes("key:k", 2)
        assert process.line.calls["take"] == asked + 2


async def test_a_steady_pace_in_a_lone_process_costs_no_question_a_request() -> None:
    async with house() as (home, (process,)):
        for _ in range(50):
            assert await process.takes("key:k", 20)
            process.purse.give_back("key:k")
            await home.clock.advance(0.1)
        assert process.line.calls["take"] == 1


async def test_a_high_pace_among_others_costs_few_questions() -> None:
    async with house(2) as (home, (process, _)):
        asked = 0
        for _ in range(20):
            taken = [await process.takes("key:k", 64) for _ in range(8)]
            assert taken == [True] * 8
            for _ in taken:
                process.purse.give_back("key:k")
            await home.clock.advance(0.1)
            asked += 8
        assert process.line.calls["take"] <= asked / 8


async def test_idle_places_are_there_for_others_within_a_second() -> None:
    async with house(2) as (home, (first, second)):
        assert all([await first.takes("key:k", 4) for _ in range(4)])
        assert not await second.takes("key:k", 4)
        for _ in range(4):
            first.purse.give_back("key:k")
        await home.clock.advance(1.0)
        assert all([await second.takes("key:k", 4) for _ in range(4)])


async def test_a_name_that_is_not_used_any_more_is_forgotten() -> None:
    async with house() as (home, (process,)):
        assert await process.takes("key:k", 4)
        process.purse.give_back("key:k")
        await home.clock.advance(3.0)
        assert await home.store.taken("key:") == {}
        assert vars(process.purse)["_places"] == {}


async def test_the_places_of_a_killed_process_are_free_once_it_counts_as_gone() -> None:
    async with house(2) as (home, (first, second)):
        assert all([await first.takes("key:k", 2) for _ in range(2)])
        await first.crash()
        assert not await second.takes("key:k", 2)
        await home.clock.advance(5.5)
        assert all([await second.takes("key:k", 2) for _ in range(2)])


async def test_a_lower_limit_holds_as_requests_end_and_a_higher_one_at_once() -> None:
    async with house() as (home, (process,)):
        assert all([await process.takes("key:k", 4) for _ in range(4)])
        assert not await process.takes("key:k", 2)
        process.purse.give_back("key:k")
        process.purse.give_back("key:k")
        assert not await process.takes("key:k", 2)
        await home.clock.settle()
        assert await home.store.taken("key:") == {"key:k": 2}
        await home.clock.advance(FULL_SECONDS)
        assert await process.takes("key:k", 3)


async def test_without_the_store_nothing_is_borrowed() -> None:
    async with house() as (_, (process,)):
        assert await process.takes("key:k", 2)
        process.line.is_cut = True
        with pytest.raises(StoreUnavailable):
            await process.purse.take("key:k", 2)
        process.purse.give_back("key:k")
        assert await process.takes("key:k", 2)  # it is held
        process.line.is_cut = False
        assert await process.takes("key:k", 2)


async def test_out_of_touch_nothing_is_granted_not_even_what_is_held() -> None:
    async with house() as (home, (process,)):
        assert await process.takes("key:k", 2)
        process.purse.give_back("key:k")
        process.line.is_cut = True
        await home.clock.advance(5.0)
        with pytest.raises(StoreUnavailable):
            await process.purse.take("key:k", 2)


async def test_what_runs_through_a_lapse_counts_again_behind_it() -> None:
    async with house(2) as (home, (first, second)):
        assert all([await first.takes("key:k", 3) for _ in range(2)])
        first.purse.give_back("key:k")
        first.line.is_cut = True
        await home.clock.advance(6.0)
        first.line.is_cut = False
        await home.clock.advance(2.0)
        assert await home.store.taken("key:") == {"key:k": 1}
        assert [await second.takes("key:k", 3) for _ in range(3)] == [True, True, False]
        first.purse.give_back("key:k")
        await home.clock.advance(1.0)
        assert await second.takes("key:k", 3)


async def test_an_answer_from_before_a_lapse_grants_nothing() -> None:
    async with house(2) as (home, (first, second)):
        first.line.only = frozenset({"take"})
        first.line.opened.clear()
        late = asyncio.gather(first.purse.take("key:k", 1), return_exceptions=True)
        await home.clock.advance(6.0)
        assert await second.takes("key:k", 1)
        first.line.opened.set()
        (answer,) = await late
        assert isinstance(answer, StoreUnavailable | NoPlace)
        await home.clock.advance(2.0)
        assert await home.store.taken("key:") == {"key:k": 1}


async def test_a_lost_answer_leaves_no_place_taken() -> None:
    async with house(2) as (home, (first, second)):
        first.line.only = frozenset({"take"})
        first.line.loses_answers = True
        with pytest.raises(StoreUnavailable):
            await first.purse.take("key:k", 1)
        first.line.loses_answers = False
        await home.clock.advance(1.0)
        assert await second.takes("key:k", 1)


async def test_a_request_that_leaves_while_it_waits_takes_nothing() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        leaver = asyncio.gather(process.takes("key:k", 1))
        stayer = asyncio.gather(process.takes("key:k", 1))
        await home.clock.settle()
        leaver.cancel()
        process.line.opened.set()
        assert await stayer == [True]
        with pytest.raises(asyncio.CancelledError):
            await leaver


async def test_a_request_that_leaves_as_it_is_served_gives_its_place_back() -> None:
    async with house() as (home, (process,)):
        process.line.opened.clear()
        task = asyncio.gather(process.takes("key:k", 1))
        await home.clock.settle()
        process.line.opened.set()
        while not process.purse.in_use("key:k"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()  # it was served in this turn of the loop, and has not run since
        with pytest.raises(asyncio.CancelledError):
            await task
        assert process.purse.in_use("key:k") == 0


async def test_a_lone_process_that_others_join_gives_up_what_is_idle() -> None:
    async with house() as (home, (process,)):
        for _ in range(4):
            assert await process.takes("key:k", 4)
        for _ in range(3):
            process.purse.give_back("key:k")
        other = await home.open()
        await home.clock.advance(1.0)
        assert [await other.takes("key:k", 4) for _ in range(4)] == [True, True, True, False]
