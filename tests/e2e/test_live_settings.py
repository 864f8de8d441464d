"""Settings changed while the server runs: what comes next is served by the new ones."""

import logging

from aiohttp import ClientSession

from tests.support.replies import PATH, folded, refusal
from tests.support.running import Running, ask, running

THINKING = {"model": "qwen3.7-plus-thinking"}


async def change(gateway: Running, **values: str | None) -> None:
    await gateway.live.change(values, by="the test")


async def ids(gateway: Running) -> list[str]:
    async with gateway.client.get("/v1/models") as response:
        return [model["id"] for model in (await response.json())["data"]]


async def test_reasoning_is_shown_hidden_and_put_into_the_text() -> None:
    async with running() as gateway:
        body = ask("hello") | THINKING
        assert (await folded(gateway, body))["choices"][0]["message"]["reasoning_content"]
        await change(gateway, LEGACY_REASONING_IN_CONTENT="true")
        message = (await folded(gateway, body))["choices"][0]["message"]
        assert message["content"].startswith("<think>") and "reasoning_content" not in message
        await change(gateway, OUTPUT_THINK="false")
        message = (await folded(gateway, body))["choices"][0]["message"]
        assert "<think>" not in message["content"] and "reasoning_content" not in message
        await change(gateway, OUTPUT_THINK=None, LEGACY_REASONING_IN_CONTENT=None)
        assert (await folded(gateway, body))["choices"][0]["message"]["reasoning_content"]


async def test_the_model_list_and_its_aliases_follow() -> None:
    async with running() as gateway:
        assert "Qwen3.7-Plus-thinking" in await ids(gateway)
        await change(gateway, SIMPLE_MODEL_MAP="true", MODEL_NAMES="id", MODEL_MAP="gpt-*=qwen3.8-max")
        assert (await ids(gateway))[:2] == ["qwen3.7-plus", "qwen3.8-max"]
        assert (await folded(gateway, ask() | {"model": "gpt-9"}))["model"] == "qwen3.8-max"


async def test_what_a_request_may_ask_for_follows() -> None:
    async with running() as gateway:
        await change(gateway, MAX_CHOICES="1", STRICT_FIELDS="true")
        for body, param in ((ask(n=2), "n"), (ask(temperature=1), "temperature")):
            async with gateway.client.post(PATH, json=body) as response:
                assert (await refusal(response))[::2] == (400, param)


async def test_the_open_model_list_can_be_closed() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger:
        async with stranger.get("/models") as response:
            assert response.status == 200
        await change(gateway, MODELS_OPEN="false")
        async with stranger.get("/models") as response:
            assert response.status == 401


async def test_chats_are_kept_from_now_on() -> None:
    async with running() as gateway:
        await change(gateway, CHAT_CLEANUP="keep")
        await folded(gateway, ask())
    assert gateway.simulator.seen("chat_delete") == []


async def test_the_log_level_follows() -> None:
    root = logging.getLogger()
    before = root.level
    try:
        async with running() as gateway:
            await change(gateway, LOG_LEVEL="ERROR")
            assert root.level == logging.ERROR
            await change(gateway, LOG_LEVEL=None)
            assert root.level == logging.INFO
    finally:
        root.setLevel(before)
