"""What every upstream must do: replies in legal order, failures in our words, and nothing left open whoever leaves."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import pytest

from qwen_proxy.chat.events import Batch, Finish, ReplyStart, has_content
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.ground.errors import ProxyError, UpstreamTimeout
from qwen_proxy.runtime.clock import SystemClock
from tests.conformance.upstreams import UPSTREAMS, Played, asked
from tests.support.freed import until

Factory = Callable[[], AbstractAsyncContextManager[Played]]
each_upstream = pytest.mark.parametrize("factory", UPSTREAMS.values(), ids=UPSTREAMS)


async def reply(played: Played, text: str, seconds: float = 10) -> Batch:
    models = await played.upstream.models(played.credential, SystemClock().monotonic() + 5)
    deadline = SystemClock().monotonic() + seconds
    events: Batch = []
    async with played.upstream.open(asked(text), models[0], played.credential, deadline) as batches:
        async for batch in batches:
            assert batch, "an empty batch says nothing"
            events += batch
    return events


async def closed(played: Played) -> bool:
    return await until(lambda: not played.open_now() and not played.simulator.open_generations, within_seconds=1)


@each_upstream
async def test_the_list_of_models_begins_with_the_default(factory: Factory) -> None:
    async with factory() as played:
        models = await played.upstream.models(played.credential, SystemClock().monotonic() + 5)
        assert models and all(model.id and model.display_name for model in models)


@each_upstream
async def test_good_replies_come_in_legal_order_and_leave_nothing_open(factory: Factory) -> None:
    async with factory() as played:
        for text in played.good:
            events = await reply(played, text)
            grammar = Grammar()
            grammar.feed(events)
            grammar.finish()
            assert isinstance(events[0], ReplyStart) and isinstance(events[-1], Finish) and has_content(events)
            assert await closed(played), text


@each_upstream
async def test_every_failure_is_one_of_ours_and_leaves_nothing_open(factory: Factory) -> None:
    async with factory() as played:
        for text in played.bad:
            with pytest.raises(ProxyError):
                await reply(played, text)
            assert await closed(played), text


@each_upstream
async def test_an_outage_is_one_of_ours_too(factory: Factory) -> None:
    async with factory() as played:
        models = await played.upstream.models(played.credential, SystemClock().monotonic() + 5)
        await played.simulator.stop()
        with pytest.raises(ProxyError):
            await played.upstream.models(played.credential, SystemClock().monotonic() + 5)
        deadline = SystemClock().monotonic() + 5
        with pytest.raises(ProxyError):
            async with played.upstream.open(asked("hello"), models[0], played.credential, deadline):
                pass
        await played.simulator.start()


@each_upstream
async def test_the_deadline_holds_whatever_the_upstream_does(factory: Factory) -> None:
    async with factory() as played:
        for text in ("[[sim hang]]", "[[sim stall 3]] [[sim repeat 20]]"):
            with pytest.raises(UpstreamTimeout):
                await asyncio.wait_for(reply(played, text, seconds=0.3), 5)
            assert await closed(played)


@each_upstream
async def test_leaving_in_the_middle_closes_the_reply(factory: Factory) -> None:
    async with factory() as played:
        models = await played.upstream.models(played.credential, SystemClock().monotonic() + 5)
        deadline = SystemClock().monotonic() + 10
        request = asked("[[sim stall 3]] [[sim repeat 20]]")
        async with played.upstream.open(request, models[0], played.credential, deadline) as batches:
            async for batch in batches:
                if has_content(batch):
                    break
        assert await closed(played)
        async with played.upstream.open(request, models[0], played.credential, deadline):
            pass  # nothing was read at all
        assert await closed(played)
        with pytest.raises(KeyError):
            async with played.upstream.open(request, models[0], played.credential, deadline):
                raise KeyError
        assert await closed(played)


@each_upstream
async def test_a_cancelled_request_leaks_nothing_wherever_it_was(factory: Factory) -> None:
    async with factory() as played:
        before = len(asyncio.all_tasks())
        for turns in [*range(0, 60, 2), 100, 200, 400]:
            task = asyncio.ensure_future(reply(played, "[[sim slow 1ms]] [[sim repeat 50]]"))  # noqa: TID251
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await closed(played), turns
        assert (await reply(played, "hello"))[-1]
        assert await until(lambda: len(asyncio.all_tasks()) <= before + 2)  # connections kept for the next request
