"""Qwen Code over the whole program: sign-ins by device flow, its service, renewals and their end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from qwen_proxy.simulator import Portal, Scenario
from tests.support.http import ADMIN_KEY
from tests.support.running import Running, ask, running
from tests.support.waiting import until

PATH = "/api/admin/qwen-code"


@asynccontextmanager
async def switched_on(portal: Portal, **settings: str) -> AsyncGenerator[Running]:
    async with running(Scenario(portal=portal), QWEN_CODE_ENABLED="true", **settings) as served:
        portal.resource_url = served.simulator.base_url
        yield served


async def admin(served: Running, method: str, path: str = "", **body: object) -> Any:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with served.client.request(method, PATH + path, headers=headers, json=body or None) as reply:
        told = await reply.json() if reply.status != 204 else None
        assert reply.status < 400, told
        return told


async def signed_in(served: Running, account: str = "a@example.com") -> str:
    """By an account of the site, at once."""
    begun = await admin(served, "POST", "/logins", account=account)
    done = await admin(served, "POST", f"/logins/{begun['id']}/poll")
    assert done["state"] == "done", done
    return str(begun["id"])


async def say(served: Running, model: str = "qwen3.5-plus", **fields: Any) -> tuple[int, Any]:
    async with served.client.post("/cli/v1/chat/completions", json=ask(model=model, **fields)) as reply:
        return reply.status, await reply.json()


async def test_an_account_approves_its_own_sign_in_which_then_serves() -> None:
    async with switched_on(Portal()) as served:
        status, body = await say(served)
        assert status == 503 and "qwen-code login" in body["error"]["message"]
        id = await signed_in(served)
        status, body = await say(served, n=1, seed=3, user="u", presence_penalty=0.5)
        assert (status, body["choices"][0]["message"]["content"]) == (200, "You said: hello")
        status, body = await say(served, logprobs=True)
        assert (status, body["error"]["param"]) == (400, "logprobs")
        (seen,) = served.simulator.seen("portal_chat")
        assert seen.json["model"] == "coder-model"
        assert seen.headers["user-agent"] == seen.headers["x-dashscope-useragent"]
        assert seen.headers["user-agent"].startswith("QwenCode/")
        assert seen.headers["x-dashscope-authtype"] == "qwen-oauth"
        (listed,) = (await admin(served, "GET"))["sign_ins"]
        assert (listed["id"], listed["account"], listed["state"]) == (id, "a@example.com", "ready")


async def test_a_stream_and_the_list_of_models() -> None:
    async with switched_on(Portal()) as served:
        await signed_in(served)
        async with served.client.get("/cli/v1/models") as reply:
            assert "coder-model" in [each["id"] for each in (await reply.json())["data"]]
        async with served.client.post("/cli/v1/chat/completions", json=ask(model="coder-model", stream=True)) as reply:
            text = await reply.text()
        assert reply.status == 200 and text.rstrip().endswith("data: [DONE]") and "said:" in text


async def test_a_browser_approves_after_slow_downs() -> None:
    portal = Portal(approves_after=3, slow_downs=(400, 429), pending="status")
    async with switched_on(portal) as served:
        begun = await admin(served, "POST", "/logins", label="mine")
        assert begun["complete_uri"].endswith(f"user_code={begun['user_code']}&client=qwen-code")
        told = await admin(served, "POST", f"/logins/{begun['id']}/poll")
        assert told["state"] == "waiting" and 0 < told["wait_seconds"] <= 2  # and the site was not asked
        assert served.simulator.seen("oauth_token") == []


async def test_a_refused_token_is_renewed_once_and_serves_again() -> None:
    async with switched_on(Portal(refused="first")) as served:
        await signed_in(served)
        answers = await asyncio.gather(*(say(served) for _ in range(5)))
        assert [status for status, _ in answers] == [200] * 5, answers
        assert len(served.simulator.seen("oauth_token")) == 2  # the poll, and one refresh for all five


async def test_a_token_that_is_refused_after_its_renewal_too_is_not_used_again_until_it_is_tested() -> None:
    async with switched_on(Portal(refused="all")) as served:
        id = await signed_in(served)
        status, body = await say(served)
        assert status >= 500 and "free tier ended on 2026-04-15" in body["error"]["message"], body
        asked = len(served.simulator.seen("portal_chat"))
        status, body = await say(served)
        assert status == 503 and "free tier ended on 2026-04-15" in body["error"]["message"]
        assert len(served.simulator.seen("portal_chat")) == asked == 2
        tried = await admin(served, "POST", f"/{id}/test")
        assert "free tier ended" in tried["problem"] and tried["sign_in"]["state"] == "retired"
        served.scenario.portal.refused = "none"
        tried = await admin(served, "POST", f"/{id}/test")
        assert (tried["problem"], tried["sign_in"]["state"]) == ("", "ready")
        assert (await say(served))[0] == 200


@pytest.mark.parametrize("form", ["dead_400", "dead_401"])
async def test_a_dead_refresh_token_ends_the_sign_in(form: Any) -> None:
    async with switched_on(Portal(refused="first", refresh=form)) as served:
        id = await signed_in(served)
        status, _ = await say(served)
        assert status >= 500
        status, body = await say(served)
        assert status == 503 and "sign in again" in body["error"]["message"]
        (listed,) = (await admin(served, "GET"))["sign_ins"]
        assert (listed["id"], listed["state"], listed["expires_at"]) == (id, "ended", None)
        await admin(served, "DELETE", f"/{id}")
        assert (await admin(served, "GET"))["sign_ins"] == []


@pytest.mark.parametrize("form", ["not_json", "empty"])
async def test_a_refresh_that_says_nothing_is_tried_again(form: Any) -> None:
    async with switched_on(Portal(refused="first", refresh=form)) as served:
        await signed_in(served)
        assert (await say(served))[0] >= 500
        served.scenario.portal.refresh = "same_token"
        assert (await say(served))[0] == 200


async def test_a_token_near_its_end_is_renewed_before_anybody_asks() -> None:
    async with switched_on(Portal(token_seconds=1)) as served:
        await signed_in(served)
        await until(lambda: len(served.simulator.seen("oauth_token")) >= 2)
        served.scenario.portal.token_seconds = 3600


async def test_quota_parks_and_an_unknown_model_is_told() -> None:
    async with switched_on(Portal(out_of_quota=True)) as served:
        await signed_in(served)
        async with served.client.post("/cli/v1/chat/completions", json=ask(model="coder-model")) as reply:
            assert reply.status == 429 and 60 <= int(reply.headers["Retry-After"]) <= 65
    async with switched_on(Portal(models=("other",))) as served:
        await signed_in(served)
        status, body = await say(served)
        assert status == 404 and "coder-model" in body["error"]["message"]


async def test_it_is_off_by_default_and_says_why() -> None:
    async with running() as served:
        told = await admin(served, "GET")
        assert told["enabled"] is False and "2026-04-15" in told["notice"] and "QWEN_CODE_ENABLED" in told["notice"]
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with served.client.post(f"{PATH}/logins", headers=headers, json={}) as reply:
            assert reply.status == 400 and "2026-04-15" in (await reply.json())["error"]["message"]
        assert served.simulator.seen("oauth_device") == []


async def test_only_an_account_that_is_here_may_approve() -> None:
    async with switched_on(Portal()) as served:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        body = {"account": "stranger@example.com"}
        async with served.client.post(f"{PATH}/logins", headers=headers, json=body) as reply:
            assert reply.status == 404
        assert served.simulator.seen("oauth_device") == []


async def test_without_a_user_agent_the_sign_in_is_refused() -> None:
    async with running() as served, aiohttp.ClientSession(skip_auto_headers=["User-Agent"]) as client:
        async with client.post(f"{served.simulator.base_url}/api/v1/oauth2/device/code", data={}) as reply:
            assert reply.status == 403


async def test_what_is_done_is_told_without_secrets() -> None:
    async with switched_on(Portal()) as served:
        id = await signed_in(served)
        await admin(served, "DELETE", f"/{id}")
        async with served.client.get("/api/admin/audit", headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as reply:
            text = await reply.text()
        assert all(action in text for action in ("qwen_code.begin", "qwen_code.login", "qwen_code.remove"))
        polled = served.simulator.seen("oauth_token")[0]
        assert all(value not in text for value in polled.body.decode().split("&") if len(value) > 60)
