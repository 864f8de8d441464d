"""A chat completions reply, read by hand: what an SDK would make of it, and what it would not notice."""

import json
from typing import Any

import aiohttp

from tests.support.running import Running

PATH = "/v1/chat/completions"
Json = dict[str, Any]  # JSON enters here


async def folded(gateway: Running, body: dict[str, object]) -> Json:
    async with gateway.client.post(PATH, json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def chunks(gateway: Running, body: dict[str, object]) -> list[Json]:
    """The stream's chunks, without the closing `[DONE]`, which must be there."""
    async with gateway.client.post(PATH, json=body | {"stream": True}) as response:
        assert response.status == 200, await response.text()
        frames = (await response.text()).split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2] if not frame.startswith(":")]


def joined(stream: list[Json]) -> list[Json]:
    """The stream's choices as a folded reply has them: `message` and `finish_reason`."""
    choices: dict[int, Json] = {}
    for chunk in stream:
        for piece in chunk["choices"]:
            choice = choices.setdefault(piece["index"], {"message": {"content": ""}, "finish_reason": None})
            for name, value in piece["delta"].items():
                if name == "annotations":
                    choice["message"].setdefault(name, []).extend(_without_index(each) for each in value)
                elif name == "role":
                    choice["message"][name] = value
                else:
                    choice["message"][name] = choice["message"].get(name, "") + value
            choice["finish_reason"] = piece["finish_reason"] or choice["finish_reason"]
    return [choices[index] for index in sorted(choices)]


def _without_index(annotation: Json) -> Json:
    return {name: value for name, value in annotation.items() if name != "index"}


async def refusal(response: aiohttp.ClientResponse) -> tuple[int, str | None, str | None]:
    """Status, `code` and `param` of an error reply, which must have OpenAI's shape."""
    assert response.headers["Content-Type"].startswith("application/json")
    error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert response.headers["x-request-id"]
    return response.status, error["code"], error["param"]
