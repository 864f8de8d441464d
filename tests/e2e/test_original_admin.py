"""The original project's admin routes: its requests, its answers, without its secrets."""

import asyncio
from typing import Any

from aiohttp import ClientSession

from qwen_proxy.simulator import Account, Scenario
from tests.support.admin import Json, as_admin
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.replies import folded, refusal
from tests.support.running import ask, running

OWN = "sk-a-key-of-ones-own"
HIDDEN = "••••••••"
CANARY = "canary-of-the-original"


async def call(client: ClientSession, method: str, path: str, body: Json | None = None, status: int = 200) -> Json:
    async with client.request(method, path, json=body) as response:
        assert response.status == status, (path, await response.text())
        answer: Json = await response.json()
        return answer


async def refused(client: ClientSession, method: str, path: str, body: Json | None) -> int:
    async with client.request(method, path, json=body) as response:
        return (await refusal(response))[0]


# --- /verify -----------------------------------------------------------------------------------------------


async def test_verify_tells_whether_a_key_works_and_is_an_admins() -> None:
    async with running() as gateway, ClientSession(gateway.url) as anyone:
        success: Json = {"status": 200, "message": "success"}
        unauthorized = {"status": 401, "message": "Unauthorized"}
        assert await call(anyone, "POST", "/verify", {"apiKey": ADMIN_KEY}) == success | {"isAdmin": True}
        assert await call(anyone, "POST", "/verify", {"apiKey": USER_KEY}) == success | {"isAdmin": False}
        for body in ({"apiKey": "sk-wrong"}, {"apiKey": ""}, {}, {"apikey": ADMIN_KEY}):
            assert await call(anyone, "POST", "/verify", body, 401) == unauthorized
        book = gateway.commons.key_book
        await book.revoke(book.id_of(USER_KEY))
        await gateway.commons.watch.catch_up()
        assert await call(anyone, "POST", "/verify", {"apiKey": USER_KEY}, 401) == unauthorized


async def test_verify_is_no_oracle_for_who_guesses() -> None:
    async with running(WRONG_KEYS_PER_ADDRESS="2") as gateway, ClientSession(gateway.url) as guesser:
        for _ in range(2):
            await call(guesser, "POST", "/verify", {"apiKey": "sk-wrong"}, 401)
        async with guesser.post("/verify", json={"apiKey": ADMIN_KEY}) as response:
            assert response.status == 429 and int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["status"] == 429


# --- accounts ----------------------------------------------------------------------------------------------


async def test_an_account_is_added_listed_given_a_proxy_refreshed_and_deleted() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        body = {"email": "B@example.com", "password": CANARY}
        added = await call(client, "POST", "/api/setAccount", body)
        assert added["email"] == "B@example.com" and added["message"]
        assert await refused(client, "POST", "/api/setAccount", body) == 409
        page = await call(client, "GET", "/api/getAllAccounts?page=2&pageSize=1")
        assert {name: page[name] for name in ("total", "page", "pageSize")} == {"total": 2, "page": 2, "pageSize": 1}
        (row,) = page["data"]
        assert row == {
            "email": "B@example.com",
            "password": HIDDEN,
            "token": HIDDEN,
            "expires": row["expires"],
            "proxy": None,
        }
        assert isinstance(row["expires"], int)
        proxy = {"email": "b@example.com", "proxy": f"http://user:{CANARY}@127.0.0.1:9"}
        told = await call(client, "POST", "/api/updateAccountProxy", proxy)
        assert (told["email"], told["proxy"]) == ("B@example.com", "http://127.0.0.1:9")
        told = await call(client, "POST", "/api/updateAccountProxy", {"email": "b@example.com", "proxy": None})
        assert told["proxy"] is None
        told = await call(client, "POST", "/api/refreshAccount", {"email": "b@example.com"})
        assert told["email"] == "B@example.com"
        async with client.get("/api/getAllAccounts") as response:
            assert CANARY not in await response.text()
        assert (await call(client, "DELETE", "/api/deleteAccount", {"email": "b@example.com"}))["message"]
        assert (await call(client, "GET", "/api/getAllAccounts"))["total"] == 1


