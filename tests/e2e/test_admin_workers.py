"""The admin API over several workers: what one is told, all do, and what they count, they count together."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from qwen_proxy.admin.keys import MadeKeyBody
from qwen_proxy.admin.records import ProcessesBody
from qwen_proxy.admin.settings import SettingsChangedBody
from tests.support.admin import answer
from tests.support.http import ADMIN_KEY
from tests.support.served import Served, served

ASKED = 24  # on as many connections: that one of two workers gets none of them happens once in millions of times


async def all_of(ask: Callable[[], Awaitable[int]]) -> set[int]:
    return set(await asyncio.gather(*(ask() for _ in range(ASKED))))


async def models(site: Served, key: str = "") -> int:
    """The status of GET /models, which is open or not by a setting, on a connection of its own."""
    headers = {"Connection": "close"} | ({"x-api-key": key} if key else {})
    async with aiohttp.ClientSession(site.url, headers=headers) as client, client.get("/models") as response:
        return response.status


async def test_a_change_of_settings_holds_in_every_worker_within_a_second(tmp_path: Path) -> None:
    async with served(tmp_path) as site, site.client(ADMIN_KEY) as client:
        (_, _) = (await answer(client, "GET", "/api/admin/processes", ProcessesBody)).processes
        assert await all_of(lambda: models(site)) == {200}
        body = {"values": {"MODELS_OPEN": False}}
        await answer(client, "PATCH", "/api/admin/settings", SettingsChangedBody, json=body)
        await asyncio.sleep(1)
        assert await all_of(lambda: models(site)) == {401}
        await answer(client, "POST", "/api/admin/settings/undo", SettingsChangedBody)
        await asyncio.sleep(1)
        assert await all_of(lambda: models(site)) == {200}


async def test_a_key_works_in_every_worker_at_once_and_a_revoked_one_in_none(tmp_path: Path) -> None:
    async with served(tmp_path, MODELS_OPEN="false") as site, site.client(ADMIN_KEY) as client:
        made = await answer(client, "POST", "/api/admin/keys", MadeKeyBody, json={"name": "new"})
        assert await all_of(lambda: models(site, made.secret)) == {200}
        async with client.post(f"/api/admin/keys/{made.key.id}/revoke") as response:
            assert response.status == 200
        await asyncio.sleep(1)
        assert await all_of(lambda: models(site, made.secret)) == {401}


async def test_a_session_of_one_worker_is_known_to_all_and_gone_in_all(tmp_path: Path) -> None:
    async with served(tmp_path) as site, site.client(ADMIN_KEY) as client:
        async with client.post("/api/admin/session", json={"api_key": ADMIN_KEY}) as response:
            cookie = response.headers["Set-Cookie"].partition(";")[0]
            csrf = (await response.json())["csrf_token"]

        async def look(method: str = "GET") -> int:
            headers = {"Cookie": cookie, "x-csrf-token": csrf, "Sec-Fetch-Site": "same-origin", "Connection": "close"}
            async with aiohttp.ClientSession(site.url, headers=headers) as page:
                async with page.request(method, "/api/admin/session") as response:
                    return response.status

        assert await all_of(look) == {200}
        assert await look("DELETE") == 204
        assert await all_of(look) == {401}


async def test_wrong_keys_are_counted_over_all_workers(tmp_path: Path) -> None:
    async with served(tmp_path, WRONG_KEYS_PER_ADDRESS="5") as site:

        async def guess() -> int:
            async with aiohttp.ClientSession(site.url, headers={"Connection": "close"}) as guesser:
                async with guesser.post("/verify", json={"apiKey": "sk-wrong"}) as response:
                    return response.status

        answers = await asyncio.gather(*(guess() for _ in range(ASKED)))
        assert (answers.count(401), answers.count(429)) == (5, ASKED - 5)
