"""The official `openai` package, unchanged, as a client."""

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from qwen_proxy.simulator import Scenario, quota
from tests.support.freed import freed
from tests.support.http import USER_KEY
from tests.support.running import Running, running

MODEL = "qwen3.7-plus"


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def sdk(gateway: Running, key: str = USER_KEY, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=retries)


async def test_a_synchronous_client_creates_and_streams() -> None:
    def visit(url: str) -> tuple[str | None, str, list[str]]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=USER_KEY) as client:
            whole = client.chat.completions.create(model=MODEL, messages=said("[[sim say Good day]]"))
            pieces = ""
            for chunk in client.chat.completions.create(model=MODEL, messages=said("[[sim repeat 5]]"), stream=True):
                pieces += chunk.choices[0].delta.content or ""
            return whole.choices[0].message.content, pieces, [model.id for model in client.models.list()]

    async with running() as gateway:
        content, pieces, models = await asyncio.to_thread(visit, gateway.url)
        assert content == "Good day"
        assert pieces == "word1 word2 word3 word4 word5"
        assert "Qwen3.7-Plus-thinking" in models
        assert await freed(gateway)


async def test_a_folded_reply_has_openais_fields() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=said("hello"))
        assert reply.object == "chat.completion"
        assert reply.id.startswith("chatcmpl-")
        assert reply.model == MODEL
        assert reply.system_fingerprint
        assert reply._request_id is not None and reply._request_id.startswith("req_")  # pyright: ignore[reportPrivateUsage]  # the SDK's documented name
        (choice,) = reply.choices
        assert (choice.finish_reason, choice.message.role, choice.logprobs) == ("stop", "assistant", None)
        assert reply.usage is not None
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0


async def test_the_sdks_accumulator_takes_every_event_of_a_reasoned_reply_with_sources() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said("[[sim think]] [[sim search both]] [[sim say Well then]]")
        async with client.chat.completions.stream(
            model=f"{MODEL}-thinking-search", messages=messages, stream_options={"include_usage": True}
        ) as stream:
            kinds = [event.type async for event in stream]
            reply = await stream.get_final_completion()
        (choice,) = reply.choices
        assert choice.message.content == "Well then [[1]][[2]]"
        assert choice.message.to_dict()["reasoning_content"]
        assert choice.message.annotations is not None
        assert [each.url_citation.url for each in choice.message.annotations] == [
            "https://example.com/a",
            "https://example.org/b",
        ]
        assert reply.usage is not None and reply.usage.completion_tokens > 0
        assert kinds.count("content.done") == 1


async def test_usage_is_null_in_every_chunk_but_the_last_when_asked_for_and_absent_otherwise() -> None:
    async with running() as gateway, sdk(gateway) as client:
        asked = await client.chat.completions.create(
            model=MODEL, messages=said("hello there"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in asked]
        assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
        assert chunks[-1].choices == [] and chunks[-1].usage is not None
        assert {chunk.id for chunk in chunks} == {chunks[0].id}
        assert {chunk.model for chunk in chunks} == {MODEL}
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == ["stop"]
        plain = await client.chat.completions.create(model=MODEL, messages=said("hello there"), stream=True)
        assert all("usage" not in chunk.model_fields_set for chunk in [chunk async for chunk in plain])


async def test_three_choices_are_three_generations_with_their_own_indices() -> None:
    async with running(ACCOUNT_CONCURRENCY="3") as gateway, sdk(gateway) as client:
        folded = await client.chat.completions.create(model=MODEL, messages=said("[[sim repeat 4]]"), n=3)
        assert [choice.index for choice in folded.choices] == [0, 1, 2]
        assert {choice.message.content for choice in folded.choices} == {"word1 word2 word3 word4"}
        async with client.chat.completions.stream(
            model=MODEL, messages=said("[[sim repeat 4]]"), n=3, stream_options={"include_usage": True}
        ) as stream:
            streamed = await stream.get_final_completion()
        assert [choice.message.content for choice in streamed.choices] == ["word1 word2 word3 word4"] * 3
        assert streamed.usage is not None and folded.usage is not None
        assert streamed.usage.completion_tokens == folded.usage.completion_tokens
        assert len(gateway.simulator.seen("completions")) == 6
        assert await freed(gateway)


async def test_a_model_that_cannot_skip_thinking_answers() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(
            model="Qwen3.8-Max", messages=said("hello"), reasoning_effort="none"
        )
        assert reply.choices[0].message.content
        assert reply.usage is not None and reply.usage.completion_tokens_details is not None
        assert reply.usage.completion_tokens_details.reasoning_tokens


async def test_models_are_listed_and_found_by_any_spelling() -> None:
    async with running() as gateway, sdk(gateway) as client:
        listed = [model async for model in client.models.list()]
        assert listed[0].id == "Qwen3.7-Plus" and listed[0].owned_by == "qwen" and listed[0].created > 0
        assert (await client.models.retrieve("QWEN3.7-plus-THINKING")).id == "Qwen3.7-Plus-thinking"
        with pytest.raises(openai.NotFoundError) as failed:
            await client.models.retrieve("qwen3.7-plux")
        assert failed.value.code == "model_not_found"


async def test_each_refusal_is_the_sdks_own_error() -> None:
    async with running() as gateway:
        async with sdk(gateway, key="sk-wrong") as stranger:
            with pytest.raises(openai.AuthenticationError) as unknown:
                await stranger.chat.completions.create(model=MODEL, messages=said("hello"))
            assert unknown.value.code == "invalid_api_key"
        async with sdk(gateway) as client:
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="llama-9", messages=said("hello"))
            assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
            with pytest.raises(openai.BadRequestError) as bad:
                await client.chat.completions.create(model=MODEL, messages=said("hello"), logprobs=True)
            assert (bad.value.code, bad.value.param) == ("unsupported_parameter", "logprobs")
            with pytest.raises(openai.BadRequestError) as streamed:
                await client.chat.completions.create(model=MODEL, messages=[], stream=True)
            assert streamed.value.param == "messages"


