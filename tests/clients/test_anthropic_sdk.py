"""The official `anthropic` package, unchanged, as a client."""

import asyncio
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import MessageParam, ToolUnionParam

from qwen_proxy.simulator import Scenario, quota
from tests.support.freed import freed
from tests.support.http import USER_KEY
from tests.support.running import Running, running

MODEL = "qwen3.7-plus"


def said(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def sdk(gateway: Running, key: str = USER_KEY, retries: int = 0) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=retries)


async def test_a_synchronous_client_creates_and_streams() -> None:
    def visit(url: str) -> tuple[str, str, list[str]]:
        with anthropic.Anthropic(base_url=url, api_key=USER_KEY) as client:
            whole = client.messages.create(model=MODEL, max_tokens=100, messages=said("[[sim say Good day]]"))
            with client.messages.stream(model=MODEL, max_tokens=100, messages=said("[[sim repeat 3]]")) as stream:
                pieces = "".join(stream.text_stream)
            assert whole.content[0].type == "text"
            return whole.content[0].text, pieces, [model.id for model in client.models.list()]

    async with running() as gateway:
        text, pieces, models = await asyncio.to_thread(visit, gateway.url)
        assert (text, pieces) == ("Good day", "word1 word2 word3")
        assert "Qwen3.7-Plus-thinking" in models
        assert await freed(gateway)


async def test_a_folded_reply_has_anthropics_fields() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.messages.create(
            model=MODEL, max_tokens=100, system=[{"type": "text", "text": "Be brief."}], messages=said("hello")
        )
        assert reply.id.startswith("msg_") and (reply.type, reply.role, reply.model) == ("message", "assistant", MODEL)
        assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
        assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0
        assert reply._request_id is not None and reply._request_id.startswith("req_")  # pyright: ignore[reportPrivateUsage]  # the SDK's documented name


async def test_the_sdks_accumulator_takes_thinking_and_text_and_the_usage_is_true_from_the_beginning() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said("[[sim think]] [[sim say Well then]]")
        counted = await client.messages.count_tokens(model=MODEL, messages=messages)
        async with client.messages.stream(
            model=MODEL, max_tokens=4000, messages=messages, thinking={"type": "enabled", "budget_tokens": 1024}
        ) as stream:
            events = [event async for event in stream]
            reply = await stream.get_final_message()
        assert [block.type for block in reply.content] == ["thinking", "text"]
        assert reply.content[0].type == "thinking" and reply.content[0].thinking and reply.content[0].signature
        assert reply.content[1].type == "text" and reply.content[1].text == "Well then"
        assert events[0].type == "message_start" and events[0].message.usage.input_tokens == counted.input_tokens
        again: list[MessageParam] = [*messages, reply.to_param(), *said("[[sim say Fine]]")]
        further = await client.messages.create(model=MODEL, max_tokens=4000, messages=again)
        assert further.content[0].type == "text" and further.content[0].text == "Fine"


async def test_a_reply_is_cut_at_its_limit_and_at_a_stop_sequence() -> None:
    async with running() as gateway, sdk(gateway) as client:
        short = await client.messages.create(model=MODEL, max_tokens=4, messages=said("[[sim repeat 50]]"))
        assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 4)
        stopped = await client.messages.create(
            model=MODEL, max_tokens=400, stop_sequences=["word3"], messages=said("[[sim repeat 50]]")
        )
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "word3")
        assert stopped.content[0].type == "text" and stopped.content[0].text == "word1 word2 "


async def test_no_token_is_asked_of_nobody() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.messages.create(model=MODEL, max_tokens=0, messages=said("hello"))
        assert (reply.content, reply.stop_reason, reply.usage.output_tokens) == ([], "max_tokens", 0)
        async with client.messages.stream(model=MODEL, max_tokens=0, messages=said("hello")) as stream:
            assert (await stream.get_final_message()).stop_reason == "max_tokens"
        assert gateway.simulator.seen("completions") == []


