"""Names, routes and the headers that tell who answered, through the whole program."""

from tests.support.asking import streamed, whole
from tests.support.http import ADMIN_KEY
from tests.support.running import Running, running

BACKEND = "x-qwen-proxy-backend"
MODEL = "x-qwen-proxy-model"


async def served(gateway: Running, model: str) -> tuple[int, str | None, str | None]:
    """Status, backend and model, which are the same whole and streamed."""
    folded = await whole(gateway, "hello", model=model)
    flowing = await streamed(gateway, "hello", model=model)
    told = [(reply.status, reply.headers.get(BACKEND), reply.headers.get(MODEL)) for reply in (folded, flowing)]
    assert told[0] == told[1]
    return told[0]


async def test_an_answer_tells_its_backend_and_model() -> None:
    async with running(MODEL_ROUTES="fast=web:qwen3.6-flash;best=gone:m,web:Qwen3.8-Max") as gateway:
        assert await served(gateway, "Qwen3.7-Plus-Thinking") == (200, "web", "qwen3.7-plus")
        assert await served(gateway, "web/qwen3.8-max") == (200, "web", "qwen3.8-max")
        assert await served(gateway, "best") == (200, "web", "qwen3.8-max")
        assert await served(gateway, "claude-opus-5") == (200, "web", "qwen3.7-plus")


async def test_several_choices_tell_it_too() -> None:
    async with running() as gateway:
        for reply in (await whole(gateway, "hello", n=2), await streamed(gateway, "hello", n=2)):
            assert (reply.status, reply.headers.get(BACKEND)) == (200, "web")


async def test_routes_are_listed_and_found_by_name() -> None:
    async with running(MODEL_ROUTES="quick=web:qwen3.7-plus") as gateway:
        async with gateway.client.get("/v1/models") as response:
            listed = (await response.json())["data"]
        assert (listed[0]["backend"], listed[0]["owned_by"]) == ("web", "qwen")
        assert (listed[-1]["id"], listed[-1]["backend"], listed[-1]["upstream_id"]) == (
            "quick",
            "route",
            "qwen3.7-plus",
        )
        async with gateway.client.get("/v1/models/quick") as response:
            assert (await response.json())["id"] == "quick"
        async with gateway.client.get("/v1/models/web/qwen3.7-plus") as response:
            assert (await response.json())["id"] == "Qwen3.7-Plus"


async def test_a_change_of_routes_holds_at_once() -> None:
    async with running() as gateway:
        admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
        assert (await whole(gateway, "hello", model="mine")).status == 404
        body = {"values": {"MODEL_ROUTES": {"mine": ["web:qwen3.8-max"]}, "OTHER_MODEL_NAMES": "off"}}
        async with gateway.client.patch("/api/admin/settings", json=body, headers=admin) as response:
            assert response.status == 200, await response.text()
        assert await served(gateway, "mine") == (200, "web", "qwen3.8-max")
        assert (await whole(gateway, "hello", model="claude-opus-5")).status == 404
