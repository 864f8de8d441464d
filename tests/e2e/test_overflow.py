"""The site and a second server behind one gateway: who answers, when a request goes on, and what a key may spend."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import openai

from qwen_proxy.simulator import Scenario, quota
from tests.support.admin import as_admin
from tests.support.asking import Reply, streamed, whole
from tests.support.http import USER_KEY
from tests.support.openai_server import OpenAIServer, answer
from tests.support.running import Running, ask, running

BACKEND = "x-qwen-proxy-backend"
PLUS = "qwen3.7-plus"
UNAVAILABLE = answer(503, b'{"error":{"message":"down","type":"server_error","code":null,"param":null}}')


@asynccontextmanager
async def two(
    scenario: Scenario | None = None, models: tuple[str, ...] = (PLUS, "coder-model"), **settings: str
) -> AsyncGenerator[tuple[Running, OpenAIServer]]:
    async with OpenAIServer("sk-1", models=models) as server:
        form = [{"name": "studio", "base_url": server.base_url, "keys": ["sk-1"]}]
        async with running(scenario, BACKENDS=msgspec.json.encode(form).decode(), **settings) as gateway:
            async with gateway.client.get("/v1/models") as response:  # both lists are there
                assert response.status == 200
            yield gateway, server


async def both(gateway: Running, model: str = PLUS, **fields: Any) -> list[tuple[int, str | None]]:
    """Status and backend, whole and streamed."""
    replies: list[Reply] = [
        await whole(gateway, "hello", model=model, **fields),
        await streamed(gateway, "hello", model=model, **fields),
    ]
    return [(reply.status, reply.headers.get(BACKEND)) for reply in replies]


async def test_one_list_has_all_and_the_site_comes_first() -> None:
    async with two() as (gateway, server):
        async with gateway.client.get("/v1/models") as response:
            listed = {each["id"]: each["backend"] for each in (await response.json())["data"]}
        assert listed["Qwen3.7-Plus"] == "web"
        assert (listed[f"studio/{PLUS}"], listed["coder-model"]) == ("studio", "studio")
        assert "coder-model-thinking" not in listed
        assert await both(gateway) == [(200, "web")] * 2
        assert server.asked == []
        assert await both(gateway, f"studio/{PLUS}") == [(200, "studio")] * 2
        assert await both(gateway, "coder-model") == [(200, "studio")] * 2
        assert {each["model"] for each in server.asked} == {PLUS, "coder-model"}


async def test_what_the_site_has_no_quota_for_the_other_answers_and_usage_says_so() -> None:
    async with two(Scenario(faults=[quota(num=6)])) as (gateway, server):
        assert await both(gateway) == [(200, "studio")] * 2
        assert len(server.asked) == 2
        async with as_admin(gateway) as admin:
            async with admin.get(f"/api/admin/routes/explain?model={PLUS}") as response:
                told = await response.json()
            assert (told["goes_to"], told["targets"][0]["standing"]["state"]) == ("studio", "parked")
            assert told["targets"][0]["standing"]["until"] > 0
            await gateway.commons.usage.flush()
            async with admin.get("/api/admin/usage?by=account,model") as response:
                lines = (await response.json())["lines"]
        ((line),) = [line for line in lines if line["account"]]
        assert line["account"].startswith("studio/") and (line["model"], line["requests"]) == (PLUS, 2)
        assert line["failures"] == 0


async def test_it_goes_the_other_way_where_a_route_says_so() -> None:
    async with two(MODEL_ROUTES=f"{PLUS}=studio:{PLUS},web:{PLUS}") as (gateway, server):
        assert await both(gateway) == [(200, "studio")] * 2
        server.refusals["sk-1"] = lambda: UNAVAILABLE
        assert await both(gateway) == [(200, "web")] * 2
        assert await both(gateway, f"studio/{PLUS}") == [(502, None)] * 2


async def test_a_server_that_is_gone_takes_the_site_not_down() -> None:
    async with OpenAIServer("sk-1") as server:
        form = [{"name": "studio", "base_url": server.base_url, "keys": ["sk-1"]}]
        await server.stop()
        async with running(BACKENDS=msgspec.json.encode(form).decode()) as gateway:
            assert await both(gateway) == [(200, "web")] * 2
            async with gateway.client.get("/v1/models") as response:
                listed = (await response.json())["data"]
            assert {each["backend"] for each in listed} == {"web"}
        await server.start()  # its block ends it


async def test_a_key_has_a_budget_for_what_costs_money() -> None:
    async with two(MODEL_ROUTES=f"{PLUS}=studio:{PLUS},web:{PLUS}") as (gateway, server), as_admin(gateway) as admin:
        wish = {"name": "ada", "limits": {"api_tokens_per_day": 12}}
        async with admin.post("/api/admin/keys", json=wish) as response:
            made = await response.json()
        headers = {"Authorization": f"Bearer {made['secret']}"}

        async def say(model: str) -> tuple[int, str | None, dict[str, Any]]:
            body = ask("hello", model=model, max_tokens=5)
            async with gateway.client.post("/v1/chat/completions", json=body, headers=headers) as response:
                return response.status, response.headers.get(BACKEND), await response.json()

        assert (await say(PLUS))[:2] == (200, "studio")  # 8 tokens
        assert (await say(PLUS))[:2] == (200, "web")
        status, _, body = await say("coder-model")
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "API tokens per day: Limit 12, Used 8" in body["error"]["message"]
        assert len(server.asked) == 1


async def test_the_originals_cli_routes_are_served_by_apis_alone() -> None:
    async with two() as (gateway, server):
        for method in ("GET", "POST"):
            async with gateway.client.request(method, "/cli/v1/models") as response:
                body = await response.json()
            assert (response.status, body["object"]) == (200, "list")
            assert [each["id"] for each in body["data"]] == [PLUS, "coder-model"]
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/cli/v1", api_key=USER_KEY, max_retries=0) as client:
            made = await client.chat.completions.create(
                model="qwen3.5-plus", messages=[{"role": "user", "content": "hi"}]
            )
            assert (made.model, made.choices[0].message.content) == ("coder-model", "hi ")
            stream = await client.chat.completions.create(
                model=PLUS, messages=[{"role": "user", "content": "hi"}], stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            assert text == "hi "
            try:
                await client.chat.completions.create(model="qwen3.8-max", messages=[{"role": "user", "content": "hi"}])
                raise AssertionError("it is the site's")
            except openai.NotFoundError as missing:
                assert missing.code == "model_not_found"
        assert [each["model"] for each in server.asked] == ["coder-model", PLUS]
        await gateway.commons.usage.flush()
        async with as_admin(gateway) as admin, admin.get("/api/admin/usage?by=account") as response:
            (line,) = (await response.json())["lines"]
        assert line["account"].startswith("studio/") and line["requests"] == 2
