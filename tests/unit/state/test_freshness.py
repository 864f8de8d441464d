"""Being up to date for many at once costs the store little."""

import asyncio

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.freshness import SPACING_SECONDS, Freshness
from tests.support.clock import FakeClock


class Source:
    """What there is grows; a reading takes a while, and gives what there was when it began."""

    def __init__(self, clock: FakeClock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.there = 0
        self.known = 0
        self.readings = 0
        self.is_down = False

    async def catch_up(self) -> None:
        self.readings += 1
        there = self.there
        await self.clock.sleep(self.seconds)
        if self.is_down:
            raise StoreUnavailable("down")
        self.known = there


async def asking(source: Source, fresh: Freshness, seen: list[int]) -> None:
    await fresh.read()
    seen.append(source.known)


async def test_all_who_ask_at_a_time_share_one_reading() -> None:
    clock = FakeClock()
    source = Source(clock)
    fresh = Freshness(source.catch_up, clock)
    await asyncio.gather(*(fresh.read() for _ in range(50)))
    assert source.readings == 1


async def test_a_flood_of_questions_is_no_flood_of_readings_and_each_knows_what_was_there_before_it() -> None:
    clock = FakeClock()
    source = Source(clock)
    fresh = Freshness(source.catch_up, clock)
    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        for number in range(1, 101):
            source.there = number
            group.create_task(asking(source, fresh, seen))
            await clock.advance(0.01)
        await clock.advance(1.0)
    assert source.readings <= 1.0 / SPACING_SECONDS + 1
    assert all(known >= number for number, known in enumerate(seen, 1))


async def test_who_comes_while_a_reading_goes_on_waits_for_the_next() -> None:
    clock = FakeClock()
    source = Source(clock, seconds=0.2)
    fresh = Freshness(source.catch_up, clock)
    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(asking(source, fresh, seen))
        await clock.advance(0.1)
        source.there = 1
        group.create_task(asking(source, fresh, seen))
        group.create_task(asking(source, fresh, seen))
        await clock.advance(0.1)
        assert seen == [0]
        await clock.advance(0.2)
    assert seen == [0, 1, 1]
    assert source.readings == 2


async def test_one_who_leaves_in_the_middle_leaves_the_reading_to_the_next() -> None:
    clock = FakeClock()
    source = Source(clock, seconds=0.2)
    source.there = 1
    fresh = Freshness(source.catch_up, clock)
    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        leaver = group.create_task(fresh.read())
        group.create_task(asking(source, fresh, seen))
        await clock.advance(0.1)
        leaver.cancel()
        await clock.advance(0.3)
    assert seen == [1]


async def test_a_failure_is_told_to_all_who_waited_for_it_and_to_nobody_after() -> None:
    clock = FakeClock()
    source = Source(clock)
    source.is_down = True
    fresh = Freshness(source.catch_up, clock)
    told = await asyncio.gather(*(fresh.read() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in told] == [StoreUnavailable] * 3
    assert source.readings == 1
    asked = asyncio.gather(fresh.read(), return_exceptions=True)
    await clock.advance(SPACING_SECONDS)
    assert [type(each) for each in await asked] == [StoreUnavailable]
    source.is_down = False
    asked = asyncio.gather(fresh.read(), return_exceptions=True)
    await clock.advance(SPACING_SECONDS)
    assert await asked == [None]
