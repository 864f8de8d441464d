"""Stored responses, through the whole program and the unmodified SDK, over every store."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from qwen_proxy.app.commons import Kept
from qwen_proxy.ground.secret import Secret
from qwen_proxy.protocols.openai_responses_sealed import opened
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.simulator.records import SeenRequest
from qwen_proxy.storage.opening import FilePlace, MemoryPlace, Place, RedisPlace
from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.freed import freed
from tests.support.http import ADMIN_KEY
from tests.support.redis_server import shared
from tests.support.running import Running, running

SHOWN: Any = [  # the result of a tool with a picture, of which the site's model sees nothing
    {"role": "user", "content": "hello"},
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}],
    },
]
TERMINAL = ("completed", "failed", "incomplete", "cancelled")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    places: dict[str, Callable[[], Place]] = {
        "memory": MemoryPlace,
        "sqlite": lambda: FilePlace(tmp_path / "responses.db"),
        "redis": lambda: RedisPlace(Secret(shared().socket_url), f"test-{SystemIds().token(12)}"),
    }
    return Kept(places[str(request.param)](), Secret("a secret of this test"))


@asynccontextmanager
async def served(kept: Kept) -> AsyncGenerator[tuple[Running, openai.AsyncOpenAI]]:
    async with running(None, kept) as gateway, sdk(gateway) as client:
        yield gateway, client


def text_of(item: Any) -> str:
    return item.content[0].text


def sent(gateway: Running) -> str:
    """The last prompt that the upstream got."""
    return asked(gateway)[-1].json["messages"][0]["content"]


def asked(gateway: Running) -> list[SeenRequest]:
    return [seen for seen in gateway.simulator.requests if seen.endpoint == "completions"]


async def ended(client: openai.AsyncOpenAI, id: str) -> Any:
    """Poll until it is final."""
    async with asyncio.timeout(20):
        while (found := await client.responses.retrieve(id)).status not in TERMINAL:  # noqa: ASYNC110 - as clients do
            await asyncio.sleep(0.05)
    return found


async def test_a_response_is_stored_fetched_and_deleted(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="[[sim say Good day]]", metadata={"a": "b"})
        found = await client.responses.retrieve(made.id)
        assert found == made and found.metadata == {"a": "b"}
        items = await client.responses.input_items.list(made.id)
        (item,) = items.data
        assert item.type == "message" and item.role == "user"
        assert item.content[0].type == "input_text" and item.content[0].text == "[[sim say Good day]]"
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(made.id)
        assert await freed(gateway)


async def test_a_streamed_response_is_stored_before_its_end_is_told(kept: Kept) -> None:
    async with served(kept) as (_, client), client.responses.stream(model=MODEL, input="[[sim say Well]]") as stream:
        async for event in stream:
            if event.type == "response.completed":
                found = await client.responses.retrieve(event.response.id)
                assert found.output_text == "Well" and found.status == "completed"
                return
    raise AssertionError("it was not completed")


async def test_a_response_goes_on_from_another_without_its_instructions(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        one = await client.responses.create(
            model=MODEL, input="I am Ann. [[sim say Hello Ann]]", instructions="Speak like a pirate."
        )
        two = await client.responses.create(model=MODEL, input="And I am 30.", previous_response_id=one.id)
        assert two.previous_response_id == one.id
        await client.responses.create(
            model=MODEL, input=[{"role": "user", "content": "Who am I?"}], previous_response_id=two.id
        )
        said = sent(gateway)
        assert said.index("I am Ann") < said.index("Hello Ann") < said.index("I am 30") < said.index("Who am I?")
        assert "pirate" not in said


async def test_an_item_may_be_named_instead_of_sent(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        one = await client.responses.create(model=MODEL, input="[[sim say The sea]]")
        await client.responses.create(
            model=MODEL,
            input=[{"type": "item_reference", "id": one.output[0].id or ""}, {"role": "user", "content": "Go on."}],
        )
        assert "The sea" in sent(gateway)
        unstored = await client.responses.create(model=MODEL, input="hello", store=False)
        with pytest.raises(openai.BadRequestError, match="not found"):
            await client.responses.create(
                model=MODEL, input=[{"type": "item_reference", "id": unstored.output[0].id or ""}]
            )


async def test_what_is_not_there_is_told_precisely_and_another_keys_is_not_there(kept: Kept) -> None:
    async with served(kept) as (gateway, client), sdk(gateway, ADMIN_KEY) as other:
        made = await client.responses.create(model=MODEL, input="hello")
        waiting = await client.responses.create(model=MODEL, input="[[sim slow 500ms]] hello", background=True)
        for id in (made.id, waiting.id, "resp_" + "0" * 32, "x" * 300):
            for ask in (
                other.responses.retrieve(id),
                other.responses.delete(id),
                other.responses.cancel(id),
                other.responses.input_items.list(id),
                other.responses.retrieve(id, stream=True),
            ):
                with pytest.raises(openai.NotFoundError) as missing:
                    await ask
                assert missing.value.code == "not_found"
            with pytest.raises(openai.NotFoundError) as missing:
                await other.responses.create(model=MODEL, input="go on", previous_response_id=id)
            assert missing.value.code == "previous_response_not_found"
            assert missing.value.param == "previous_response_id"
        with pytest.raises(openai.BadRequestError):
            await other.responses.create(model=MODEL, input=[{"type": "item_reference", "id": made.output[0].id or ""}])
        assert (await client.responses.retrieve(made.id)).id == made.id
        assert (await ended(client, waiting.id)).status == "completed"


async def test_input_items_come_in_pages(kept: Kept) -> None:
    async with served(kept) as (_, client):
        said: list[Any] = [{"role": "user", "content": f"{i}"} for i in range(5)]
        made = await client.responses.create(model=MODEL, input=said)
        first = await client.responses.input_items.list(made.id, limit=2, order="asc")
        texts = [text_of(item) async for item in first]
        assert texts == ["0", "1", "2", "3", "4"]
        newest = await client.responses.input_items.list(made.id, limit=2)
        assert [text_of(item) for item in newest.data] == ["4", "3"] and newest.has_more
        wrongs: list[Any] = [{"limit": 0}, {"limit": 101}, {"after": "msg_x"}, {"order": "up"}]
        for wrong in wrongs:
            with pytest.raises(openai.BadRequestError):
                await client.responses.input_items.list(made.id, **wrong)


async def test_input_is_counted_with_what_came_before(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="one two three four five")
        alone = await client.responses.input_tokens.count(model=MODEL, input="six")
        both = await client.responses.input_tokens.count(model=MODEL, input="six", previous_response_id=made.id)
        assert 0 < alone.input_tokens < both.input_tokens
        assert len(asked(gateway)) == 1


async def test_a_conversation_is_made_shorter_and_goes_on(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="My dog is Rex. [[sim say The dog is Rex.]]")
        short = await client.responses.compact(model=MODEL, previous_response_id=made.id)
        assert short.object == "response.compaction" and short.usage.total_tokens > 0
        (item,) = short.output
        assert item.type == "compaction"
        await client.responses.create(
            model=MODEL,
            input=[
                {"type": "compaction", "encrypted_content": item.encrypted_content},
                {"role": "user", "content": "What is its name?"},
            ],
        )
        summary = opened(item.encrypted_content)
        assert summary and summary in sent(gateway) and "Rex" not in sent(gateway)


async def test_a_client_that_leaves_finds_what_had_come_kept_as_cancelled(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        stream = await client.responses.create(model=MODEL, input="[[sim slow 100ms]] [[sim repeat 50]]", stream=True)
        id = ""
        async for event in stream:
            if event.type == "response.created":
                id = event.response.id
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        assert await freed(gateway)
        await begun(client, id)
        found = await ended(client, id)
        assert found.status == "cancelled"
        assert found.output_text.startswith("word1")


async def test_a_streamed_response_is_there_while_it_is_made(kept: Kept) -> None:
    async with served(kept) as (_, client):
        stream = await client.responses.create(model=MODEL, input="[[sim slow 200ms]] [[sim repeat 99]]", stream=True)
        first = await anext(aiter(stream))
        assert first.type == "response.created"
        told = first.response
        found = await begun(client, told.id)
        assert (found.status, found.background, found.output) == ("in_progress", False, [])
        assert found == told
        with pytest.raises(openai.BadRequestError, match="not at its end yet"):
            await client.responses.create(model=MODEL, input="go on", previous_response_id=told.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(told.id)
        await stream.close()
        assert (await ended(client, told.id)).status == "cancelled"


async def begun(client: openai.AsyncOpenAI, id: str) -> Any:
    """It is written beside the stream: maybe a moment later than its first words are read."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await client.responses.retrieve(id)
            except openai.NotFoundError:
                await asyncio.sleep(0.01)


