"""Where a request would go, told without sending it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from qwen_proxy.chat.models import Model
from qwen_proxy.config.keys import ClientKey, KeyLimits
from qwen_proxy.config.routes import read_rules
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.backend import Backend, BackendKind, nothing_known
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.explain import Explained, State, explain
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Found, Naming
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground import errors
from tests.support.clock import FakeClock
from tests.support.keys import client_key
from tests.support.scripted import Desk, ScriptedUpstream
from tests.unit.state.house import house as installation

BUSY = errors.AccountsBusy("both are busy")


def backend(
    clock: FakeClock, name: str, kind: BackendKind, shortage: Callable[[], errors.NoAccountUsable | None]
) -> Backend:
    async def fetch() -> list[Model]:
        return [Model(id=id, display_name=id) for id in ("plus", f"{name}-own")]

    source = CatalogueSource(fetch, clock=clock, ttl_seconds=0)
    return Backend(
        name=name, kind=kind, upstream=ScriptedUpstream(), leasing=Desk(), catalogue=source, shortage=shortage
    )


class House:
    """A site and an API, each with what keeps it from answering."""

    def __init__(self, clock: FakeClock, admission: Admission) -> None:
        self.clock = clock
        self.admission = admission
        self.web: errors.NoAccountUsable | None = None
        self.studio: errors.NoAccountUsable | None = None
        self.backends = [
            backend(clock, "web", BackendKind.WEB, lambda: self.web),
            backend(clock, "studio", BackendKind.API, lambda: self.studio),
        ]
        rules = read_rules("any=web:plus*1,studio:plus*9;lost=web:gone,none:m")
        self.router = Router(lambda: tuple(self.backends), Naming(rules=rules))

    async def tell(self, asked: str = "plus", caller: ClientKey | None = None) -> Explained:
        return await explain(self.router, self.admission, asked, caller, self.clock.now())


@asynccontextmanager
async def house() -> AsyncGenerator[House]:
    async with installation() as (home, (process,)):
        none = LimitDefaults(requests_per_minute=0, concurrent_requests=0)
        admission = Admission(process.allowances, process.purse, home.clock, none)
        here = House(home.clock, admission)
        async with here.router:
            yield here


def states(told: Explained) -> list[tuple[str, State]]:
    return [(each.backend, each.standing.state) for each in told.targets]


async def test_where_all_is_well_the_first_is_told() -> None:
    async with house() as here:
        told = await here.tell("Plus")
        assert (told.name, told.found, told.via, told.goes_to, told.refusal) == ("plus", Found.MODEL, "", "web", "")
        assert states(told) == [("web", State.OK), ("studio", State.OK)]
        assert (await here.tell("claude-opus")).via == "plus"


@pytest.mark.parametrize(
    ("shortage", "state", "rest"),
    [
        (errors.AccountsOutOfQuota("parked", 60), State.PARKED, 60),
        (errors.AccountsChallenged("challenged", 30), State.CHALLENGED, 30),
        (BUSY, State.FULL, None),
        (errors.NoAccountUsable("none is configured"), State.UNUSABLE, None),
    ],
    ids=lambda value: str(value),
)
async def test_a_backend_that_can_not_now_is_told_with_its_reason(
    shortage: errors.NoAccountUsable, state: State, rest: float | None
) -> None:
    async with house() as here:
        here.web = shortage
        told = await here.tell()
        assert told.goes_to == "studio"
        standing = told.targets[0].standing
        assert (standing.state, standing.reason) == (state, str(shortage))
        assert standing.until == (None if rest is None else here.clock.now() + rest)


async def test_where_none_can_the_first_reason_is_the_refusal_and_a_full_one_is_waited_for() -> None:
    async with house() as here:
        here.web = here.studio = errors.AccountsOutOfQuota("all are parked", 60)
        told = await here.tell()
        assert (told.goes_to, told.refusal) == (None, "all are parked")
        here.studio = BUSY
        assert (await here.tell()).goes_to == "studio"


async def test_with_weights_the_likeliest_is_told() -> None:
    async with house() as here:
        told = await here.tell("any")
        assert [each.weight for each in told.targets] == [1, 9]
        assert told.goes_to == "studio"


async def test_a_backend_that_does_not_say_counts_as_well() -> None:
    async with house() as here:
        here.backends[0] = structs.replace(here.backends[0], shortage=nothing_known)
        assert (await here.tell()).goes_to == "web"


async def test_what_a_route_misses_is_told() -> None:
    async with house() as here:
        told = await here.tell("lost")
        assert [(each.model, each.standing.reason) for each in told.targets] == [
            ("gone", "it has no such model"),
            ("m", "there is no such backend"),
        ]
        assert told.goes_to is None and "nothing that 'lost' leads to" in told.refusal
        with pytest.raises(errors.ModelNotFound):
            await here.tell("nothing")


async def test_a_backend_that_was_taken_away_meanwhile_is_missing() -> None:
    class Losing(Router):
        def find(self, name: str) -> Backend | None:
            return None if name == "web" else super().find(name)

    async with house() as here, Losing(lambda: tuple(here.backends), Naming()) as router:
        told = await explain(router, here.admission, "plus", None, here.clock.now())
        assert (states(told)[0], told.goes_to) == (("web", State.MISSING), "studio")


async def test_what_a_key_may_not_is_told() -> None:
    async with house() as here:
        told = await here.tell(caller=client_key("k", backends=("api",)))
        assert states(told) == [("studio", State.OK), ("web", State.NOT_ALLOWED)]
        assert told.goes_to == "studio"
        told = await here.tell(caller=client_key("k", backends=("local",)))
        assert told.goes_to is None and "may not use the backend" in told.refusal
        told = await here.tell(caller=client_key("k", models=("studio/*",)))
        assert states(told) == [("studio", State.OK), ("web", State.NOT_ALLOWED)]
        told = await here.tell(caller=client_key("k", models=("other",)))
        assert {state for _, state in states(told)} == {State.NOT_ALLOWED}
        assert told.goes_to is None


async def test_a_used_up_budget_is_told_with_its_end() -> None:
    async with house() as here:
        limits = KeyLimits(api_tokens_per_day=100)
        assert (await here.tell("studio-own", caller=client_key("k", limits=limits))).goes_to == "studio"
        async with here.admission.admit(client_key("k", limits=limits), lambda: Size(100, 0)) as permit:
            assert permit.api is not None
            await permit.api.reserve()
            told = await here.tell("studio-own", caller=client_key("k", limits=limits))
            assert told.goes_to is None and "API tokens of the day are used up until" in told.refusal
            standing = told.targets[0].standing
            assert standing.until is not None and standing.until % 86400 == 0
            assert states(await here.tell(caller=client_key("k", limits=limits)))[0] == ("web", State.OK)
