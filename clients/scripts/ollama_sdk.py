"""Ollama's client for Python."""

from ollama import Client
from scenarios import CALL_WEATHER, CITY, KEY, MODEL, URL, WEATHER, equal, holds, run

client = Client(host=URL, headers={"Authorization": f"Bearer {KEY}"})
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def lists_models():
    holds([model.model for model in client.list().models], MODEL)


def chats():
    reply = client.chat(model=MODEL, messages=[{"role": "user", "content": "[[sim say Hello]]"}])
    equal(reply.message.content, "Hello")
    assert reply.done


def streams():
    pieces = list(client.chat(model=MODEL, messages=[{"role": "user", "content": "[[sim repeat 30]]"}], stream=True))
    holds("".join(piece.message.content or "" for piece in pieces), "word30")
    assert pieces[-1].done


def generates():
    equal(client.generate(model=MODEL, prompt="[[sim say Hello]]").response, "Hello")


def calls_a_tool_and_uses_its_result():
    messages = [{"role": "user", "content": CALL_WEATHER}]
    first = client.chat(model=MODEL, messages=messages, tools=[TOOL])
    (call,) = first.message.tool_calls
    equal(dict(call.function.arguments), {"city": CITY})
    messages += [first.message, {"role": "tool", "tool_name": "get_weather", "content": WEATHER}]
    holds(client.chat(model=MODEL, messages=messages, tools=[TOOL]).message.content, WEATHER)


run(lists_models, chats, streams, generates, calls_a_tool_and_uses_its_result)
