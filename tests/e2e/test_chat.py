"""A chat from a client's socket to the upstream's and back."""

import json

from tests.support.running import ask, running


async def test_a_chat_is_answered_streamed_and_folded_alike() -> None:
    async with running() as gateway:
        async with gateway.client.post("/v1/chat/completions", json=ask()) as response:
            assert response.status == 200
            folded = (await response.json())["choices"][0]["message"]["content"]
        async with gateway.client.post("/v1/chat/completions", json=ask(stream=True)) as response:
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            frames = (await response.text()).split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
        streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert streamed == folded != ""
        assert gateway.simulator.warnings == []
        assert gateway.leases() == 0
