"""How long a list is kept, and what happens while none can be had."""

import asyncio
from collections.abc import Sequence

import pytest

from qwen_proxy.chat.models import Model
from qwen_proxy.gateway.catalogue import RETRY_AFTER_FAILURE_SECONDS, RETRY_FIRST_SECONDS, CatalogueSource
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.ground.errors import UpstreamUnavailable
from tests.support.clock import FakeClock

PLUS = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True, searches=True)
MAX = Model(id="qwen3.8-max", display_name="Qwen3.8-Max", thinks=True)


class Lists:
    """Answers fetches in order; an exception is raised."""

    def __init__(self, *answers: Sequence[Model] | Exception) -> None:
        self.answers = list(answers)
        self.fetched = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Sequence[Model]:
        self.fetched += 1
        await self.gate.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_list_is_fetched_once_for_all_who_wait_and_again_after_its_lifetime() -> None:
    clock, lists = FakeClock(), Lists([PLUS], [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    lists.gate.clear()
    waiting = [asyncio.ensure_future(source.get()) for _ in range(5)]  # noqa: TID251
    await asyncio.sleep(0)
    lists.gate.set()
    got = await asyncio.gather(*waiting)
    assert lists.fetched == 1
    assert all(catalogue is got[0] for catalogue in got)
    await clock.advance(59)
    assert (await source.get()).models == (PLUS,)
    await clock.advance(2)
    assert (await source.get()).models == (MAX,)
    assert lists.fetched == 2


async def test_a_stale_list_serves_while_another_fetches() -> None:
    clock, lists = FakeClock(), Lists([PLUS], [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    await source.get()
    await clock.advance(61)
    lists.gate.clear()
    fetching = asyncio.ensure_future(source.get())  # noqa: TID251
    await asyncio.sleep(0)
    assert (await source.get()).models == (PLUS,)
    lists.gate.set()
    assert (await fetching).models == (MAX,)


@pytest.mark.parametrize("failure", [UpstreamUnavailable("HTTP 503"), []])
async def test_a_failed_fetch_keeps_the_old_list_and_waits_a_little(failure: Sequence[Model] | Exception) -> None:
    clock, lists = FakeClock(), Lists([PLUS], failure, [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    await source.get()
    await clock.advance(61)
    assert (await source.get()).models == (PLUS,)
    assert (await source.get()).models == (PLUS,)
    assert lists.fetched == 2
    await clock.advance(RETRY_AFTER_FAILURE_SECONDS + 1)
    assert (await source.get()).models == (MAX,)


async def test_without_any_list_the_failure_is_told_and_the_next_fetch_waits_a_little() -> None:
    clock, lists = FakeClock(), Lists(UpstreamUnavailable("HTTP 503"), [PLUS])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    for _ in range(3):  # who asks without a key, or again and again, is not to hammer the upstream
        with pytest.raises(UpstreamUnavailable):
            await source.get()
    assert lists.fetched == 1
    await clock.advance(RETRY_FIRST_SECONDS)
    assert (await source.get()).models == (PLUS,)


async def test_all_who_wait_for_a_list_that_does_not_come_share_the_one_failure() -> None:
    clock, lists = FakeClock(), Lists(UpstreamUnavailable("HTTP 503"), [PLUS])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    lists.gate.clear()
    waiting = [asyncio.ensure_future(source.get()) for _ in range(5)]  # noqa: TID251
    await asyncio.sleep(0)
    lists.gate.set()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in told] == [UpstreamUnavailable] * 5
    assert lists.fetched == 1
    await clock.advance(RETRY_FIRST_SECONDS)
    assert (await source.get()).models == (PLUS,)


async def test_lifetime_zero_keeps_the_first_list_until_it_is_refreshed() -> None:
    clock = FakeClock()
    source = CatalogueSource(Lists([PLUS], [MAX]), clock=clock, ttl_seconds=0)
    await source.get()
    await clock.advance(1e6)
    assert (await source.get()).models == (PLUS,)
    assert (await source.refresh()).models == (MAX,)


async def test_what_is_there_is_told_without_a_fetch() -> None:
    clock, lists = FakeClock(), Lists(UpstreamUnavailable("HTTP 503"), [PLUS], [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=60)
    assert (source.current, source.is_due, source.was_tried) == (None, True, False)
    with pytest.raises(UpstreamUnavailable):
        await source.get()
    assert (source.current, source.is_due, source.was_tried) == (None, False, True)
    await clock.advance(RETRY_FIRST_SECONDS)
    assert source.is_due
    assert await source.get() is source.current
    assert not source.is_due
    await clock.advance(61)
    assert source.is_due and source.current is not None and source.current.models == (PLUS,)


def test_an_id_wins_over_a_readable_name_in_any_case() -> None:
    other = Model(id="other", display_name="QWEN3.7-plus")
    catalogue = Catalogue([other, PLUS])
    assert (catalogue.named("qwen3.7-plus"), catalogue.named("other"), catalogue.named("no")) == (PLUS, other, None)


async def test_a_shorter_lifetime_holds_for_the_list_that_is_there() -> None:
    clock, lists = FakeClock(), Lists([PLUS], [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=3600)
    await source.get()
    source.configure(ttl_seconds=10)
    await clock.advance(9)
    assert (await source.get()).models == (PLUS,)
    await clock.advance(2)
    assert (await source.get()).models == (MAX,)
