"""Stored responses in a Redis that two installations' servers share, as on two machines: `qwen-proxy serve` itself."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import Struct

from qwen_proxy.app.commons import Kept
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.store import DAY_SECONDS
from qwen_proxy.storage.opening import RedisPlace
from qwen_proxy.storage.redis import RedisStore
from tests.clients.test_openai_sdk import MODEL
from tests.clients.test_openai_sdk import sdk as sdk_of
from tests.e2e.test_responses import begun, ended
from tests.e2e.test_responses_workers import follow, pid_of, sdk
from tests.support.http import ADMIN_KEY
from tests.support.redis_server import RedisServer, shared
from tests.support.running import running
from tests.support.served import Served, served

DAYS = 3
SLOW = "[[sim slow 100ms]] [[sim repeat 60]]"


class Pair(Struct, frozen=True):
    """Two servers with one Redis and one upstream, a client of each, and one of the second with another key."""

    one: Served
    two: Served
    here: openai.AsyncOpenAI
    there: openai.AsyncOpenAI
    stranger: openai.AsyncOpenAI
    prefix: str

    async def worker_of(self, id: str) -> int:
        """The process that is at work on it."""
        async with RedisStore(Secret(shared().socket_url), self.prefix, SystemClock()) as store:
            return await pid_of(store, id)


@asynccontextmanager
async def pair(folder: Path) -> AsyncGenerator[Pair]:
    prefix = f"test-{SystemIds().token(12)}"
    settings = {
        "PM2_INSTANCES": "1",
        "DATA_SAVE_MODE": "redis",
        "REDIS_URL": shared().url,
        "REDIS_PREFIX": prefix,
        "SECRET_KEY": "the secret that both machines have",
        "STORED_RESPONSES_DAYS": str(DAYS),
        "SHUTDOWN_GRACE_SECONDS": "1",
    }
    folders = folder / "one", folder / "two"
    for each in folders:
        each.mkdir()
    async with served(folders[0], **settings) as one:
        settings["QWEN_CHAT_PROXY_URL"] = one.simulator.base_url
        async with served(folders[1], **settings) as two, sdk(one) as here, sdk(two) as there:
            stranger = there.with_options(api_key=ADMIN_KEY)
            yield Pair(one, two, here, there, stranger, prefix)


async def read_until(client: openai.AsyncOpenAI, id: str, kind: str) -> list[Any]:
    """The events up to the first of that kind."""
    seen: list[Any] = []
    async with await client.responses.retrieve(id, stream=True) as stream:
        async for event in stream:
            seen.append(event)
            if event.type == kind:
                return seen
    raise AssertionError(f"no {kind} came")


async def first_words(client: openai.AsyncOpenAI, id: str) -> list[Any]:
    return await read_until(client, id, "response.output_text.delta")


async def test_what_is_stored_through_one_server_is_there_through_the_other(tmp_path: Path) -> None:
    """One start for all of it, which takes its time."""
    async with pair(tmp_path) as site:
        await reads_continues_and_deletes(site)
        await resumes_a_stream_with_the_same_numbers(site)
        await cancels_in_the_background(site)


async def reads_continues_and_deletes(site: Pair) -> None:
    made = await site.here.responses.create(model=MODEL, input="I am Ann. [[sim say Hello Ann]]")
    assert await site.there.responses.retrieve(made.id) == made
    (item,) = (await site.there.responses.input_items.list(made.id)).data
    assert item.type == "message"
    on = await site.there.responses.create(model=MODEL, input="Who am I?", previous_response_id=made.id)
    assert on.status == "completed"
    asked = [seen for seen in site.one.simulator.requests if seen.endpoint == "completions"]
    prompt = asked[-1].json["messages"][0]["content"]
    assert prompt.index("I am Ann") < prompt.index("Hello Ann") < prompt.index("Who am I?")
    for ask in (
        site.stranger.responses.retrieve(made.id),
        site.stranger.responses.input_items.list(made.id),
        site.stranger.responses.cancel(made.id),
        site.stranger.responses.delete(made.id),
        site.stranger.responses.create(model=MODEL, input="go on", previous_response_id=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await ask
    await site.there.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await site.here.responses.retrieve(made.id)


async def resumes_a_stream_with_the_same_numbers(site: Pair) -> None:
    made = await site.here.responses.create(model=MODEL, input="[[sim slow 100ms]] [[sim repeat 12]]", background=True)
    seen = await first_words(site.here, made.id)
    seen += await follow(site.there, made.id, seen[-1].sequence_number)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    assert await follow(site.there, made.id) == seen == await follow(site.here, made.id)
    assert (await site.there.responses.retrieve(made.id)).output_text == seen[-1].response.output_text
    with pytest.raises(openai.NotFoundError):
        await site.stranger.responses.retrieve(made.id, stream=True)
    async with shared().raw() as redis:
        keys: Any = await redis.execute_command("KEYS", f"*{site.prefix}*record:response*")
        assert len(keys) > 2, "the response and its events"
        for key in keys:
            lasts: Any = await redis.execute_command("PTTL", key)
            assert (DAYS * DAY_SECONDS - 60) * 1000 < lasts <= (DAYS * DAY_SECONDS + 60) * 1000


async def cancels_in_the_background(site: Pair) -> None:
    made = await site.here.responses.create(model=MODEL, input=SLOW, background=True)
    await first_words(site.here, made.id)
    assert (await site.there.responses.cancel(made.id)).status == "cancelled"
    events = await follow(site.here, made.id)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.incomplete" and events[-1].response.status == "cancelled"
    await site.one.until(lambda _: not site.one.simulator.open_generations)


@pytest.mark.parametrize("script", [SLOW, "[[sim delay 5s]] [[sim say Good day]]"], ids=["later", "before"])
async def test_the_other_server_takes_care_of_what_a_killed_one_leaves(tmp_path: Path, script: str) -> None:
    """With its supervisor, which else would start another worker; before or after a part of the reply was written."""
    async with pair(tmp_path) as site:
        made = await site.here.responses.create(model=MODEL, input=script, background=True)
        kind = "response.output_text.delta" if script == SLOW else "response.in_progress"
        seen = await read_until(site.there, made.id, kind)
        worker = await site.worker_of(made.id)
        site.one.process.kill()
        os.kill(worker, signal.SIGKILL)
        seen += await follow(site.there, made.id, seen[-1].sequence_number)
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        found = await ended(site.there, made.id)
        if script == SLOW:
            assert [event.type for event in seen[-2:]] == ["error", "response.failed"]
            assert found.status == "failed" and "process that was at work" in found.error.message
        else:
            assert seen[-1].type == "response.completed" and found.output_text == "Good day"
        assert await follow(site.there, made.id) == seen


async def test_a_stream_that_a_server_breaks_off_as_it_stops_is_stored_as_it_was_told(tmp_path: Path) -> None:
    async with pair(tmp_path) as site:
        events: list[Any] = []
        stream: Any = await site.here.responses.create(model=MODEL, input=SLOW, stream=True)
        async for event in stream:
            events.append(event)
            if len(events) == 6:
                site.one.process.terminate()
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        found = await ended(site.there, events[0].response.id)
        assert found == events[-1].response and found.output_text.startswith("word1")


# --- a Redis that is gone for a while


@asynccontextmanager
async def over(redis: RedisServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    kept = Kept(RedisPlace(Secret(redis.url), "test"), Secret("a secret of this test"))
    async with running(None, kept) as gateway, sdk_of(gateway) as client:
        yield client


async def test_a_background_response_outlives_an_outage_of_redis(tmp_path: Path) -> None:
    """Its events are held meanwhile; who reads them is cut off, and goes on behind the last."""
    with RedisServer() as redis:
        async with over(redis) as client:
            made = await client.responses.create(model=MODEL, input=SLOW, background=True)
            seen = await first_words(client, made.id)
            redis.kill()
            with pytest.raises(openai.APIStatusError) as refused:
                await client.responses.retrieve(made.id)
            assert refused.value.status_code == 503
            await asyncio.to_thread(redis.start)
            seen += await follow(client, made.id, seen[-1].sequence_number)
            assert [event.sequence_number for event in seen] == list(range(len(seen)))
            assert seen[-1].type == "response.completed"
            assert seen[-1].response.output_text.endswith("word60")


async def test_a_stream_whose_end_redis_did_not_take_has_failed_for_everybody(tmp_path: Path) -> None:
    with RedisServer() as redis:
        async with over(redis) as client:
            events: list[Any] = []
            stream: Any = await client.responses.create(
                model=MODEL, input="[[sim slow 50ms]] [[sim repeat 10]]", stream=True
            )
            async for event in stream:
                events.append(event)
                if event.type == "response.created":
                    await begun(client, event.response.id)
                    redis.kill()
            assert [event.type for event in events[-2:]] == ["error", "response.failed"]
            await asyncio.to_thread(redis.start)
            found = await followed_to_its_end(client, events[0].response.id)
            assert found.status == "failed" and "could not be stored" in found.error.message


async def followed_to_its_end(client: openai.AsyncOpenAI, id: str) -> Any:
    """The server may need a moment until it has found Redis again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await ended(client, id)
            except openai.InternalServerError:
                await asyncio.sleep(0.1)
