"""What a client's spelling of a model means, and how long a list is kept."""

import asyncio
from collections.abc import Sequence

import pytest

from qwen_proxy.chat.models import PLAIN, Mode, Model, Variant
from qwen_proxy.gateway.catalogue import RETRY_AFTER_FAILURE_SECONDS, RETRY_FIRST_SECONDS, Catalogue, CatalogueSource
from qwen_proxy.ground.errors import ModelNotFound, UpstreamUnavailable
from tests.support.clock import FakeClock

PLUS = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True, searches=True)
MAX = Model(id="qwen3.8-max", display_name="Qwen3.8-Max", thinks=True)
IMAGE = Model(id="qwen-image", display_name="Qwen-Image")
MODELS = (PLUS, MAX, IMAGE)


@pytest.mark.parametrize(
    ("asked", "base", "variant"),
    [
        ("qwen3.7-plus", "qwen3.7-plus", PLAIN),
        ("QWEN3.7-PLUS", "qwen3.7-plus", PLAIN),
        ("Qwen3.7-Plus", "qwen3.7-plus", PLAIN),
        (" Qwen3.7-Plus ", "qwen3.7-plus", PLAIN),
        ("Qwen3.7-Plus-Thinking", "qwen3.7-plus", Variant(thinking=True)),
        ("qwen3.7-plus-search", "qwen3.7-plus", Variant(search=True)),
        ("qwen3.7-plus-thinking-search", "qwen3.7-plus", Variant(thinking=True, search=True)),
        ("qwen3.7-plus-image", "qwen3.7-plus", Variant(mode=Mode.IMAGE)),
        ("qwen-image", "qwen-image", PLAIN),
        ("qwen-image-image", "qwen-image", Variant(mode=Mode.IMAGE)),
        ("", "qwen3.7-plus", PLAIN),
        ("gpt-5.2", "qwen3.8-max", Variant(thinking=True)),
        ("claude-haiku", "qwen3.7-plus", PLAIN),
    ],
)
def test_a_spelling_is_resolved(asked: str, base: str, variant: Variant) -> None:
    catalogue = Catalogue(MODELS, [("GPT-*", "qwen3.8-max-thinking"), ("claude-*", "Qwen3.7-Plus")])
    for _ in range(2):  # the second answer comes from what was kept
        resolved = catalogue.resolve(asked)
        assert (resolved.name.base, resolved.name.variant, resolved.model.id) == (base, variant, base)


def test_a_real_name_wins_over_an_alias() -> None:
    assert Catalogue(MODELS, [("*", "qwen3.8-max")]).resolve("qwen3.7-plus").model is PLUS


@pytest.mark.parametrize("asked", ["qwen3.7-plu", "nothing-like-it", "gpt-4", "qwen9-thinking"])
def test_an_unknown_name_is_refused_with_near_ones(asked: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Catalogue(MODELS, [("gpt-*", "gone")]).resolve(asked)
    assert ("Qwen3.7-Plus" in caught.value.near) == (asked == "qwen3.7-plu")


def test_no_name_without_models_is_refused() -> None:
    with pytest.raises(ModelNotFound):
        Catalogue(()).resolve("")


def test_what_is_kept_of_spellings_is_bounded() -> None:
    catalogue = Catalogue(MODELS, [("x*", "qwen3.8-max")])
    for number in range(5000):
        assert catalogue.resolve(f"x{number}").model is MAX


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


async def test_other_aliases_hold_at_once_without_another_fetch() -> None:
    clock, lists = FakeClock(), Lists([PLUS, MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=0, aliases=[("gpt-*", PLUS.id)])
    source.configure(ttl_seconds=0, aliases=[("gpt-*", MAX.id)])
    assert (await source.get()).resolve("gpt-5").model is MAX
    first = await source.get()
    source.configure(ttl_seconds=0, aliases=[("gpt-*", MAX.id)])
    assert await source.get() is first
    source.configure(ttl_seconds=0, aliases=[("gpt-*", PLUS.id)])
    assert (await source.get()).resolve("gpt-5").model is PLUS
    assert lists.fetched == 1


async def test_a_shorter_lifetime_holds_for_the_list_that_is_there() -> None:
    clock, lists = FakeClock(), Lists([PLUS], [MAX])
    source = CatalogueSource(lists, clock=clock, ttl_seconds=3600)
    await source.get()
    source.configure(ttl_seconds=10, aliases=())
    await clock.advance(9)
    assert (await source.get()).models == (PLUS,)
    await clock.advance(2)
    assert (await source.get()).models == (MAX,)