async def test_a_search_gives_the_blocks_of_anthropics_own() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said("The tides of today? [[sim search both]] [[sim say Well then]]")
        tools: list[ToolUnionParam] = [{"type": "web_search_20250305", "name": "web_search"}]
        reply = await client.messages.create(model=MODEL, max_tokens=400, messages=messages, tools=tools)
        async with client.messages.stream(model=MODEL, max_tokens=400, messages=messages, tools=tools) as stream:
            streamed = await stream.get_final_message()
        for each in (reply, streamed):
            asked = each.content[0]
            assert asked.type == "server_tool_use" and asked.input.get("query")
        assert [block.type for block in reply.content] == ["server_tool_use", "web_search_tool_result", "text"]
        found = reply.content[1]
        assert found.type == "web_search_tool_result" and isinstance(found.content, list)
        assert [each.url for each in found.content] == ["https://example.com/a", "https://example.org/b"]
        assert reply.usage.server_tool_use is not None and reply.usage.server_tool_use.web_search_requests == 1
        again: list[MessageParam] = [*messages, reply.to_param(), *said("[[sim say Fine]]")]
        further = await client.messages.create(model=MODEL, max_tokens=400, messages=again)
        assert further.content[-1].type == "text" and further.content[-1].text == "Fine"


async def test_counting_is_the_same_as_what_usage_says_and_costs_nobody_anything() -> None:
    tools: Any = [{"name": "f", "description": "does it", "input_schema": {"type": "object", "properties": {}}}]
    async with running() as gateway, sdk(gateway) as client:
        text = "A longer text, with words. " * 2000
        counts = await asyncio.gather(
            *(client.messages.count_tokens(model="claude-opus-5-5", messages=said(text)) for _ in range(24))
        )
        assert len({count.input_tokens for count in counts}) == 1
        assert gateway.simulator.seen("completions") == []
        plain = await client.messages.count_tokens(model=MODEL, messages=said("hi"))
        with_system = await client.messages.count_tokens(model=MODEL, messages=said("hi"), system="Be kind.")
        with_tools = await client.messages.count_tokens(model=MODEL, messages=said("hi"), tools=tools)
        assert plain.input_tokens < with_system.input_tokens < with_tools.input_tokens
        async with client.messages.stream(model=MODEL, max_tokens=50, messages=said(text)) as stream:
            first = await anext(aiter(stream))
        assert first.type == "message_start"
        assert first.message.usage.input_tokens == counts[0].input_tokens


async def test_a_wrong_body_is_refused_by_the_counter_too() -> None:
    async with running() as gateway, sdk(gateway) as client:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.count_tokens(model=MODEL, messages=[])
        assert refused.value.type == "invalid_request_error"
        assert refused.value.request_id is not None and refused.value.request_id.startswith("req_")


async def test_models_are_listed_in_pages_and_found_by_any_spelling() -> None:
    async with running() as gateway, sdk(gateway) as client:
        page = await client.models.list(limit=3)
        assert len(page.data) == 3 and page.has_more
        everything = [model async for model in client.models.list(limit=3)]
        assert [model.id for model in everything] == [model.id async for model in client.models.list()]
        first = everything[0]
        assert (first.id, first.type, first.lifecycle) == ("Qwen3.7-Plus", "model", "active")
        assert first.max_input_tokens == 1_000_000 and first.created_at.year >= 2023
        assert (await client.models.retrieve("QWEN3.7-plus-THINKING")).id == "Qwen3.7-Plus-thinking"
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.models.retrieve("qwen3.7-plux")
        assert missing.value.type == "not_found_error"


async def test_each_refusal_is_the_sdks_own_error() -> None:
    async with running() as gateway:
        async with sdk(gateway, key="sk-wrong") as stranger:
            with pytest.raises(anthropic.AuthenticationError) as unknown:
                await stranger.messages.create(model=MODEL, max_tokens=9, messages=said("hello"))
            assert unknown.value.type == "authentication_error"
            with pytest.raises(anthropic.AuthenticationError):
                await stranger.messages.count_tokens(model=MODEL, messages=said("hello"))
            with pytest.raises(anthropic.AuthenticationError) as listing:
                await stranger.models.list()
            assert listing.value.type == "authentication_error"
        async with sdk(gateway) as client:
            with pytest.raises(anthropic.NotFoundError) as missing:
                await client.messages.create(model="qwen-nine", max_tokens=9, messages=said("hello"))
            assert missing.value.type == "not_found_error"
            with pytest.raises(anthropic.BadRequestError) as bad:
                async with client.messages.stream(model=MODEL, max_tokens=9, messages=[]) as stream:
                    await stream.get_final_message()
            assert bad.value.type == "invalid_request_error"
            image: Any = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
            with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content"):
                await client.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": [image]}])


