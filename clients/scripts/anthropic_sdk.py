"""The official Anthropic SDK for Python: messages, streams, the tool runner, structured output, counting."""

import anthropic
from pydantic import BaseModel
from scenarios import CALL_WEATHER, CITY, DAMAGED, KEY, MODEL, PERSON, URL, WEATHER, equal, holds, run

client = anthropic.Anthropic(base_url=URL, api_key=KEY)
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Person(BaseModel):
    name: str
    age: int


def ask(text, **more):
    return client.messages.create(model=MODEL, max_tokens=1000, messages=[{"role": "user", "content": text}], **more)


def lists_models():
    page = client.models.list()
    holds([model.id for model in page.data], MODEL)
    assert page.data[0].display_name


def chats():
    reply = ask("[[sim say Hello]]")
    equal(reply.content[0].text, "Hello")
    equal(reply.stop_reason, "end_turn")
    assert reply.usage.input_tokens > 0


def streams_with_its_helper():
    with client.messages.stream(
        model=MODEL, max_tokens=1000, messages=[{"role": "user", "content": "[[sim repeat 30]]"}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    equal(final.content[0].text, text)
    holds(text, "word30")


def thinks():
    reply = ask("[[sim think]] Hello", thinking={"type": "enabled", "budget_tokens": 1024})
    equal(reply.content[0].type, "thinking")
    assert reply.content[0].signature


def calls_a_tool_and_uses_its_result():
    first = ask(CALL_WEATHER, tools=[TOOL])
    equal(first.stop_reason, "tool_use")
    (call,) = [block for block in first.content if block.type == "tool_use"]
    equal(call.input, {"city": CITY})
    second = client.messages.create(
        model=MODEL,
        max_tokens=1000,
        tools=[TOOL],
        messages=[
            {"role": "user", "content": CALL_WEATHER},
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": WEATHER}]},
        ],
    )
    holds(second.content[-1].text, WEATHER)


def streams_a_tool_call():
    with client.messages.stream(
        model=MODEL, max_tokens=1000, tools=[TOOL], messages=[{"role": "user", "content": CALL_WEATHER}]
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert pieces
    equal(final.content[-1].input, {"city": CITY})


def mends_a_damaged_call():
    reply = ask(DAMAGED, tools=[TOOL])
    equal(reply.content[-1].input, {"city": CITY})


def runs_tools_with_its_runner():
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        return f"18 degrees and rain in {city}"

    runner = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=1000, tools=[get_weather], messages=[{"role": "user", "content": CALL_WEATHER}]
    )
    holds(runner.until_done().content[-1].text, WEATHER)


def parses_structured_output():
    reply = client.messages.parse(
        model=MODEL, max_tokens=1000, messages=[{"role": "user", "content": PERSON}], output_format=Person
    )
    equal(reply.parsed_output, Person(name="Ada", age=36))


def counts_tokens():
    counted = client.messages.count_tokens(
        model=MODEL, system="Be brief.", tools=[TOOL], messages=[{"role": "user", "content": "Hello, world"}]
    )
    assert 10 < counted.input_tokens < 1000, counted


def tells_an_unknown_model():
    try:
        client.messages.create(model="nonsense-9", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    except anthropic.NotFoundError as error:
        equal(error.body["error"]["type"], "not_found_error")
    else:
        raise AssertionError("no error")


run(
    lists_models,
    chats,
    streams_with_its_helper,
    thinks,
    calls_a_tool_and_uses_its_result,
    streams_a_tool_call,
    mends_a_damaged_call,
    runs_tools_with_its_runner,
    parses_structured_output,
    counts_tokens,
    tells_an_unknown_model,
)
