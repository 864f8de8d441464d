"""The lists of several backends: what is waited for, and what is fetched behind the back of requests."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from qwen_proxy.chat.models import Model
from qwen_proxy.config.routes import read_rules
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.catalogue import RETRY_FIRST_SECONDS, CatalogueSource
from qwen_proxy.gateway.router import MOST_DIRECTORIES, MOST_UNMAPPED, Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.ground.errors import ModelNotFound, ProxyError, UpstreamUnavailable
from tests.support.clock import FakeClock
from tests.support.scripted import Desk, ScriptedUpstream


class Shelf:
    """A backend's list, which may be held back or fail."""

    def __init__(self, clock: FakeClock, name: str, *ids: str, kind: BackendKind = BackendKind.API) -> None:
        self.models = [Model(id=id, display_name=id) for id in ids]
        self.failure: ProxyError | None = None
        self.fetched = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.backend = Backend(
            name=name,
            kind=kind,
            upstream=ScriptedUpstream(),
            leasing=Desk("a"),
            catalogue=CatalogueSource(self.fetch, clock=clock, ttl_seconds=60),
        )

    async def fetch(self) -> Sequence[Model]:
        self.fetched += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.models


def web(clock: FakeClock, *ids: str) -> Shelf:
    return Shelf(clock, "web", *ids, kind=BackendKind.WEB)


def router(*shelves: Shelf, naming: Naming | None = None) -> Router:
    return Router(lambda: tuple(shelf.backend for shelf in shelves), naming or Naming())


async def led(names: Router, asked: str) -> list[str]:
    route = await names.route(asked, names.backends())
    return [target.backend for target in route.targets]


async def test_one_backend_alone_is_asked_as_its_list_grows_old() -> None:
    clock = FakeClock()
    site = web(clock, "a")
    async with router(site) as names:
        assert await led(names, "a") == ["web"]
        site.models = [Model(id="b", display_name="b")]
        await clock.advance(61)
        assert await led(names, "b") == ["web"]
        with pytest.raises(ModelNotFound):
            await led(names, "a")


async def test_a_route_is_settled_once_it_was_found_until_a_list_is_due_or_new() -> None:
    clock = FakeClock()
    site = web(clock, "a")
    async with router(site) as names:
        mine = names.backends()
        assert names.settled("a", mine) is None
        route = await names.route("a", mine)
        assert names.settled("a", mine) is route
        assert names.settled("b", mine) is None
        await clock.advance(61)
        assert names.settled("a", mine) is None
        site.models = [Model(id="b", display_name="b")]
        with pytest.raises(ModelNotFound):
            await names.route("a", mine)
        assert names.settled("a", mine) is None
        names.naming = Naming()
        assert names.settled("b", mine) is None


async def test_lists_that_were_never_tried_are_waited_for() -> None:
    clock = FakeClock()
    site, studio = web(clock, "a"), Shelf(clock, "studio", "a", "b")
    async with router(site, studio) as names:
        studio.gate.clear()
        asking = asyncio.ensure_future(led(names, "b"))  # noqa: TID251
        await clock.settle()
        assert not asking.done()
        assert await led(names, "a") == ["web"]  # which is known already
        studio.gate.set()
        assert await asking == ["studio"]
        assert await led(names, "a") == ["web", "studio"]


async def test_a_backend_whose_list_can_not_be_had_takes_nobody_down() -> None:
    clock = FakeClock()
    site, studio = web(clock, "a"), Shelf(clock, "studio", "b")
    site.failure = UpstreamUnavailable("HTTP 503")
    async with router(site, studio) as names:
        assert await led(names, "b") == ["studio"]
        with pytest.raises(ModelNotFound):
            await led(names, "a")
        site.gate.clear()  # the next fetch hangs
        await clock.advance(RETRY_FIRST_SECONDS)
        assert await led(names, "b") == ["studio"]
        assert [entry.id for entry in (await names.directory(names.backends())).entries()] == ["b"]
        await clock.settle()
        assert site.fetched == 2
        site.failure = None
        site.gate.set()
        await clock.settle()
        assert await led(names, "a") == ["web"]


async def test_an_old_list_serves_while_a_new_one_is_fetched() -> None:
    clock = FakeClock()
    site, studio = web(clock, "a"), Shelf(clock, "studio", "b")
    async with router(site, studio) as names:
        await names.directory(names.backends())
        await clock.advance(61)
        site.gate.clear()
        site.models = [Model(id="c", display_name="c")]
        assert await led(names, "a") == ["web"]
        await clock.settle()
        assert await led(names, "a") == ["web"]
        assert site.fetched == 2
        site.gate.set()
        await clock.settle()
        assert await led(names, "c") == ["web"]


async def test_without_any_list_the_first_backends_failure_is_told() -> None:
    clock = FakeClock()
    site, studio = web(clock, "a"), Shelf(clock, "studio", "b")
    site.failure, studio.failure = UpstreamUnavailable("HTTP 503"), UpstreamUnavailable("refused")
    async with router(site, studio) as names:
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable, match="HTTP 503"):
                await led(names, "a")
        assert (site.fetched, studio.fetched) == (1, 1)
        studio.failure = None
        await clock.advance(RETRY_FIRST_SECONDS)
        assert await led(names, "b") == ["studio"]


async def test_the_order_is_the_operators() -> None:
    clock = FakeClock()
    shelves = Shelf(clock, "x", "m"), Shelf(clock, "y", "m", kind=BackendKind.LOCAL), web(clock, "m")
    for order, expected in (
        (("web",), ["web", "x", "y"]),
        (("local", "x"), ["y", "x", "web"]),
        ((), ["x", "y", "web"]),
    ):
        async with router(*shelves, naming=Naming(order=order)) as names:
            assert [backend.name for backend in names.backends()] == expected
            await names.directory(names.backends())
            assert await led(names, "m") == expected
    assert names.find("y") is shelves[1].backend and names.find("z") is None
    assert names.follows_sessions


async def test_another_naming_holds_at_once() -> None:
    clock = FakeClock()
    site = web(clock, "a", "b")
    async with router(site) as names:
        assert not (await names.directory(names.backends())).has("fast")
        names.naming = Naming(rules=read_rules("fast=web:b"))
        directory = await names.directory(names.backends())
        assert directory.has("fast") and await names.directory(names.backends()) is directory
        assert site.fetched == 1


async def test_names_without_a_meaning_are_counted_up_to_a_bound() -> None:
    site = web(FakeClock(), "a")
    async with router(site) as names:
        for asked in ("gpt-5", "gpt-5", "a", "unknown", "x" * 300):
            with suppress(ModelNotFound):
                await led(names, asked)
        assert names.unmapped == {"gpt-5": 2, "unknown": 1, "x" * 100: 1}
        for number in range(MOST_UNMAPPED + 50):
            await led(names, f"gpt-{number}")
        assert len(names.unmapped) == MOST_UNMAPPED


async def test_what_is_kept_of_choices_of_backends_is_bounded() -> None:
    clock = FakeClock()
    shelves = [Shelf(clock, f"b{number}", "m") for number in range(12)]
    async with router(*shelves) as names:
        everything = names.backends()
        await names.directory(everything)
        for chosen in range(1, MOST_DIRECTORIES * 2):
            some = [backend for place, backend in enumerate(everything) if chosen >> place & 1]
            assert len((await names.route("m", some)).targets) == len(some)