async def test_an_account_that_can_not_be_signed_in_is_not_added() -> None:
    site = Scenario(accounts={"a@example.com": Account("pw-a"), "b@example.com": Account("right")})
    async with running(site) as gateway, as_admin(gateway) as client:
        body = {"email": "b@example.com", "password": "wrong"}
        assert await refused(client, "POST", "/api/setAccount", body) == 502
        assert (await call(client, "GET", "/api/getAllAccounts"))["total"] == 1
        assert await refused(client, "POST", "/api/refreshAccount", {"email": "b@example.com"}) == 404
        await call(client, "POST", "/api/setAccount", body | {"password": "right"})


async def test_what_is_missing_wrong_or_unknown_is_told() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        for method, path, body, status in (
            ("POST", "/api/setAccount", {"email": "b@example.com"}, 400),
            ("POST", "/api/setAccount", {"email": "b@example.com", "password": "x", "proxy": "ftp://h"}, 400),
            ("POST", "/api/setAccounts", {"accounts": "no account at all"}, 400),
            ("POST", "/api/setAccounts", {}, 400),
            ("DELETE", "/api/deleteAccount", {}, 400),
            ("DELETE", "/api/deleteAccount", {"email": "nobody@example.com"}, 404),
            ("POST", "/api/updateAccountProxy", {"email": "nobody@example.com", "proxy": None}, 404),
            ("POST", "/api/updateAccountProxy", {"email": "a@example.com", "proxy": "nothing"}, 400),
            ("POST", "/api/refreshAccount", {"email": "nobody@example.com"}, 404),
            ("GET", "/api/batchTasks/batch_1790000000000_ab12cd34", None, 404),
        ):
            assert await refused(client, method, path, body) == status, (path, body)
        async with client.post("/api/setApiKey", json={"apiKey": OWN}) as response:
            assert response.status == 404 and "/api/setApiKey" in (await response.json())["error"]


async def settled(client: ClientSession, task: str) -> Json:
    """As the original's page does: ask again and again."""
    async with asyncio.timeout(20):
        while True:
            snapshot = await call(client, "GET", f"/api/batchTasks/{task}")
            if snapshot["status"] not in ("pending", "running"):
                return snapshot
            await asyncio.sleep(0.05)


async def test_many_accounts_are_added_and_asked_after() -> None:
    lines = f"b@example.com:{CANARY}\nc@example.com:pw\na@example.com:pw\nbroken"
    async with running() as gateway, as_admin(gateway) as client:
        started = await call(client, "POST", "/api/setAccounts", {"accounts": lines, "async": True}, 202)
        assert started["taskId"].startswith("batch_") and started["message"]
        snapshot = await settled(client, started["taskId"])
        counts = {name: snapshot[name] for name in ("total", "valid", "skipped", "invalid", "success", "failed")}
        assert counts == {"total": 4, "valid": 3, "skipped": 1, "invalid": 1, "success": 2, "failed": 0}
        assert (snapshot["status"], snapshot["progress"], snapshot["completed"]) == ("completed", 100, 4)
        assert {each["email"] for each in snapshot["recentResults"]} == {"b@example.com", "c@example.com"}
        assert CANARY not in str(snapshot)
        assert (await call(client, "GET", "/api/getAllAccounts"))["total"] == 3
        done = await call(client, "POST", "/api/setAccounts", {"accounts": "d@example.com:pw"})
        assert (done["status"], done["success"]) == ("completed", 1)


async def test_all_are_refreshed_or_those_whose_token_ends() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        await call(client, "POST", "/api/refreshAccount", {"email": "a@example.com"})
        told = await call(client, "POST", "/api/refreshAllAccounts", {"thresholdHours": 1})
        assert (told["refreshedCount"], told["thresholdHours"]) == (0, 1)
        assert (await call(client, "POST", "/api/refreshAllAccounts"))["thresholdHours"] == 24
        told = await call(client, "POST", "/api/forceRefreshAllAccounts")
        assert (told["refreshedCount"], told["totalAccounts"]) == (1, 1)


async def test_statistics_tell_of_today_and_of_each_day() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        usage = (await folded(gateway, ask()))["usage"]
        await gateway.commons.usage.flush()
        stats = await call(client, "GET", "/api/accountStats")
        (account,) = stats["accounts"]
        chat = {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}
        assert account["stats"] == {"chat": chat, "cli": {"calls": 0, "input": 0, "output": 0}}
        assert (account["email"], account["status"]["kind"]) == ("a@example.com", "active")
        assert (stats["cliQuotaLimit"], account["cliQuotaLimit"], account["cliRequestNumber"]) == (2000, 2000, 0)
        history = await call(client, "GET", "/api/statsHistory")
        assert history["accounts"] == [{"email": "a@example.com", "history": {history["today"]: account["stats"]}}]
        assert (await call(client, "POST", "/api/debug/archiveYesterday"))["ok"] is True