async def test_a_streamed_response_that_is_deleted_goes_to_its_end_and_is_not_stored(kept: Kept) -> None:
    async with served(kept) as (_, client):
        stream = await client.responses.create(model=MODEL, input="[[sim slow 50ms]] [[sim repeat 20]]", stream=True)
        events: list[Any] = []
        async for event in stream:
            events.append(event)
            if len(events) == 5:
                await begun(client, events[0].response.id)
                await client.responses.delete(events[0].response.id)
        assert events[-1].type == "response.completed"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(events[0].response.id)


async def test_a_failure_in_the_stream_is_kept(kept: Kept) -> None:
    async with served(kept) as (_, client):
        stream = await client.responses.create(
            model=MODEL, input="[[sim slow 20ms]] [[sim repeat 10]] [[sim drop 8]]", stream=True
        )
        events = [event async for event in stream]
        assert events[-1].type == "response.failed"
        found = await client.responses.retrieve(events[-1].response.id)
        assert found.status == "failed" and found.error is not None
        assert found == events[-1].response


# --- in the background


async def test_a_background_response_is_polled(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="[[sim slow 50ms]] [[sim repeat 5]]", background=True)
        assert (made.status, made.background, made.output) == ("queued", True, [])
        found = await ended(client, made.id)
        assert (found.status, found.output_text) == ("completed", "word1 word2 word3 word4 word5")
        assert found.usage is not None and found.usage.total_tokens > 0
        again = await client.responses.create(model=MODEL, input="Go on.", previous_response_id=made.id)
        assert again.status == "completed" and "word1 word2" in sent(gateway)
        assert await freed(gateway)


