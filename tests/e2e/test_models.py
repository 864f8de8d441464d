"""The model list: both endpoints of the upstream, every spelling a client may use, and what happens when it fails."""

import asyncio

import pytest
from aiohttp import ClientResponse, ClientSession

from qwen_proxy.gateway.catalogue import RETRY_FIRST_SECONDS
from qwen_proxy.simulator import Fault, Reply, Scenario, plain
from qwen_proxy.simulator.replies import flat_error, json_reply, success, unavailable
from tests.support.http import ADMIN_KEY
from tests.support.running import Running, ask, running


async def listed(gateway: Running, path: str = "/v1/models") -> list[dict[str, object]]:
    async with gateway.client.get(path) as response:
        assert response.status == 200, await response.text()
        body = await response.json()
        assert body["object"] == "list"
        return body["data"]


async def ids(gateway: Running) -> list[object]:
    return [model["id"] for model in await listed(gateway)]


async def code(response: ClientResponse) -> tuple[int, str | None]:
    return response.status, (await response.json())["error"]["code"]


async def test_the_readable_name_is_the_id_and_the_upstreams_the_name() -> None:
    async with running() as gateway:
        first = (await listed(gateway))[0]
        assert (first["id"], first["name"]) == ("Qwen3.7-Plus", "qwen3.7-plus")
        assert (first["upstream_id"], first["display_name"]) == ("qwen3.7-plus", "Qwen3.7-Plus")
        assert first["object"] == "model" and first["owned_by"] == "qwen"
        assert first["context_length"] == 1_000_000 and first["max_output_tokens"] == 65_536
        assert first["capabilities"] == {"thinking": True, "thinking_optional": True, "search": True, "vision": True}


async def test_the_two_names_change_places_by_a_setting() -> None:
    async with running(MODEL_NAMES="id") as gateway:
        first = (await listed(gateway))[0]
        assert (first["id"], first["name"]) == ("qwen3.7-plus", "Qwen3.7-Plus")
        assert "qwen3.7-plus-thinking-search" in await ids(gateway)


async def test_variants_are_listed_in_their_order_unless_the_list_is_to_be_simple() -> None:
    async with running() as gateway:
        assert (await ids(gateway))[:7] == [
            "Qwen3.7-Plus" + suffix
            for suffix in ("", "-thinking", "-search", "-thinking-search", "-image", "-video", "-image-edit")
        ]
    async with running(SIMPLE_MODEL_MAP="true") as gateway:
        assert (await ids(gateway))[:2] == ["Qwen3.7-Plus", "Qwen3.8-Max"]
        async with gateway.client.post(
            "/v1/chat/completions", json=ask() | {"model": "Qwen3.7-plus-Thinking"}
        ) as response:
            assert response.status == 200  # not listed, still understood


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("qwen3.7-plus", "Qwen3.7-Plus"),
        ("QWEN3.7-PLUS", "Qwen3.7-Plus"),
        ("Qwen3.7-Plus-Thinking", "Qwen3.7-Plus-thinking"),
        ("qwen3.7-plus-thinking-search", "Qwen3.7-Plus-thinking-search"),
        ("qwen3.7-plus-image", "Qwen3.7-Plus-image"),
        ("gpt-5", "Qwen3.7-Plus"),
    ],
)
async def test_one_model_is_found_by_any_spelling(asked: str, found: str) -> None:
    async with running(MODEL_MAP="gpt-*=qwen3.7-plus") as gateway:
        async with gateway.client.get(f"/v1/models/{asked}") as response:
            assert (await response.json())["id"] == found


async def test_aliases_with_wildcards_lead_requests_to_real_models() -> None:
    async with running(MODEL_MAP="gpt-*-mini=qwen3.6-plus,GPT-*=qwen3.7-plus-thinking,claude-*=Qwen3.7-Max") as gateway:
        for asked, sent, thinks in (
            ("gpt-5-mini", "qwen3.6-plus", False),
            ("gpt-5", "qwen3.7-plus", True),
            ("Claude-Opus-5", "qwen3.7-max", False),
        ):
            async with gateway.client.post("/v1/chat/completions", json=ask() | {"model": asked}) as response:
                assert (await response.json())["model"] == sent
            body = gateway.simulator.seen("completions")[-1].json
            assert body["model"] == sent
            assert body["messages"][0]["feature_config"]["thinking_enabled"] is thinks


async def test_an_unknown_model_is_a_404_with_near_names_and_costs_no_lease() -> None:
    async with running() as gateway:
        async with gateway.client.get("/v1/models/qwen3.7-plsu") as response:
            assert await code(response) == (404, "model_not_found")
            assert "'Qwen3.7-Plus'" in (await response.json())["error"]["message"]
        for streamed in (True, False):
            body = ask(stream=streamed) | {"model": "mistral"}
            async with gateway.client.post("/v1/chat/completions", json=body) as response:
                assert await code(response) == (404, "model_not_found")
        assert gateway.simulator.seen("chats_new") == []


