"""Custom tools of chat completions with the official `openai` package, over a simulated model that obeys its prompt."""

from typing import Any

import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.clients.test_openai_sdk import MODEL, sdk
from tests.support.openai_server import OpenAIServer
from tests.support.running import running

PATCH: Any = {"type": "custom", "custom": {"name": "apply_patch", "description": "Changes files."}}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TEXT = '*** Begin\n+ "x" \\n\n*** End </tool_call>'
CALL = rf"[[sim call apply_patch {msgspec.json.encode({'input': TEXT}).decode()}]]"


def said(text: str) -> Any:
    return {"role": "user", "content": text}


def call_of(reply: ChatCompletion) -> tuple[str, str, str]:
    """Its id, name and input."""
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "custom"
    return call.id, call.custom.name, call.custom.input


async def test_a_call_comes_as_its_text_and_its_result_is_answered() -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=[said(CALL)], tools=[PATCH, WEATHER])
        call_id, name, text = call_of(reply)
        assert (name, text) == ("apply_patch", TEXT)
        history: Any = [
            said(CALL),
            reply.choices[0].message.to_dict(),
            {"role": "tool", "tool_call_id": call_id, "content": "patched"},
        ]
        answer = await client.chat.completions.create(model=MODEL, messages=history, tools=[PATCH, WEATHER])
        assert "patched" in (answer.choices[0].message.content or "")


async def test_a_streamed_call_comes_in_pieces_of_its_text() -> None:
    async with running() as gateway, sdk(gateway) as client:
        pieces: list[dict[str, Any]] = []
        finish = None
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=[said(CALL)], tools=[PATCH], stream=True
        ):
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                pieces += [piece.to_dict() for piece in choice.delta.tool_calls or []]
        assert finish == "tool_calls"
        first, *rest = pieces
        assert (first["index"], first["type"]) == (0, "custom")
        assert first["id"]
        assert first["custom"] == {"name": "apply_patch", "input": ""}
        assert "".join(piece["custom"]["input"] for piece in rest) == TEXT


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "custom", "custom": {"name": "apply_patch"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "apply_patch"}}]},
        },
    ],
)
async def test_a_custom_tool_that_has_to_be_called_is(choice: Any) -> None:
    async with running() as gateway, sdk(gateway) as client:
        reply = await client.chat.completions.create(
            model=MODEL, messages=[said(CALL)], tools=[WEATHER, PATCH], tool_choice=choice
        )
        assert call_of(reply)[1:] == ("apply_patch", TEXT)


async def test_a_backend_with_tools_of_its_own_is_offered_a_function_with_one_text() -> None:
    async with OpenAIServer("sk-1") as server:
        form = [{"name": "studio", "base_url": server.base_url, "keys": ["sk-1"]}]
        async with running(BACKENDS=msgspec.json.encode(form).decode()) as gateway, sdk(gateway) as client:
            tool: Any = {"type": "custom", "custom": {"name": "weather"}}
            reply = await client.chat.completions.create(
                model="m-1",
                messages=[said("[[recording function_call]]")],
                tools=[tool],
                tool_choice={"type": "custom", "custom": {"name": "weather"}},
            )
        (asked,) = server.asked
        (offered,) = asked["tools"]
        assert offered["type"] == "function"
        assert list(offered["function"]["parameters"]["properties"]) == ["input"]
        assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
        assert call_of(reply)[1:] == ("weather", '{"city":"Paris"}')  # not the form that was asked for: all of it


async def test_what_is_wrong_with_a_custom_tool_is_named() -> None:
    async with running() as gateway, sdk(gateway) as client:
        wrong: Any = {"type": "custom", "custom": {"name": "x", "format": {"type": "xml"}}}
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=MODEL, messages=[said("a")], tools=[wrong])
        assert caught.value.param == "tools[0].custom.format.type"