async def test_a_used_up_quota_is_a_rate_limit_that_the_sdk_does_not_try_again() -> None:
    async with running(Scenario(faults=[quota(num=6)])) as gateway, sdk(gateway, retries=5) as client:
        for streamed in (False, True):
            with pytest.raises(openai.RateLimitError) as failed:
                await client.chat.completions.create(model=MODEL, messages=said("hello"), stream=streamed)
            assert failed.value.code == "upstream_quota"
            assert failed.value.response.headers["x-should-retry"] == "false"
            assert 6 * 3600 - 60 <= int(failed.value.response.headers["retry-after"]) <= 6 * 3600
        assert len(gateway.simulator.seen("completions")) == 1  # afterwards the account is known to rest


async def test_a_failure_behind_content_is_an_api_error_of_the_stream() -> None:
    async with running() as gateway, sdk(gateway, retries=5) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=said("[[sim reset 3]] [[sim repeat 20]]"), stream=True
        )
        text = ""
        with pytest.raises(openai.APIError, match="broke off"):
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
        assert text.startswith("word1")
        assert len(gateway.simulator.seen("completions")) == 1
        assert await freed(gateway)


async def test_closing_a_stream_early_frees_everything_within_a_second() -> None:
    async with running() as gateway, sdk(gateway) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=said("[[sim stall 3]] [[sim repeat 20]]"), stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert gateway.simulator.open_generations == 1
        await stream.close()
        assert await freed(gateway)


async def test_heartbeats_before_and_amid_content_do_not_disturb_the_sdk() -> None:
    late = Scenario(latency={"completions": 0.4})
    async with running(late, HEADER_COMMIT_SECONDS="0.1", HEARTBEAT_SECONDS="0.05") as gateway, sdk(gateway) as client:
        messages = said("[[sim slow 150ms]] [[sim repeat 3]]")
        async with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
            assert (await stream.get_final_completion()).choices[0].message.content == "word1 word2 word3"
        failing = await client.chat.completions.create(
            model=MODEL, messages=said("[[sim error RateLimited]]"), stream=True
        )  # its headers are out, so what comes is told in the stream
        with pytest.raises(openai.APIError, match="quota"):
            await anext(aiter(failing))


async def test_what_no_try_can_help_is_asked_once_however_often_the_sdk_would() -> None:
    async with running(accounts=(), SIMULATOR="never") as gateway, sdk(gateway, retries=3) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            await asyncio.wait_for(client.chat.completions.create(model=MODEL, messages=said("hello")), 2)
        assert failed.value.status_code == 503 and failed.value.code == "no_account"
        assert failed.value.response.request.headers["x-stainless-retry-count"] == "0"


CONVERSATIONS: list[list[ChatCompletionMessageParam]] = [
    [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "hello"}],
    [{"role": "system", "content": [{"type": "text", "text": "Be short."}]}, {"role": "user", "content": "hello"}],
    [{"role": "user", "content": "Generate a title for this conversation:"}, {"role": "user", "content": "hello"}],
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>Today is Monday.</system-reminder>"},
                {"type": "text", "text": "<system-reminder>Files: a, b</system-reminder>"},
                {"type": "text", "text": "hello"},
            ],
        }
    ],
    [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "and now?"},
    ],
    [
        {"role": "user", "content": "read a.txt"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "the file's text"}]},
    ],
    [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "It was a dark"}],
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
async def test_messages_as_real_clients_send_them_are_answered(messages: list[ChatCompletionMessageParam]) -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=messages)
        assert reply.choices[0].message.content
        assert gateway.simulator.warnings == []


READ: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "read",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
CALL = '[[sim call read {"path": "a.txt"}]]'


async def test_a_tool_is_called_whole_and_streamed() -> None:
    async with running() as gateway, sdk(gateway) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=said(CALL), tools=[READ])
        async with client.chat.completions.stream(model=MODEL, messages=said(CALL), tools=[READ]) as stream:
            streamed = await stream.get_final_completion()
        for reply in (whole, streamed):
            (choice,) = reply.choices
            (made,) = choice.message.tool_calls or []
            assert choice.finish_reason == "tool_calls" and made.type == "function"
            assert (made.function.name, made.function.arguments) == ("read", '{"path":"a.txt"}')


async def test_tools_that_may_not_be_called_are_not_offered() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=said(CALL), tools=[READ], tool_choice="none")
        assert reply.choices[0].finish_reason == "stop" and not reply.choices[0].message.tool_calls