async def test_no_model_named_is_the_first_of_the_list() -> None:
    async with running() as gateway:
        body = ask()
        del body["model"]
        async with gateway.client.post("/v1/chat/completions", json=body) as response:
            assert (await response.json())["model"] == "qwen3.7-plus"


async def test_the_bare_path_is_open_unless_it_is_closed() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger:
        async with stranger.get("/models") as response:
            assert response.status == 200
        async with stranger.get("/v1/models") as response:
            assert await code(response) == (401, "invalid_api_key")
    async with running(MODELS_OPEN="false") as gateway, ClientSession(gateway.url) as stranger:
        async with stranger.get("/models") as response:
            assert await code(response) == (401, "invalid_api_key")
        async with stranger.get("/models", headers={"x-api-key": ADMIN_KEY}) as response:
            assert response.status == 200


async def test_the_second_endpoint_serves_when_the_first_is_gone() -> None:
    async with running(Scenario(faults=[Fault(flat_error(404, "Not Found"), "models")])) as gateway:
        assert (await ids(gateway))[0] == "Qwen3.7-Plus"
        assert len(gateway.simulator.seen("models_v2")) == 1


@pytest.mark.parametrize("reply", [success([]), json_reply({"data": []}), json_reply([])])
async def test_an_empty_first_list_leads_to_the_second(reply: Reply) -> None:
    async with running(Scenario(faults=[Fault(reply, "models")])) as gateway:
        assert (await ids(gateway))[0] == "Qwen3.7-Plus"


async def test_both_lists_empty_is_an_upstream_failure_and_not_an_empty_list() -> None:
    async with running(Scenario(models=[])) as gateway:
        async with gateway.client.get("/v1/models") as response:
            assert response.status == 502
            assert (await response.json())["error"]["type"] == "upstream_error"


async def test_inactive_models_are_left_out_and_bare_entries_just_chat() -> None:
    async with running(Scenario(models=[plain("old", active=False), plain("bare")])) as gateway:
        assert await ids(gateway) == ["Bare"]
        async with gateway.client.get("/v1/models/old") as response:
            assert await code(response) == (404, "model_not_found")
        async with gateway.client.post("/v1/chat/completions", json=ask() | {"model": "BARE"}) as response:
            assert response.status == 200


async def test_many_that_ask_at_once_make_one_fetch() -> None:
    async with running(Scenario(latency={"models": 0.1})) as gateway:
        lists = await asyncio.gather(*(ids(gateway) for _ in range(10)))
        assert all(each == lists[0] for each in lists)
        assert len(gateway.simulator.seen("models")) == 1


async def test_the_list_is_kept_for_its_lifetime_and_then_fetched_again() -> None:
    async with running(Scenario(models=[plain("one")])) as gateway:
        assert await ids(gateway) == ["One"]
        gateway.scenario.models = [plain("two")]
        assert await ids(gateway) == ["One"]
    async with running(Scenario(models=[plain("one")]), MODELS_CACHE_TTL="0.05") as gateway:
        assert await ids(gateway) == ["One"]
        gateway.scenario.models = [plain("two")]
        await asyncio.sleep(0.1)  # the lifetime itself
        assert await ids(gateway) == ["Two"]


async def test_a_list_that_cannot_be_fetched_again_serves_on() -> None:
    async with running(Scenario(models=[plain("one")]), MODELS_CACHE_TTL="0.05") as gateway:
        assert await ids(gateway) == ["One"]
        gateway.scenario.faults = [Fault(unavailable(), "models"), Fault(unavailable(), "models_v2")]
        await asyncio.sleep(0.1)  # the lifetime itself
        assert await ids(gateway) == ["One"]
        assert await ids(gateway) == ["One"]
        assert len(gateway.simulator.seen("models")) == 2  # the failure is not repeated by each request


async def test_a_list_that_never_came_is_asked_for_again_a_little_later() -> None:
    faults = [Fault(unavailable(), "models", times=1), Fault(unavailable(), "models_v2", times=1)]
    async with running(Scenario(faults=faults)) as gateway:
        async with gateway.client.get("/v1/models") as response:
            assert response.status in (502, 503)
        asked = len(gateway.simulator.requests)
        async with gateway.client.get("/models") as response:
            assert response.status in (502, 503)
        assert len(gateway.simulator.requests) == asked  # nobody can make us hammer a site that fails
        await asyncio.sleep(RETRY_FIRST_SECONDS)
        assert await ids(gateway)


async def test_image_and_video_variants_are_refused_by_name_for_now() -> None:
    async with running() as gateway:
        async with gateway.client.post(
            "/v1/chat/completions", json=ask() | {"model": "qwen3.7-plus-image"}
        ) as response:
            assert await code(response) == (400, "unsupported_parameter")