# --- settings and keys -------------------------------------------------------------------------------------


async def test_settings_are_shown_and_set_for_good() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        for path, body in (
            ("/api/setOutThink", {"outThink": False}),
            ("/api/setLegacyReasoning", {"legacyReasoningInContent": True}),
            ("/api/search-info-mode", {"searchInfoMode": "table"}),
            ("/api/simple-model-map", {"simpleModelMap": True}),
            ("/api/setBatchLoginConcurrency", {"batchLoginConcurrency": 7}),
            ("/api/setAutoRefresh", {"autoRefresh": False, "autoRefreshInterval": 60}),
        ):
            told = await call(client, "POST", path, body)
            assert told["status"] is True and set(told) == {"status", "message"}
        told = await call(client, "POST", "/api/setRetryConfig", {"chatRetryCount": 0, "chatRetryBackoffMs": 5})
        assert (told["status"], told["persisted"]) == (True, True)
        shown: dict[str, Any] = await call(client, "GET", "/api/settings")
        assert {name: shown[name] for name in sorted(shown) if name not in ("adminKey", "regularKeys")} == {
            "autoRefresh": False,
            "autoRefreshInterval": 60,
            "batchLoginConcurrency": 7,
            "chatRetryBackoffMs": 5,
            "chatRetryCount": 0,
            "defaultCookie": None,
            "defaultHeaders": None,
            "legacyReasoningInContent": True,
            "outThink": False,
            "searchInfoMode": "table",
            "simpleModelMap": True,
        }
        for path, body in (
            ("/api/setOutThink", {"outThink": "yes"}),
            ("/api/setOutThink", {}),
            ("/api/search-info-mode", {"searchInfoMode": "tabel"}),
            ("/api/setBatchLoginConcurrency", {"batchLoginConcurrency": 21}),
            ("/api/setRetryConfig", {"chatRetryCount": 11}),
            ("/api/setRetryConfig", {}),
        ):
            assert await refused(client, "POST", path, body) == 400, (path, body)


async def test_keys_are_added_shown_by_their_hints_and_deleted() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        assert (await call(client, "POST", "/api/addRegularKey", {"apiKey": OWN}))["persisted"] is True
        assert await refused(client, "POST", "/api/addRegularKey", {"apiKey": OWN}) == 409
        assert await refused(client, "POST", "/api/addRegularKey", {}) == 400
        async with ClientSession(gateway.url, headers={"x-api-key": OWN}) as owner, owner.get("/v1/models") as response:
            assert response.status == 200
        shown = await call(client, "GET", "/api/settings")
        assert f"sk-…{OWN[-4:]}" in shown["regularKeys"] and len(shown["regularKeys"]) == 2
        assert OWN not in str(shown) and ADMIN_KEY not in str(shown) and shown["adminKey"]
        assert (await call(client, "POST", "/api/deleteRegularKey", {"apiKey": OWN}))["persisted"] is True
        assert await refused(client, "POST", "/api/deleteRegularKey", {"apiKey": OWN}) == 404
        await call(client, "POST", "/api/addRegularKey", {"apiKey": OWN})
        await call(client, "POST", "/api/deleteRegularKey", {"apiKey": f"sk-…{OWN[-4:]}"})  # as the page shows it
        await call(client, "POST", "/api/addRegularKey", {"apiKey": OWN})
        await call(client, "POST", "/api/addRegularKey", {"apiKey": f"sk-another{OWN[-8:]}"})
        assert await refused(client, "POST", "/api/deleteRegularKey", {"apiKey": f"sk-…{OWN[-4:]}"}) == 400
        assert await refused(client, "POST", "/api/deleteRegularKey", {"apiKey": ADMIN_KEY}) == 403


async def test_a_key_that_is_no_admins_is_refused() -> None:
    async with running() as gateway:
        for path in ("/api/settings", "/api/getAllAccounts", "/api/statsHistory"):
            assert await refused(gateway.client, "GET", path, None) == 403
