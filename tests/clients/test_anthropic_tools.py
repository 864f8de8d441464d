"""Tools and structured output with the official `anthropic` package, over a simulated model that obeys its prompt."""

from typing import Any

import anthropic
from anthropic import beta_async_tool
from anthropic.types import Message, MessageParam, ToolParam
from pydantic import BaseModel

from tests.support.http import USER_KEY
from tests.support.running import Running, running

MODEL = "qwen3.7-plus"
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '[[sim call get_weather {"city": "Oslo"}]]'


class Person(BaseModel):
    name: str
    age: int


def said(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def sdk(gateway: Running) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=USER_KEY, max_retries=0)


def calls(reply: Message) -> list[tuple[str, dict[str, object]]]:
    return [(block.name, block.input) for block in reply.content if block.type == "tool_use"]


def texts(reply: Message) -> str:
    return "".join(block.text for block in reply.content if block.type == "text")


async def test_a_call_comes_streamed_and_whole_and_its_result_is_answered() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said(CALL)
        whole = await client.messages.create(model=MODEL, max_tokens=500, messages=messages, tools=[WEATHER])
        async with client.messages.stream(model=MODEL, max_tokens=500, messages=messages, tools=[WEATHER]) as stream:
            pieces = [event.partial_json async for event in stream if event.type == "input_json"]
            streamed = await stream.get_final_message()
        for reply in (whole, streamed):
            assert reply.stop_reason == "tool_use"
            assert calls(reply) == [("get_weather", {"city": "Oslo"})]
        assert "".join(pieces).replace(" ", "") == '{"city":"Oslo"}'
        call = streamed.content[-1]
        assert call.type == "tool_use" and call.id.startswith("toolu_")
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees, rain"}
        again: list[MessageParam] = [*messages, streamed.to_param(), {"role": "user", "content": [result]}]
        answer = await client.messages.create(model=MODEL, max_tokens=500, messages=again, tools=[WEATHER])
        assert "12 degrees, rain" in texts(answer)
        assert answer.stop_reason == "end_turn"


async def test_thinking_and_a_call_come_together() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.messages.create(
            model=MODEL,
            max_tokens=4000,
            messages=said(f"[[sim think]] {CALL}"),
            tools=[WEATHER],
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
        assert [block.type for block in reply.content] == ["thinking", "tool_use"]


async def test_a_tool_that_has_to_be_called_is() -> None:
    async with running() as gateway, sdk(gateway) as client:
        wishes: list[Any] = [
            {"type": "any"},
            {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        ]
        for wish in wishes:
            reply = await client.messages.create(
                model=MODEL, max_tokens=500, messages=said(CALL), tools=[WEATHER], tool_choice=wish
            )
            assert calls(reply) == [("get_weather", {"city": "Oslo"})]


async def test_the_tool_runner_goes_on_without_a_thread_to_the_answer() -> None:
    asked: list[str] = []

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """Weather of a city."""
        asked.append(city)
        return f"It rains in {city}"

    async with running() as gateway, sdk(gateway) as client:
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=500, messages=[{"role": "user", "content": CALL}], tools=[get_weather]
        )
        answer = await runner.until_done()
        assert asked == ["Oslo"]
        assert answer.content[-1].type == "text" and "It rains in Oslo" in answer.content[-1].text


async def test_a_tool_that_fails_is_told_to_the_model() -> None:
    async with running() as gateway, sdk(gateway) as client:
        call: Any = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
        result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such city", "is_error": True}
        messages: list[MessageParam] = [
            *said(CALL),
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
        answer = await client.messages.create(model=MODEL, max_tokens=500, messages=messages, tools=[WEATHER])
        assert "no such city" in texts(answer)


async def test_parsed_output_is_one_block_of_json_streamed_and_whole() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said('[[sim think]] [[sim json {"name": "Ada", "age": 36}]]')
        reply = await client.messages.parse(model=MODEL, max_tokens=500, messages=messages, output_format=Person)
        assert reply.parsed_output == Person(name="Ada", age=36)
        assert [block.type for block in reply.content if block.type == "text"] == ["text"]
        async with client.messages.stream(
            model=MODEL, max_tokens=500, messages=messages, output_format=Person
        ) as stream:
            assert (await stream.get_final_message()).parsed_output == Person(name="Ada", age=36)


async def test_json_that_came_in_a_fence_is_bare() -> None:
    async with running() as gateway, sdk(gateway) as client:
        messages = said('[[sim json {"name": "Ada", "age": 36}]] [[sim bad-json fence]]')
        reply = await client.messages.parse(model=MODEL, max_tokens=500, messages=messages, output_format=Person)
        assert reply.parsed_output == Person(name="Ada", age=36)
