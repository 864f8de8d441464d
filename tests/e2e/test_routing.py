"""Names, routes and the headers that tell who answered, through the whole program."""

from pathlib import Path

import pytest

from tests.support.admin import as_admin
from tests.support.asking import streamed, whole
from tests.support.command import Ran, run_command
from tests.support.http import ADMIN_KEY, USER_KEY
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


async def test_headers_that_had_to_go_out_early_do_not_guess() -> None:
    async with running(HEADER_COMMIT_SECONDS="0", HEARTBEAT_SECONDS="0.05") as gateway:
        early = await streamed(gateway, "[[sim delay 1s]] hello")
        assert (early.status, early.headers.get(BACKEND), early.headers.get(MODEL)) == (200, None, None)
        assert early.comments > 0


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


# --- an operator's side


async def test_routes_are_set_explained_and_removed_at_run_time() -> None:
    async with running(MODEL_ROUTES="old=web:qwen3.7-plus") as gateway, as_admin(gateway) as admin:
        async with admin.put("/api/admin/routes/My%2FOwn", json={"targets": ["web:Qwen3.8-Max*3"]}) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["targets"] == [
                {"backend": "web", "model": "Qwen3.8-Max", "weight": 3, "problem": ""}
            ]
        assert await served(gateway, "my/own") == (200, "web", "qwen3.8-max")
        assert await served(gateway, "gpt-5-thinking") == (200, "web", "qwen3.7-plus")
        async with admin.get("/api/admin/routes") as response:
            told = await response.json()
        assert [each["name"] for each in told["routes"]] == ["old", "My/Own"]
        (backend,) = told["backends"]
        assert (backend["name"], backend["kind"], backend["standing"]["state"]) == ("web", "web", "ok")
        assert backend["models"] > 3
        assert told["unmapped"] == [{"name": "gpt-5-thinking", "count": 2}]
        async with admin.get("/api/admin/diagnostics") as response:
            assert (await response.json())["unmapped_models"] == told["unmapped"]
        async with admin.get("/api/admin/routes/explain?model=claude-opus-5") as response:
            told = await response.json()
        assert (told["found"], told["via"], told["goes_to"], told["refusal"]) == ("other", "qwen3.7-plus", "web", "")
        async with admin.delete("/api/admin/routes/MY%2FOWN") as response:
            assert response.status == 204
        assert (await whole(gateway, "hello", model="my/own")).status == 404
        async with admin.delete("/api/admin/routes/My%2FOwn") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
        async with admin.get("/api/admin/audit?limit=10") as response:
            actions = [(each["action"], each["target"]) for each in (await response.json())["entries"]]
        assert ("route.set", "My/Own") in actions and ("route.remove", "MY/OWN") in actions
        async with admin.get("/api/admin/settings/history") as response:
            changes = (await response.json())["entries"][0]["changes"]
        assert [change["name"] for change in changes] == ["MODEL_ROUTES"]


async def test_a_wrong_route_is_refused_by_name() -> None:
    async with running() as gateway, as_admin(gateway) as admin:
        for targets, told, param in (
            (["qwen"], "not of the form backend:model", "targets"),
            (["web:a", "nowhere:b"], "there is no backend 'nowhere'; there are web", "targets[1]"),
            ([], "has 0 targets", "targets"),
        ):
            async with admin.put("/api/admin/routes/x", json={"targets": targets}) as response:
                error = (await response.json())["error"]
                assert (response.status, error["param"]) == (400, param)
                assert told in error["message"]
        async with admin.get("/api/admin/routes/explain?model=nothing-like-it") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")


async def test_a_key_that_may_not_use_the_site_is_refused_and_sees_no_model() -> None:
    async with running() as gateway, as_admin(gateway) as admin:
        async with admin.post("/api/admin/keys", json={"name": "local", "allowed_backends": ["local"]}) as response:
            made = await response.json()
        headers = {"Authorization": f"Bearer {made['secret']}"}
        body = {"model": "qwen3.7-plus", "messages": [{"role": "user", "content": "hello"}]}
        async with gateway.client.post("/v1/chat/completions", json=body, headers=headers) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (403, "permission_denied")
            assert error["message"] == "this API key may not use the backend 'web'; it may use: local"
        async with admin.get(f"/api/admin/routes/explain?model=qwen3.7-plus&key={made['key']['id']}") as response:
            told = await response.json()
        assert told["goes_to"] is None and told["targets"][0]["standing"]["state"] == "not allowed"
        async with admin.patch(
            f"/api/admin/keys/{made['key']['id']}",
            json={"allowed_backends": ["web"], "limits": {"api_tokens_per_day": 1000}},
        ) as response:
            changed = await response.json()
        assert (changed["allowed_backends"], changed["limits"]["api_tokens_per_day"]) == (["web"], 1000)
        async with gateway.client.post("/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200


async def test_the_originals_cli_routes_say_what_they_need_where_no_api_is_configured() -> None:
    async with running() as gateway:
        for method, path in (
            ("POST", "/cli/v1/chat/completions"),
            ("GET", "/cli/v1/models"),
            ("POST", "/cli/v1/models"),
        ):
            body = {"model": "qwen3.5-plus", "messages": [{"role": "user", "content": "hello"}]}
            async with gateway.client.request(method, path, json=body) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"], error["type"]) == (503, "no_account", "server_error")
                assert "no API backend is configured" in error["message"]
                ways = ("MODEL_STUDIO_API_KEY", "BACKENDS", "qwen-proxy backends add")
                ways += ("QWEN_CODE_ENABLED=true", "qwen-proxy qwen-code login")
                assert all(way in error["message"] for way in ways), error


@pytest.mark.timeout(120)
async def test_routes_as_an_operator_types_them(tmp_path: Path) -> None:
    async with running() as gateway:
        port = gateway.url.rpartition(":")[2]

        async def routes(*arguments: str, code: int = 0) -> Ran:
            environ = {"SERVICE_PORT": port, "API_KEY": f"{ADMIN_KEY},{USER_KEY}", "DATA_DIR": str(tmp_path / "data")}
            ran = await run_command(tmp_path, "routes", *arguments, **environ)
            assert ran.code == code, (arguments, ran.out, ran.err)
            return ran

        assert "fast leads to web:qwen3.7-plus" in (await routes("set", "fast", "web:qwen3.7-plus")).out
        lost = await routes("set", "lost", "web:nothing*2")
        assert "web:nothing is not there: it has no such model" in lost.out
        listed = (await routes("list")).out
        assert "fast" in listed and "web:nothing*2" in listed and "it has no such model" in listed
        assert "'fast' would go to web" in (await routes("explain", "fast")).out
        assert "would be refused" in (await routes("explain", "lost", code=1)).out
        assert "no key goes by" in (await routes("explain", "fast", "--key", "nobody", code=1)).err
        await routes("remove", "lost")
        assert [each["name"] for each in (await routes("list", "--json")).json["routes"]] == ["fast"]