async def test_a_background_response_tells_what_of_it_has_no_effect(kept: Kept) -> None:
    async with served(kept) as (_, client):
        raw: Any = client.responses.with_raw_response
        fields: Any = {"model": MODEL, "input": "hello", "temperature": 0.5, "background": True}
        made = await raw.create(**fields)
        streamed = await raw.create(**fields, stream=True)
        shown = await raw.create(model=MODEL, input=SHOWN, background=True)
        id = made.parse().id
        await ended(client, id)
        found = await raw.retrieve(id)
        again = await raw.retrieve(id, stream=True)
        for told in (made, streamed, found, again):
            assert told.headers["x-qwen-proxy-ignored"] == "temperature"
            assert "x-qwen-proxy-warnings" not in told.headers
        assert "images" in shown.headers["x-qwen-proxy-warnings"]
        assert "x-qwen-proxy-ignored" not in shown.headers


async def test_a_background_stream_is_resumed_with_the_same_numbers(kept: Kept) -> None:
    async with served(kept) as (_, client):
        script = "[[sim slow 60ms]] [[sim repeat 12]]"
        stream = await client.responses.create(model=MODEL, input=script, background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        id = seen[0].response.id
        assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
        rest = await client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in rest]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"
        assert [event async for event in await client.responses.retrieve(id, stream=True)] == seen
        last = seen[-1].sequence_number
        assert [event async for event in await client.responses.retrieve(id, stream=True, starting_after=last)] == []
        async with client.responses.stream(response_id=id, starting_after=5) as replayed:
            final = await replayed.get_final_response()
        assert final.output_text == " ".join(f"word{i}" for i in range(1, 13))


async def test_a_background_response_is_cancelled(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="[[sim slow 100ms]] [[sim repeat 80]]", background=True)
        async for event in await client.responses.retrieve(made.id, stream=True):
            if event.type == "response.output_text.delta":
                break
        cancelled = await client.responses.cancel(made.id)
        assert cancelled.status == "cancelled"
        assert await client.responses.cancel(made.id) == cancelled == await client.responses.retrieve(made.id)
        assert await freed(gateway)
        events = [event async for event in await client.responses.retrieve(made.id, stream=True)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.incomplete" and events[-1].response.status == "cancelled"
        plain = await client.responses.create(model=MODEL, input="hello")
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(plain.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.retrieve(plain.id, stream=True)


async def test_a_background_response_that_is_deleted_ends(kept: Kept) -> None:
    async with served(kept) as (gateway, client):
        made = await client.responses.create(model=MODEL, input="[[sim slow 100ms]] [[sim repeat 80]]", background=True)
        await client.responses.delete(made.id)
        assert await freed(gateway)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id, stream=True)


async def test_a_background_response_fails_honestly(kept: Kept) -> None:
    async with served(kept) as (_, client):
        made = await client.responses.create(model=MODEL, input="[[sim error RateLimited]]", background=True)
        found = await ended(client, made.id)
        assert found.status == "failed" and found.error.code == "rate_limit_exceeded"
        with pytest.raises(openai.NotFoundError, match="unknown model"):
            await client.responses.create(model="llama-none", input="hello", background=True)
