"""One request, several backends: where it goes on, and where it does not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from qwen_proxy.accounts.model import OutcomeKind
from qwen_proxy.chat.events import Batch, Finish, FinishReason, ReplyStart, TextDelta, Usage
from qwen_proxy.chat.models import Model, ModelName
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.config.keys import ClientKey, KeyLimits
from qwen_proxy.config.routes import read_rules
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.permission import EVERYWHERE, Scope
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.gateway.run import GatewayOptions
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.ground import errors
from qwen_proxy.runtime.ids import SystemIds
from tests.support.clock import FakeClock
from tests.support.counting import WordCounter
from tests.support.keys import client_key
from tests.support.scripted import Desk, Script, ScriptedUpstream
from tests.unit.state.house import house as installation

USAGE = Usage(prompt_tokens=7, completion_tokens=2)
STOP = Finish(FinishReason.STOP)
DOWN = errors.UpstreamUnavailable("HTTP 503")


def good(text: str) -> Script:
    return [[ReplyStart("r")], [TextDelta(text)], [USAGE, STOP]]


class SilentUpstream(ScriptedUpstream):
    """Takes the question and never says a word."""

    async def _play(self, script: Script) -> AsyncGenerator[Batch]:
        await asyncio.get_running_loop().create_future()
        yield []


class House:
    """A gateway over scripted backends, each with the model `plus` and one of its own name."""

    def __init__(self, *backends: tuple[str, ScriptedUpstream, Desk], routes: str = "", tries: int = 2) -> None:
        self.clock = FakeClock()
        self.backends: list[Backend] = []
        for name, upstream, desk in backends:
            upstream.model_list = [Model(id=id, display_name=id) for id in ("plus", f"{name}-own")]
            self.backends.append(self._backend(name, upstream, desk))
        self.options = GatewayOptions(retry_count=tries - 1, retry_backoff_seconds=0, delivery=Delivery())
        self.router = Router(lambda: tuple(self.backends), Naming(rules=read_rules(routes)))
        self.gateway = ChatGateway(
            self.router, clock=self.clock, ids=SystemIds(), tokens=WordCounter(), options=self.options
        )
        self.trace = Trace("req_1")

    def _backend(self, name: str, upstream: ScriptedUpstream, desk: Desk) -> Backend:
        async def fetch() -> list[Model]:
            return upstream.model_list

        kind = {"web": BackendKind.WEB, "local": BackendKind.LOCAL}.get(name, BackendKind.API)
        catalogue = CatalogueSource(fetch, clock=self.clock, ttl_seconds=0)
        return Backend(name=name, kind=kind, upstream=upstream, leasing=desk, catalogue=catalogue)

    async def ask(
        self,
        model: str = "plus",
        session: str = "",
        caller: ClientKey | None = None,
        scope: Scope = EVERYWHERE,
        budget: ApiBudget | None = None,
    ) -> str:
        """The text of the whole reply."""
        request = ChatRequest(model=ModelName(model), messages=(Message(Role.USER, (TextPart("hi"),)),))
        request, route = await self.gateway.resolve(request, caller, scope)
        batches: list[Batch] = []
        async with self.gateway.open(request, route, self.trace, session=session, budget=budget) as reply:
            async for batch in reply:
                batches.append(batch)
        return "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))


async def test_the_first_backend_answers_and_the_trace_says_so() -> None:
    web, studio = ScriptedUpstream(good("web")), ScriptedUpstream(good("studio"))
    house = House(("web", web, Desk("a@x")), ("studio", studio, Desk("k1")))
    assert await house.ask() == "web"
    assert (house.trace.backend, house.trace.model, house.trace.account_id) == ("web", "plus", "a")
    assert studio.requests == []


@pytest.mark.parametrize(
    "shortage",
    [
        errors.AccountsChallenged("challenged", 60),
        errors.AccountsOutOfQuota("parked", 60),
        errors.NoAccountUsable("no account is configured"),
    ],
    ids=lambda shortage: type(shortage).__name__,
)
async def test_a_backend_without_an_account_is_left_without_counting_as_a_try(shortage: errors.ProxyError) -> None:
    studio, desk = ScriptedUpstream(good("studio")), Desk("k1")
    house = House(("web", ScriptedUpstream(), Desk("a", shortage=shortage)), ("studio", studio, desk), tries=1)
    assert await house.ask() == "studio"
    assert house.trace.account_id == "studio/k1"
    assert house.trace.failures == [type(shortage).__name__]
    assert desk.outcomes == [("k1", OutcomeKind.SUCCEEDED)]


async def test_it_goes_the_other_way_too() -> None:
    web, studio = ScriptedUpstream(good("web")), ScriptedUpstream([DOWN])
    house = House(("web", web, Desk("a")), ("studio", studio, Desk("k1")), routes="plus=studio:plus,web:plus")
    assert await house.ask() == "web"
    assert house.trace.failures == ["UpstreamUnavailable"]


@pytest.mark.parametrize(
    "failure",
    [DOWN, errors.UpstreamChallenged("json"), errors.ReplyEmpty("nothing")],
    ids=lambda failure: type(failure).__name__,
)
async def test_the_last_try_goes_elsewhere(failure: errors.ProxyError) -> None:
    web, desk = ScriptedUpstream([failure]), Desk("a", "b")
    studio = ScriptedUpstream(good("studio"))
    house = House(("web", web, desk), ("studio", studio, Desk("k1")))
    assert await house.ask() == "studio"
    assert web.accounts == ["a"] and house.trace.tries == 2
    assert desk.held == 0 and [account for account, _ in desk.outcomes] == ["a"]


async def test_for_a_quota_other_accounts_come_first_and_another_backend_gets_a_try_beyond_the_budget() -> None:
    web = ScriptedUpstream([errors.QuotaExhausted(60)])
    house = House(("web", web, Desk("a", "b", "c")), ("studio", ScriptedUpstream(good("studio")), Desk("k1")), tries=2)
    assert await house.ask() == "studio"
    assert web.accounts == ["a", "b"] and house.trace.tries == 3


async def test_with_more_tries_another_account_comes_before_another_backend() -> None:
    web = ScriptedUpstream([errors.ReplyEmpty("nothing")])
    house = House(("web", web, Desk("a", "b")), ("studio", ScriptedUpstream(good("studio")), Desk("k1")), tries=3)
    assert await house.ask() == "studio"
    assert web.accounts == ["a", "b"]


async def test_a_rejected_token_is_renewed_before_the_backend_is_left() -> None:
    web, desk = ScriptedUpstream([errors.CredentialRejected()], good("web")), Desk("a")
    house = House(("web", web, desk), ("studio", ScriptedUpstream(good("studio")), Desk("k1")))
    assert await house.ask() == "web"
    assert desk.renewed == ["a"]


async def test_the_budget_of_tries_is_one_for_all_backends() -> None:
    upstreams = [ScriptedUpstream([DOWN]) for _ in range(3)]
    house = House(*((name, each, Desk(name)) for name, each in zip(("web", "x", "y"), upstreams, strict=True)))
    with pytest.raises(errors.UpstreamUnavailable):
        await house.ask()
    assert [len(each.requests) for each in upstreams] == [1, 1, 0]


async def test_with_one_try_a_backend_that_was_asked_is_the_only_one() -> None:
    studio = ScriptedUpstream(good("studio"))
    house = House(("web", ScriptedUpstream([DOWN]), Desk("a")), ("studio", studio, Desk("k1")), tries=1)
    with pytest.raises(errors.UpstreamUnavailable):
        await house.ask()
    assert studio.requests == []


@pytest.mark.parametrize(
    "script",
    [
        [errors.ContentRefused("data_inspection_failed")],
        [[ReplyStart("r")], [TextDelta("x")], DOWN],
    ],
)
async def test_the_clients_fault_and_content_that_was_sent_go_nowhere_else(script: Script) -> None:
    studio = ScriptedUpstream(good("studio"))
    house = House(("web", ScriptedUpstream(script), Desk("a")), ("studio", studio, Desk("k1")), tries=5)
    with pytest.raises(errors.ProxyError):
        await house.ask()
    assert studio.requests == []


async def test_a_busy_backend_is_waited_for_shortly_then_again_behind_the_others() -> None:
    busy = errors.AccountsBusy("busy")
    web, web_desk = ScriptedUpstream(good("web")), Desk("a", shortage=busy, shortages=1)
    studio_desk = Desk("k1", shortage=errors.AccountsOutOfQuota("parked"))
    house = House(("web", web, web_desk), ("studio", ScriptedUpstream(), studio_desk))
    now = house.clock.monotonic()
    assert await house.ask() == "web"
    assert [deadline - now for deadline in web_desk.deadlines] == [2.0, 60.0]
    assert [deadline - now for deadline in studio_desk.deadlines] == [2.0]
    assert house.trace.failures == ["AccountsBusy", "AccountsOutOfQuota"]


async def test_what_a_backend_does_not_take_goes_to_one_that_does() -> None:
    refusal = errors.PromptTooLong(9, 8)
    studio = ScriptedUpstream(good("studio"))
    house = House(("web", ScriptedUpstream(refusal=refusal), Desk("a")), ("studio", studio, Desk("k1")))
    assert await house.ask() == "studio"
    house = House(
        ("web", ScriptedUpstream(refusal=refusal), Desk("a")), ("studio", ScriptedUpstream(refusal=DOWN), Desk("k1"))
    )
    with pytest.raises(errors.PromptTooLong):
        await house.ask()


async def test_where_the_next_backend_does_not_take_it_the_first_failure_is_told() -> None:
    studio = ScriptedUpstream(refusal=errors.PromptTooLong(9, 8))
    house = House(("web", ScriptedUpstream([DOWN]), Desk("a")), ("studio", studio, Desk("k1")))
    with pytest.raises(errors.UpstreamUnavailable):
        await house.ask()
    assert studio.requests == []


async def test_a_backend_that_was_taken_away_meanwhile_is_left() -> None:
    house = House(
        ("web", ScriptedUpstream(good("web")), Desk("a")), ("studio", ScriptedUpstream(good("studio")), Desk("k1"))
    )
    request = ChatRequest(model=ModelName("plus"), messages=(Message(Role.USER, (TextPart("hi"),)),))
    request, route = await house.gateway.resolve(request)
    del house.backends[0]
    async with house.gateway.open(request, route, house.trace) as reply:
        assert [TextDelta("studio")] in [
            [event for event in batch if isinstance(event, TextDelta)] async for batch in reply
        ]
    del house.backends[0]
    house.trace = Trace("req_2")
    with pytest.raises(errors.NoAccountUsable, match="not here any more"):
        async with house.gateway.open(request, route, house.trace) as reply:
            await anext(reply)


async def test_a_client_that_leaves_leaves_nothing_open() -> None:
    silent, desk = SilentUpstream([]), Desk("k1")
    house = House(("web", ScriptedUpstream([DOWN]), Desk("a")), ("studio", silent, desk))
    asking = asyncio.ensure_future(house.ask())  # noqa: TID251
    await house.clock.settle()
    assert (silent.open_now, desk.held) == (1, 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (silent.open_now, desk.held) == (0, 0)
    assert desk.outcomes == [("k1", OutcomeKind.CANCELLED)]


async def test_weights_draw_anew_for_each_request_and_keep_a_conversation() -> None:
    web, studio = ScriptedUpstream(good("web")), ScriptedUpstream(good("studio"))
    house = House(("web", web, Desk("a")), ("studio", studio, Desk("k1")), routes="any=web:plus*1,studio:plus*1")
    assert {await house.ask("any") for _ in range(40)} == {"web", "studio"}
    for session in ("s1", "s2", "s3"):
        assert len({await house.ask("any", session) for _ in range(5)}) == 1


# --- what paid backends cost


@asynccontextmanager
async def a_budget(limit: int) -> AsyncGenerator[ApiBudget]:
    """Of a request whose prompt is 100 tokens and whose reply is at most 50."""
    async with installation() as (home, (process,)):
        none = LimitDefaults(requests_per_minute=0, concurrent_requests=0)
        admission = Admission(process.allowances, process.purse, home.clock, none)
        caller = client_key(limits=KeyLimits(api_tokens_per_day=limit))
        async with admission.admit(caller, lambda: Size(100, 50)) as permit:
            assert permit.api is not None
            yield permit.api


async def test_what_a_paid_backend_answers_counts_and_what_the_site_answers_does_not() -> None:
    async with a_budget(1000) as budget:
        house = House(
            ("web", ScriptedUpstream(good("web")), Desk("a")), ("studio", ScriptedUpstream(good("studio")), Desk("k1"))
        )
        assert await house.ask("plus", budget=budget) == "web"
        assert budget.standing().remaining == 1000
        assert await house.ask("studio/plus", budget=budget) == "studio"
        assert budget.standing().remaining == 1000 - 9


@pytest.mark.parametrize(
    ("script", "cost"), [([DOWN], 0), ([[ReplyStart("r")], [TextDelta("x" * 30)], DOWN], 110)], ids=["silent", "cut"]
)
async def test_a_try_that_fails_costs_what_had_come(script: Script, cost: int) -> None:
    async with a_budget(1000) as budget:
        house = House(("studio", ScriptedUpstream(script), Desk("k1")), tries=1)
        with pytest.raises(errors.UpstreamUnavailable):
            await house.ask(budget=budget)
        assert budget.standing().remaining == 1000 - cost


async def test_without_a_key_of_the_backend_nothing_is_spent() -> None:
    async with a_budget(1000) as budget:
        house = House(("studio", ScriptedUpstream(), Desk("k1", shortage=errors.AccountsOutOfQuota("parked"))))
        with pytest.raises(errors.AccountsOutOfQuota):
            await house.ask(budget=budget)
        assert budget.standing().remaining == 1000


async def test_who_leaves_has_used_the_prompt() -> None:
    async with a_budget(1000) as budget:
        silent = SilentUpstream([])
        house = House(("studio", silent, Desk("k1")))
        asking = asyncio.ensure_future(house.ask(budget=budget))  # noqa: TID251
        await house.clock.settle()
        assert budget.standing().remaining == 850
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert budget.standing().remaining == 900


async def test_a_used_up_budget_skips_paid_backends_and_is_told_only_where_nothing_else_is_left() -> None:
    async with a_budget(149) as budget:
        await budget.reserve()
        studio, local = ScriptedUpstream(good("studio")), ScriptedUpstream(good("local"))
        house = House(
            ("web", ScriptedUpstream([DOWN]), Desk("a")), ("studio", studio, Desk("k1")), ("local", local, Desk("l"))
        )
        assert await house.ask("plus", budget=budget) == "local"
        assert house.trace.failures == ["UpstreamUnavailable", "KeyLimitReached"]
        with pytest.raises(errors.KeyLimitReached, match="API tokens per day"):
            await house.ask("studio-own", budget=budget)
        del house.backends[2]
        with pytest.raises(errors.UpstreamUnavailable):
            await house.ask("plus", budget=budget)
        assert studio.requests == []


# --- who may


async def test_a_key_goes_only_where_it_may() -> None:
    web, studio = ScriptedUpstream(good("web")), ScriptedUpstream(good("studio"))
    house = House(("web", web, Desk("a")), ("studio", studio, Desk("k1")))
    assert await house.ask(caller=client_key("k", backends=("api",))) == "studio"
    assert await house.ask("", caller=client_key("k", backends=("studio",))) == "studio"
    with pytest.raises(errors.NotAllowed, match="may not use the backend 'web'; it may use: local") as caught:
        await house.ask(caller=client_key("k", backends=("local",)))
    assert caught.value.kind == "backend"
    with pytest.raises(errors.NotAllowed, match="may not use the backend 'studio'; it may use: web"):
        await house.ask("studio-own", caller=client_key("k", backends=("web",)))
    with pytest.raises(errors.ModelNotFound):
        await house.ask("nothing", caller=client_key("k", backends=("web",)))


async def test_a_route_is_only_for_keys_that_may_use_one_of_its_backends() -> None:
    house = House(
        ("web", ScriptedUpstream(good("web")), Desk("a")),
        ("studio", ScriptedUpstream(good("studio")), Desk("k1")),
        routes="mine=studio:studio-own;no=web:gone",
    )
    assert await house.ask("mine", caller=client_key("k")) == "studio"
    with pytest.raises(errors.NotAllowed, match="backend 'studio'"):
        await house.ask("mine", caller=client_key("k", backends=("web",)))
    with pytest.raises(errors.NoAccountUsable, match=r"'no' leads to is there now: web:gone \(it has no such model\)"):
        await house.ask("no", caller=client_key("k", backends=("web",)))


async def test_a_keys_models_are_those_of_each_target_or_the_routes_name() -> None:
    house = House(
        ("web", ScriptedUpstream([DOWN]), Desk("a")),
        ("studio", ScriptedUpstream(good("studio")), Desk("k1")),
        routes="fast=web:web-own,studio:studio-own",
    )
    assert await house.ask("fast", caller=client_key("k", models=("studio-*",))) == "studio"
    assert house.trace.failures == []
    assert await house.ask("fast", caller=client_key("k", models=("fast",))) == "studio"
    assert house.trace.failures == ["UpstreamUnavailable"]
    with pytest.raises(errors.NotAllowed, match="may not use the model 'web-own'; it may use: other"):
        await house.ask("fast", caller=client_key("k", models=("other",)))


async def test_a_scope_serves_its_backends_alone_under_its_own_names() -> None:
    scope = Scope(
        kinds=frozenset((BackendKind.API,)), names=(("old", "studio-own"), ("gone", "nothing")), missing="set one up"
    )
    house = House(
        ("web", ScriptedUpstream(good("web")), Desk("a")), ("studio", ScriptedUpstream(good("studio")), Desk("k1"))
    )
    for asked in ("", "plus", "OLD"):
        assert await house.ask(asked, scope=scope) == "studio"
    for asked in ("gone", "web-own"):
        with pytest.raises(errors.ModelNotFound):
            await house.ask(asked, scope=scope)
    with pytest.raises(errors.NotAllowed, match="backend 'studio'"):
        await house.ask(scope=scope, caller=client_key("k", backends=("web",)))
    del house.backends[1]
    with pytest.raises(errors.NoAccountUsable, match="set one up"):
        await house.ask(scope=scope)
