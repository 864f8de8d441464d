"""The official `ollama` package, unchanged, as a client."""

# The package types tools as functions of anything.
# pyright: reportUnknownMemberType=false

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import ollama
import pytest

from qwen_proxy.simulator import Scenario, quota
from tests.support.freed import freed
from tests.support.http import USER_KEY
from tests.support.running import Running, running

MODEL = "qwen3.7-plus"


@asynccontextmanager
async def sdk(gateway: Running, key: str = USER_KEY) -> AsyncGenerator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=gateway.url, headers={"Authorization": f"Bearer {key}"})
    try:
        yield client
    finally:
        await client.close()


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def test_chat_whole_and_streamed_with_its_numbers() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat(model=MODEL, messages=said("[[sim think]] [[sim say Good day]]"), think=True)
        assert (reply.message.content, reply.done_reason, reply.model) == ("Good day", "stop", MODEL)
        assert reply.message.thinking and reply.prompt_eval_count and reply.eval_count
        assert reply.total_duration is not None and reply.total_duration > 0
        stream: AsyncIterator[ollama.ChatResponse] = await client.chat(
            model=MODEL, messages=said("[[sim repeat 30]]"), stream=True, options={"num_predict": 4}
        )
        pieces = [piece async for piece in stream]
        assert "".join(piece.message.content or "" for piece in pieces).startswith("word1")
        assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert (pieces[-1].done_reason, pieces[-1].eval_count) == ("length", 4)
        assert await freed(gateway)


async def test_generate_and_loading() -> None:
    async with running() as gateway, sdk(gateway) as client:
        assert (await client.generate(model=MODEL, prompt="[[sim say Good day]]")).response == "Good day"
        loaded = await client.generate(model=MODEL)
        assert (loaded.response, loaded.done_reason) == ("", "load")
        assert len(gateway.simulator.seen("completions")) == 1


async def test_models_are_listed_and_shown_and_none_is_loaded() -> None:
    async with running() as gateway, sdk(gateway) as client:
        names = [model.model for model in (await client.list()).models]
        assert "Qwen3.7-Plus-thinking" in names
        shown = await client.show("Qwen3.7-Plus:latest")
        assert shown.capabilities is not None and "tools" in shown.capabilities
        assert (await client.ps()).models == []
        with pytest.raises(ollama.ResponseError) as missing:
            await client.show("llama3.2")
        assert missing.value.status_code == 404


async def test_failures_are_sentences_also_in_the_middle_of_a_stream() -> None:
    async with running(Scenario(faults=[quota(num=6)])) as gateway, sdk(gateway) as client:
        with pytest.raises(ollama.ResponseError) as refused:
            await client.chat(model=MODEL, messages=said("hello"))
        assert refused.value.status_code == 429
    async with running() as gateway, sdk(gateway) as client, sdk(gateway, "sk-wrong") as stranger:
        with pytest.raises(ollama.ResponseError) as unknown:
            await stranger.chat(model=MODEL, messages=said("hello"))
        assert unknown.value.status_code == 401
        with pytest.raises(ollama.ResponseError) as unoffered:
            await client.embed(model=MODEL, input="hello")
        assert unoffered.value.status_code == 501
    late = Scenario(latency={"completions": 0.4})
    async with running(late, HEADER_COMMIT_SECONDS="0.1", HEARTBEAT_SECONDS="0.05") as gateway, sdk(gateway) as client:
        stream: AsyncIterator[ollama.ChatResponse] = await client.chat(
            model=MODEL, messages=said("[[sim error RateLimited]]"), stream=True
        )
        with pytest.raises(ollama.ResponseError) as broken:
            [piece async for piece in stream]
        assert "quota" in broken.value.error


async def test_a_tool_is_called_and_its_result_told() -> None:
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        return f"18 degrees in {city}"

    async with running() as gateway, sdk(gateway) as client:
        messages = said("[[sim agent get_weather city=Paris | say It says: {result}]] What is the weather?")
        first = await client.chat(model=MODEL, messages=messages, tools=[get_weather])
        assert first.message.tool_calls is not None
        (call,) = first.message.tool_calls
        assert (call.function.name, dict(call.function.arguments)) == ("get_weather", {"city": "Paris"})
        result = {"role": "tool", "tool_name": "get_weather", "content": get_weather(**call.function.arguments)}
        reply = await client.chat(model=MODEL, messages=[*messages, first.message, result], tools=[get_weather])
        assert "18 degrees in Paris" in (reply.message.content or "")


async def test_an_answer_of_a_schema() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.generate(model=MODEL, prompt='[[sim json {"name": "Ada"}]] Who?', format=schema)
        assert msgspec.json.decode(reply.response or "") == {"name": "Ada"}
