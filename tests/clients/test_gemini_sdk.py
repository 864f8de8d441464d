"""The official `google-genai` package, unchanged, as a client."""

# The package types tools as functions of anything.
# pyright: reportUnknownMemberType=false

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from google import genai
from google.genai import errors, types

from qwen_proxy.ground.redact import redacted
from qwen_proxy.runtime.logs import LogOptions, Logs
from qwen_proxy.simulator import Scenario, quota
from tests.support.freed import freed
from tests.support.http import USER_KEY
from tests.support.running import Running, running

# The SDK makes a class of aiohttp's own, which aiohttp warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "qwen3.7-plus"
CALL = "[[sim agent get_weather city=Paris | say It says: {result}]] What is the weather?"


@asynccontextmanager
async def sdk(gateway: Running, key: str = USER_KEY) -> AsyncGenerator[genai.client.AsyncClient]:
    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=gateway.url))
    try:
        yield client.aio
    finally:
        await client.aio.aclose()
        client.close()


async def test_content_whole_and_streamed() -> None:
    async with running() as gateway, sdk(gateway) as client:
        thoughts = types.GenerateContentConfig(
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
        )
        reply = await client.models.generate_content(
            model=MODEL, contents="[[sim think]] [[sim say Good day]]", config=thoughts
        )
        assert (reply.text, reply.model_version) == ("Good day", MODEL)
        assert reply.candidates is not None and reply.candidates[0].finish_reason is types.FinishReason.STOP
        assert reply.parts is not None and reply.parts[0].thought
        assert reply.usage_metadata is not None and reply.usage_metadata.thoughts_token_count
        config = types.GenerateContentConfig(max_output_tokens=4)
        stream = await client.models.generate_content_stream(model=MODEL, contents="[[sim repeat 30]]", config=config)
        pieces = [piece async for piece in stream]
        assert "".join(piece.text or "" for piece in pieces).startswith("word1")
        last = pieces[-1]
        assert last.candidates is not None and last.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
        assert last.usage_metadata is not None and last.usage_metadata.candidates_token_count == 4
        assert await freed(gateway)


async def test_a_chat_keeps_its_turns() -> None:
    async with running() as gateway, sdk(gateway) as client:
        chat = client.chats.create(model=MODEL)
        async for _ in await chat.send_message_stream("[[sim say Good day]]"):
            pass
        assert len(chat.get_history(curated=True)) >= 2
        assert (await chat.send_message("[[sim say Fine]]")).text == "Fine"


async def test_the_sdk_calls_a_function_by_itself() -> None:
    async def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"18 degrees in {city}"

    async with running() as gateway, sdk(gateway) as client:
        config = types.GenerateContentConfig(tools=[get_weather])
        reply = await client.models.generate_content(model=MODEL, contents=CALL, config=config)
        assert reply.text is not None and "18 degrees in Paris" in reply.text


async def test_an_answer_of_a_schema() -> None:
    async with running() as gateway, sdk(gateway) as client:
        config = types.GenerateContentConfig(
            response_mime_type="application/json",
            response_schema=types.Schema(
                type=types.Type.OBJECT, properties={"name": types.Schema(type=types.Type.STRING)}, required=["name"]
            ),
        )
        asked = '[[sim json {"name": "Ada"}]] Who?'
        reply = await client.models.generate_content(model=MODEL, contents=asked, config=config)
        assert reply.parsed == {"name": "Ada"}


async def test_a_search_gives_its_grounds() -> None:
    async with running() as gateway, sdk(gateway) as client:
        config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
        asked = "The tides of today? [[sim search both]] [[sim say Well then]]"
        reply = await client.models.generate_content(model=MODEL, contents=asked, config=config)
        assert reply.candidates is not None and reply.candidates[0].grounding_metadata is not None
        chunks = reply.candidates[0].grounding_metadata.grounding_chunks or []
        assert [chunk.web and chunk.web.uri for chunk in chunks] == ["https://example.com/a", "https://example.org/b"]
        assert reply.candidates[0].grounding_metadata.web_search_queries


async def test_tokens_are_counted_and_models_listed_and_shown() -> None:
    async with running() as gateway, sdk(gateway) as client:
        counted = await client.models.count_tokens(model=MODEL, contents="Hello, world")
        assert counted.total_tokens is not None and counted.total_tokens > 2
        names = [model.name async for model in await client.models.list(config={"page_size": 3})]
        assert "models/Qwen3.7-Plus-thinking" in names and len(set(names)) == len(names) > 3
        shown = await client.models.get(model=MODEL)
        assert shown.name == "models/Qwen3.7-Plus" and "generateContent" in (shown.supported_actions or [])
        assert gateway.simulator.seen("completions") == []


async def test_failures_are_googles_also_in_the_middle_of_a_stream() -> None:
    async with running(Scenario(faults=[quota(num=6)])) as gateway, sdk(gateway) as client:
        with pytest.raises(errors.ClientError) as refused:
            await client.models.generate_content(model=MODEL, contents="hello")
        assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
    async with running() as gateway, sdk(gateway, "sk-wrong") as stranger:
        with pytest.raises(errors.ClientError) as unknown:
            await stranger.models.generate_content(model=MODEL, contents="hello")
        assert (unknown.value.code, unknown.value.status) == (401, "UNAUTHENTICATED")
    late = Scenario(latency={"completions": 0.4})
    async with running(late, HEADER_COMMIT_SECONDS="0.1") as gateway, sdk(gateway) as client:
        with pytest.raises(errors.APIError) as broken:
            stream = await client.models.generate_content_stream(model=MODEL, contents="[[sim error RateLimited]]")
            [piece async for piece in stream]
        assert broken.value.code == 429


async def test_a_key_in_the_query_is_taken_here_only_and_is_not_logged() -> None:
    said = io.StringIO()
    body = {"contents": [{"parts": [{"text": "[[sim say Good day]]"}]}]}
    with Logs(LogOptions(level="DEBUG", redact=redacted), said):
        async with running() as gateway:
            headers = {"Authorization": "Bearer sk-wrong"}
            path = f"{gateway.url}/v1beta/models/{MODEL}:streamGenerateContent"
            async with gateway.client.post(f"{path}?key={USER_KEY}", json=body, headers=headers) as response:
                assert response.status == 200 and response.content_type == "application/json"
                chunks = await response.json()
                assert "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks) == "Good day"
            async with gateway.client.get(f"{gateway.url}/v1/models?key={USER_KEY}", headers=headers) as response:
                assert response.status == 401
    assert "request" in said.getvalue() and USER_KEY not in said.getvalue()