async def test_a_key_is_taken_from_either_header_and_a_version_is_not_looked_at() -> None:
    async with running() as gateway:
        body = {"model": MODEL, "max_tokens": 50, "messages": said("[[sim say Good day]]")}
        for headers in ({"x-api-key": USER_KEY}, {"Authorization": f"Bearer {USER_KEY}"}):
            async with httpx2.AsyncClient(
                timeout=50, base_url=gateway.url, headers={"anthropic-version": "1999-01-01"}
            ) as client:
                reply = await client.post("/v1/messages?beta=true", json=body, headers=headers)
                assert reply.status_code == 200, reply.text
                assert reply.headers["request-id"] == reply.headers["x-request-id"]
                assert reply.json()["content"] == [{"type": "text", "text": "Good day"}]


async def test_fields_without_effect_are_named_in_a_header() -> None:
    async with running() as gateway, sdk(gateway) as client:
        raw = await client.messages.with_raw_response.create(
            model=MODEL, max_tokens=50, messages=said("hello"), service_tier="auto", extra_body={"top_k": 5}
        )
        assert raw.headers["x-qwen-proxy-ignored"] == "service_tier, top_k"


async def test_a_used_up_quota_is_a_rate_limit_that_the_sdk_does_not_try_again() -> None:
    async with running(Scenario(faults=[quota(num=6)])) as gateway, sdk(gateway, retries=5) as client:
        with pytest.raises(anthropic.RateLimitError) as failed:
            await client.messages.create(model=MODEL, max_tokens=50, messages=said("hello"))
        assert failed.value.response.headers["retry-after"]
        assert len(gateway.simulator.seen("completions")) == 1


async def test_a_stream_that_breaks_raises_behind_what_came() -> None:
    async with running(CHAT_RETRY_COUNT="0") as gateway, sdk(gateway) as client:
        text = ""
        with pytest.raises(anthropic.APIStatusError) as broken:
            async with client.messages.stream(
                model=MODEL, max_tokens=500, messages=said("[[sim reset 3]] [[sim repeat 20]]")
            ) as stream:
                async for piece in stream.text_stream:
                    text += piece
        assert text.startswith("word1")
        assert broken.value.type == "overloaded_error"


async def test_a_silent_upstream_is_bridged_with_pings() -> None:
    async with running(HEADER_COMMIT_SECONDS="0.05", HEARTBEAT_SECONDS="0.05") as gateway:
        body = {"model": MODEL, "max_tokens": 50, "stream": True, "messages": said("[[sim delay 400ms]] hello")}
        headers = {"x-api-key": USER_KEY}
        async with httpx2.AsyncClient(timeout=50, base_url=gateway.url) as client:
            written = (await client.post("/v1/messages", json=body, headers=headers)).text
        assert written.startswith('event: ping\ndata: {"type":"ping"}\n\n')
        assert written.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')


async def test_a_message_thread_is_refused_so_that_the_sdk_can_go_on_without() -> None:
    async with running() as gateway, sdk(gateway) as client:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(
                model=MODEL, max_tokens=50, messages=said("hello"), extra_body={"thread": {"type": "create"}}
            )
        assert refused.value.error_code == "thread_unsupported_request"
        with pytest.raises(anthropic.NotFoundError) as lost:
            await client.messages.create(
                model=MODEL,
                max_tokens=50,
                messages=[],
                extra_body={"thread": {"type": "continue", "previous_message_id": "msg_1"}},
            )
        assert lost.value.error_code == "thread_not_found"


async def test_an_image_in_a_tools_result_ends_nothing_and_is_warned_of() -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    messages: Any = [
        *said("look"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]},
                {"type": "text", "text": "[[sim say Seen]]"},
            ],
        },
    ]
    async with running() as gateway, sdk(gateway) as client:
        raw = await client.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=messages)
        assert "images" in raw.headers["x-qwen-proxy-warnings"]
        reply = await raw.parse()
        assert reply.content[0].type == "text" and reply.content[0].text == "Seen"
        stream = await client.messages.with_raw_response.create(
            model=MODEL, max_tokens=50, messages=messages, stream=True
        )
        assert "images" in stream.headers["x-qwen-proxy-warnings"]
        plain = await client.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=said("hello"))
        assert "x-qwen-proxy-warnings" not in plain.headers
