"""Tools and structured output of `/v1/responses` with the official `openai` package, over a simulated model that obeys
its prompt."""

from typing import Any

from pydantic import BaseModel

from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.running import running

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PATCH: Any = {"type": "custom", "name": "apply_patch", "description": "Changes files."}
AGENTS: Any = {"type": "namespace", "name": "agents", "description": "Others.", "tools": [WEATHER]}
CALL = '[[sim call get_weather {"city": "Oslo"}]]'


class Person(BaseModel):
    name: str
    age: int


def result(call_id: str, text: str, kind: str = "function_call_output") -> Any:
    return [{"type": kind, "call_id": call_id, "output": text}]


async def test_a_call_comes_streamed_and_whole_and_its_result_is_answered() -> None:
    async with running() as gateway, sdk(gateway) as client:
        whole = await client.responses.create(model=MODEL, input=CALL, tools=[WEATHER])
        async with client.responses.stream(model=MODEL, input=CALL, tools=[WEATHER]) as stream:
            deltas = [e.delta async for e in stream if e.type == "response.function_call_arguments.delta"]
            streamed = await stream.get_final_response()
        for reply in (whole, streamed):
            call = reply.output[-1]
            assert call.type == "function_call" and call.name == "get_weather" and call.status == "completed"
            assert call.arguments.replace(" ", "") == '{"city":"Oslo"}'
        call = streamed.output[-1]
        assert call.type == "function_call" and "".join(deltas) == call.arguments
        answer = await client.responses.create(
            model=MODEL, input=result(call.call_id, "12 degrees"), previous_response_id=streamed.id, tools=[WEATHER]
        )
        assert "12 degrees" in answer.output_text


async def test_a_freeform_call_brings_its_text_as_it_is() -> None:
    async with running() as gateway, sdk(gateway) as client:
        asked = r'[[sim call apply_patch {"input": "*** Begin\n+ \"x\" \\n\n*** End"}]]'
        async with client.responses.stream(model=MODEL, input=asked, tools=[PATCH]) as stream:
            deltas = [e.delta async for e in stream if e.type == "response.custom_tool_call_input.delta"]
            streamed = await stream.get_final_response()
        call = streamed.output[-1]
        assert call.type == "custom_tool_call" and call.name == "apply_patch"
        assert call.input == "".join(deltas) == '*** Begin\n+ "x" \\n\n*** End'
        answer = await client.responses.create(
            model=MODEL,
            input=result(call.call_id, "patched", "custom_tool_call_output"),
            previous_response_id=streamed.id,
            tools=[PATCH],
        )
        assert "patched" in answer.output_text


async def test_a_call_of_a_namespace_comes_back_with_it() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.responses.create(model=MODEL, input=CALL, tools=[AGENTS], store=False)
        call = reply.output[-1]
        assert call.type == "function_call" and (call.name, call.namespace) == ("get_weather", "agents")


async def test_a_search_has_its_item_and_its_events_and_is_taken_back() -> None:
    script = "The tides of today? [[sim search both]] [[sim say Well then]]"
    async with running() as gateway, sdk(gateway) as client:
        tools: Any = [{"type": "web_search"}]
        async with client.responses.stream(
            model=MODEL, input=script, tools=tools, include=["web_search_call.action.sources"]
        ) as stream:
            told = [event async for event in stream if event.type.startswith("response.web_search_call.")]
            final = await stream.get_final_response()
        assert [event.type.removeprefix("response.web_search_call.") for event in told] == [
            "in_progress",
            "searching",
            "completed",
        ]
        search, message = final.output
        assert search.type == "web_search_call" and search.action.type == "search" and search.status == "completed"
        assert search.action.query and search.action.queries == [search.action.query]
        assert search.action.sources and message.type == "message"
        cited: Any = message.content[0].to_dict()
        assert [source.url for source in search.action.sources] == [each["url"] for each in cited["annotations"]]
        stored = await client.responses.retrieve(final.id)
        assert stored.output[0] == search and stored.output_text == final.output_text
        whole = await client.responses.create(model=MODEL, input=script, tools=tools)
        found = whole.output[0]
        assert found.type == "web_search_call" and found.action.type == "search" and found.action.sources is None
        # back as a part of the history: by the response's id, by a reference, and as it is
        reference: Any = {"type": "item_reference", "id": search.id}
        histories: list[Any] = [
            {"previous_response_id": final.id, "input": "hello"},
            {"input": [{"role": "user", "content": "a"}, reference, {"role": "user", "content": "hello"}]},
            {"input": [*(item.to_dict() for item in final.output), {"role": "user", "content": "hello"}]},
        ]
        asking: Any = client.responses.with_raw_response.create
        for history in histories:
            answer = await asking(model=MODEL, **history)
            assert "x-qwen-proxy-ignored" not in answer.headers
            assert answer.parse().status == "completed"


async def test_a_tool_that_has_to_be_called_is() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.responses.create(model=MODEL, input=CALL, tools=[WEATHER], tool_choice="required")
        assert reply.output[-1].type == "function_call"
        none = await client.responses.create(model=MODEL, input=CALL, tools=[WEATHER], tool_choice="none")
        assert all(item.type != "function_call" for item in none.output)


async def test_a_call_in_the_background() -> None:
    async with running() as gateway, sdk(gateway) as client:
        made = await client.responses.create(model=MODEL, input=CALL, tools=[WEATHER], background=True)
        events = [event async for event in await client.responses.retrieve(made.id, stream=True)]
        assert events[-1].type == "response.completed"
        assert events[-1].response.output[-1].type == "function_call"


async def test_the_sdk_parses_a_reply_that_has_a_schema() -> None:
    async with running() as gateway, sdk(gateway) as client:
        asked = '[[sim json {"name": "Ada", "age": 36}]]'
        parsed = await client.responses.parse(model=MODEL, input=asked, text_format=Person)
        assert parsed.output_parsed == Person(name="Ada", age=36)
        async with client.responses.stream(model=MODEL, input=asked, text_format=Person) as stream:
            assert (await stream.get_final_response()).output_parsed == Person(name="Ada", age=36)
