"""Keys made, changed, revoked and deleted through the admin API, and what they open meanwhile."""

from typing import Any

from aiohttp import ClientSession

from qwen_proxy.admin.keys import KeyBody, KeysBody, MadeKeyBody
from qwen_proxy.admin.records import AuditBody
from tests.support.admin import answer, as_admin
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.replies import refusal
from tests.support.running import Running, running

PATH = "/api/admin/keys"


async def make(client: ClientSession, **body: Any) -> MadeKeyBody:
    return await answer(client, "POST", PATH, MadeKeyBody, json=body)


async def keys(client: ClientSession) -> dict[str, KeyBody]:
    return {key.name: key for key in (await answer(client, "GET", PATH, KeysBody)).keys}


async def opens(gateway: Running, key: str) -> int:
    async with ClientSession(gateway.url, headers={"x-api-key": key}) as client:
        async with client.get("/v1/models") as response:
            return response.status


async def test_a_key_is_told_once_works_and_works_no_more_when_it_is_revoked() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        made = await make(client, name="team", note="for the team", limits={"requests_per_minute": 60})
        assert made.secret.startswith("sk-") and made.key.hint == f"sk-…{made.secret[-4:]}"
        assert made.key.limits.requests_per_minute == 60 and made.key.limits.tokens_per_day is None
        assert await opens(gateway, made.secret) == 200
        async with client.get(PATH) as response:
            listed = await response.text()
        assert made.secret not in listed and USER_KEY not in listed and ADMIN_KEY not in listed
        revoked = await answer(client, "POST", f"{PATH}/{made.key.id}/revoke", KeyBody)
        assert (revoked.status.value, await opens(gateway, made.secret)) == ("revoked", 401)
        restored = await answer(client, "POST", f"{PATH}/{made.key.id}/restore", KeyBody)
        assert (restored.status.value, await opens(gateway, made.secret)) == ("active", 200)
        async with client.delete(f"{PATH}/{made.key.id}") as response:
            assert response.status == 204
        assert await opens(gateway, made.secret) == 401
        assert set(await keys(client)) == {"key-1", "key-2"}


async def test_what_is_left_out_of_a_change_stays() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        made = await make(client, name="team", limits={"requests_per_minute": 60, "tokens_per_day": 5}, expires_at=2e9)
        path = f"{PATH}/{made.key.id}"
        body = {"note": "new", "limits": {"tokens_per_day": None, "concurrent_requests": 2}}
        changed = await answer(client, "PATCH", path, KeyBody, json=body)
        limits = changed.limits
        assert (limits.requests_per_minute, limits.tokens_per_day, limits.concurrent_requests) == (60, None, 2)
        assert (changed.name, changed.note, changed.expires_at) == ("team", "new", 2e9)
        assert (await answer(client, "PATCH", path, KeyBody, json={"expires_at": None})).expires_at is None
        assert await answer(client, "GET", path, KeyBody) == (await keys(client))["team"]


async def test_the_admin_key_of_the_environment_stays_a_way_in() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        admin = (await keys(client))["key-1"]
        assert admin.is_protected and admin.origin.value == "environment"
        for call in ("GET x", "PATCH x", "DELETE x", "POST x/revoke", "POST x/restore"):
            method, _, path = call.partition(" ")
            async with client.request(method, f"{PATH}/{path}") as response:
                assert (await refusal(response))[:2] == (404, "not_found")


async def test_the_audit_log_says_what_became_of_keys_and_holds_none() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        made = await make(client, name="team")
        path = f"{PATH}/{made.key.id}"
        await answer(client, "PATCH", path, KeyBody, json={"name": "crew", "limits": {"tokens_per_day": 7}})
        await answer(client, "PATCH", path, KeyBody, json={"name": "crew"})  # changes nothing
        await answer(client, "POST", f"{path}/revoke", KeyBody)
        async with client.delete(path) as response:
            assert response.status == 204
        async with client.get("/api/admin/audit") as response:
            text = await response.text()
        assert made.secret not in text
        entries = (await answer(client, "GET", "/api/admin/audit", AuditBody)).entries
        assert [each.action for each in entries] == ["key.delete", "key.revoke", "key.change", "key.create"]
        assert {each.target for each in entries} == {made.key.id}
        assert entries[2].details == {"name": "team -> crew", "limits.tokens_per_day": "default -> 7"}
