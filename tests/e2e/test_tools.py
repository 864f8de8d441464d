"""Calls of tools from a client's socket to the upstream's and back, over a simulated model that obeys its prompt."""

import json
from typing import Any

import pytest

from tests.support.running import Running, running

READ: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "Read",
        "description": "Reads a file.",
        "parameters": {
            "type": "object",
            "properties": {"file_path": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["file_path"],
        },
    },
}
CALL = '[[sim call Read {"file_path": "a.py", "limit": 3}]]'
ARGUMENTS = {"file_path": "a.py", "limit": 3}


def asked(text: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}, *more]
    return {"model": "qwen3.7-plus", "messages": messages, "tools": [READ], **fields}


class Got:
    """One reply, streamed or whole."""

    def __init__(self, text: str, calls: list[tuple[str, str]], finish: str | None, headers: dict[str, str]) -> None:
        self.text = text
        self.calls = [(name, json.loads(arguments)) for name, arguments in calls]
        self.finish = finish
        self.headers = headers


async def folded(gateway: Running, body: dict[str, Any]) -> Got:
    async with gateway.client.post("/v1/chat/completions", json=body) as response:
        told = await response.json()
        assert response.status == 200, told
        message = told["choices"][0]["message"]
        made: list[dict[str, Any]] = message.get("tool_calls") or []
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in made]
        return Got(message["content"] or "", calls, told["choices"][0]["finish_reason"], dict(response.headers))


async def streamed(gateway: Running, body: dict[str, Any]) -> Got:
    text, finish = "", None
    calls: dict[int, list[str]] = {}
    async with gateway.client.post("/v1/chat/completions", json=body | {"stream": True}) as response:
        assert response.status == 200, await response.text()
        headers = dict(response.headers)
        for frame in (await response.text()).split("\n\n"):
            if not frame.startswith("data: {"):
                continue
            told = json.loads(frame.removeprefix("data: "))
            assert "error" not in told, told
            for choice in told["choices"]:
                delta: dict[str, Any] = choice["delta"]
                text += delta.get("content") or ""
                finish = choice["finish_reason"] or finish
                pieces: list[dict[str, Any]] = delta.get("tool_calls") or []
                for piece in pieces:
                    known = calls.setdefault(piece["index"], ["", ""])
                    known[0] += piece["function"].get("name") or ""
                    known[1] += piece["function"].get("arguments") or ""
    return Got(text, [(name, arguments) for name, arguments in calls.values()], finish, headers)


async def both(gateway: Running, body: dict[str, Any]) -> Got:
    """The reply, which is the same streamed and whole."""
    one, other = await streamed(gateway, body), await folded(gateway, body)
    assert (one.text, one.calls, one.finish) == (other.text, other.calls, other.finish)
    return one


async def test_a_tool_is_called_and_its_result_is_answered() -> None:
    async with running() as gateway:
        got = await both(gateway, asked(CALL))
        assert (got.text, got.calls, got.finish) == ("", [("Read", ARGUMENTS)], "tool_calls")
        call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": json.dumps(ARGUMENTS)}}
        turns = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "print(1)"},
        ]
        answer = await both(gateway, asked(CALL, *turns))
        assert (answer.text, answer.calls, answer.finish) == ("The tool Read said: print(1)", [], "stop")


@pytest.mark.parametrize(
    "form", ["hermes", "coder", "function", "invoke", "cdata", "bracket", "bare", "fenced", "native"]
)
async def test_calls_in_forms_that_were_not_taught_are_read(form: str) -> None:
    async with running() as gateway:
        got = await both(gateway, asked(f"{CALL} [[sim form {form}]]"))
        assert (got.calls, got.finish) == ([("Read", ARGUMENTS)], "tool_calls")
