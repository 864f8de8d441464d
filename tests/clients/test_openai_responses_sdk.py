"""The official `openai` package, unchanged, as a client of `/v1/responses`."""

import openai
import pytest

from qwen_proxy.simulator import Scenario, quota
from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.freed import freed
from tests.support.running import running


async def test_a_whole_response() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.responses.create(model=MODEL, input="[[sim say Good day]]", store=False)
        assert (reply.output_text, reply.status, reply.object, reply.model) == (
            "Good day",
            "completed",
            "response",
            MODEL,
        )
        assert reply.id.startswith("resp_")
        assert reply.usage is not None and reply.usage.input_tokens_details.cache_write_tokens == 0
        assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0
        assert await freed(gateway)


async def test_the_sdks_accumulator_takes_every_event_of_a_reasoned_reply_with_sources() -> None:
    async with running() as gateway, sdk(gateway) as client:
        script = "[[sim think]] [[sim search both]] [[sim say Well then]]"
        async with client.responses.stream(model=f"{MODEL}-thinking-search", input=script, store=False) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3
        thought, search, message = final.output
        assert search.type == "web_search_call" and search.status == "completed"
        assert thought.type == "reasoning" and thought.content
        assert message.type == "message" and message.content[0].type == "output_text"
        assert message.content[0].annotations
        assert "Well then" in final.output_text


async def test_a_failure_is_a_status_or_the_end_of_a_stream() -> None:
    async with running(Scenario(faults=[quota(num=6)])) as gateway, sdk(gateway) as client:
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model=MODEL, input="hello", store=False)
    async with running() as gateway, sdk(gateway) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=MODEL, input=[{"role": "user", "content": 7}])  # pyright: ignore[reportArgumentType] wrong on purpose
        assert refused.value.param == "input[0].content"


async def test_a_failure_behind_the_headers_is_told_in_the_stream() -> None:
    late = Scenario(latency={"completions": 0.4})
    async with running(late, HEADER_COMMIT_SECONDS="0.1", HEARTBEAT_SECONDS="0.05") as gateway, sdk(gateway) as client:
        stream = await client.responses.create(model=MODEL, input="[[sim error RateLimited]]", store=False, stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "error",
            "response.failed",
        ]
        assert events[-1].type == "response.failed" and events[-1].response.error is not None
        assert events[-1].response.error.code == "rate_limit_exceeded"
