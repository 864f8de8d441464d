"""The official OpenAI SDK for Python: chat completions and responses."""

import json

from openai import NotFoundError, OpenAI
from pydantic import BaseModel
from scenarios import CALL_WEATHER, CITY, DAMAGED, KEY, MODEL, PERSON, URL, WEATHER, equal, holds, run

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
FLAT_TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}


class Person(BaseModel):
    name: str
    age: int


def lists_models():
    holds([model.id for model in client.models.list()], MODEL)


def chats():
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "[[sim say Hello]]"}])
    equal(reply.choices[0].message.content, "Hello")
    equal(reply.choices[0].finish_reason, "stop")


def streams_with_its_helper():
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "[[sim repeat 30]]"}],
        stream_options={"include_usage": True},
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    equal(final.choices[0].message.content, text)
    holds(text, "word30")
    assert final.usage is not None and final.usage.completion_tokens > 30


def calls_a_tool_and_uses_its_result():
    messages = [{"role": "user", "content": CALL_WEATHER}]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    (call,) = first.choices[0].message.tool_calls
    equal(first.choices[0].finish_reason, "tool_calls")
    equal(json.loads(call.function.arguments), {"city": CITY})
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    holds(second.choices[0].message.content, WEATHER)


def streams_a_tool_call():
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": CALL_WEATHER}], tools=[TOOL]
    ) as stream:
        kinds = [event.type for event in stream]
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    holds(kinds, "tool_calls.function.arguments.delta")
    equal(json.loads(call.function.arguments), {"city": CITY})


def mends_a_damaged_call():
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": DAMAGED}], tools=[TOOL])
    (call,) = reply.choices[0].message.tool_calls
    equal(json.loads(call.function.arguments), {"city": CITY})


def forces_a_tool():
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": CALL_WEATHER}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    equal(reply.choices[0].message.tool_calls[0].function.name, "get_weather")


def parses_structured_output():
    reply = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": PERSON}], response_format=Person
    )
    equal(reply.choices[0].message.parsed, Person(name="Ada", age=36))


def tells_an_unknown_model():
    try:
        client.chat.completions.create(model="nonsense-9", messages=[{"role": "user", "content": "x"}])
    except NotFoundError as error:
        equal(error.code, "model_not_found")
    else:
        raise AssertionError("no error")


def responds():
    reply = client.responses.create(model=MODEL, input="[[sim say Hello]]")
    equal(reply.output_text, "Hello")
    equal(reply.status, "completed")


def streams_a_response():
    with client.responses.stream(model=MODEL, input="[[sim repeat 30]]") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    equal(final.output_text, text)
    holds(text, "word30")


def calls_a_tool_in_a_response():
    first = client.responses.create(model=MODEL, input=CALL_WEATHER, tools=[FLAT_TOOL])
    (call,) = [item for item in first.output if item.type == "function_call"]
    equal(json.loads(call.arguments), {"city": CITY})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": WEATHER}
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input=[result], tools=[FLAT_TOOL])
    holds(second.output_text, WEATHER)


def parses_a_response():
    reply = client.responses.parse(model=MODEL, input=PERSON, text_format=Person)
    equal(reply.output_parsed, Person(name="Ada", age=36))


def runs_in_the_background():
    import time

    reply = client.responses.create(model=MODEL, input="[[sim say Hello]]", background=True)
    for _ in range(100):
        if reply.status not in ("queued", "in_progress"):
            break
        time.sleep(0.1)
        reply = client.responses.retrieve(reply.id)
    equal(reply.status, "completed")
    equal(reply.output_text, "Hello")


run(
    lists_models,
    chats,
    streams_with_its_helper,
    calls_a_tool_and_uses_its_result,
    streams_a_tool_call,
    mends_a_damaged_call,
    forces_a_tool,
    parses_structured_output,
    tells_an_unknown_model,
    responds,
    streams_a_response,
    calls_a_tool_in_a_response,
    parses_a_response,
    runs_in_the_background,
)
