"""Qwen Code's sign-in and service as they are played: upstream protocol §8, §12.1 scenarios 14 and 15."""

import base64
import hashlib
from typing import Any, Literal

import aiohttp
import pytest

from qwen_proxy.simulator import Portal, Scenario, Simulator

CLIENT = "f0304373b74a44d2b584a3fb70ca9e56"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
LEAD: dict[str, Any] = {
    "role": "system",
    "content": [{"type": "text", "text": "", "cache_control": {"type": "ephemeral"}}],
}
QUESTION: dict[str, Any] = {"model": "coder-model", "messages": [LEAD, {"role": "user", "content": "hi"}]}


class Client:
    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def form(self, path: str, **fields: str) -> tuple[int, Any]:
        async with self.session.post(f"{self.simulator.base_url}{path}", data=fields) as reply:
            body = await reply.read()
            return reply.status, await reply.json() if body.startswith(b"{") else body

    async def begin(self) -> Any:
        scope = "openid profile email model.completion"
        status, told = await self.form(
            "/api/v1/oauth2/device/code",
            client_id=CLIENT,
            scope=scope,
            code_challenge=CHALLENGE,
            code_challenge_method="S256",
        )
        assert status == 200
        return told

    async def poll(self, device_code: str, verifier: str = VERIFIER) -> tuple[int, Any]:
        return await self.form(
            "/api/v1/oauth2/token",
            grant_type=GRANT,
            client_id=CLIENT,
            device_code=device_code,
            code_verifier=verifier,
        )

    async def refresh(self, token: str) -> tuple[int, Any]:
        return await self.form(
            "/api/v1/oauth2/token", grant_type="refresh_token", client_id=CLIENT, refresh_token=token
        )

    async def tokens(self) -> Any:
        status, told = await self.poll((await self.begin())["device_code"])
        assert status == 200
        return told

    async def ask(self, token: str, **fields: Any) -> tuple[int, Any]:
        url, headers = f"{self.simulator.base_url}/v1/chat/completions", {"Authorization": f"Bearer {token}"}
        async with self.session.post(url, json=QUESTION | fields, headers=headers) as reply:
            is_json = reply.content_type == "application/json"
            return reply.status, await reply.json() if is_json else await reply.text()


async def test_polls_slow_down_wait_and_give_tokens_once() -> None:
    portal = Portal(approves_after=4, slow_downs=(400, 429))
    async with Simulator(Scenario(portal=portal)) as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        code = (await client.begin())["device_code"]
        told = [await client.poll(code) for _ in range(2)]
        assert [(status, body["error"]) for status, body in told] == [(400, "slow_down"), (429, "slow_down")]
        status, body = await client.poll(code)
        assert (status, body["error"]) == (400, "authorization_pending")
        portal.pending = "status"
        assert await client.poll(code) == (200, {"status": "pending"})
        assert (await client.poll(code, "wrong"))[1]["error"] == "invalid_grant"
        status, body = await client.poll(code)
        assert status == 200 and body["resource_url"] == "portal.qwen.ai" and body["refresh_token"]
        assert (await client.poll(code))[0] == 401


@pytest.mark.parametrize("word", ["access_denied", "expired_token"])
async def test_a_sign_in_is_denied(word: Literal["access_denied", "expired_token"]) -> None:
    async with Simulator(Scenario(portal=Portal(denied=word))) as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        assert (await client.poll((await client.begin())["device_code"]))[1]["error"] == word


async def test_an_approval_wants_a_web_token_and_the_code() -> None:
    async with Simulator() as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        begun = await client.begin()
        url = f"{simulator.base_url}/api/v2/oauth2/authorize"
        body = {"approved": True, "user_code": begun["user_code"]}
        good = {"Authorization": f"Bearer {simulator.issue_token('a@x')}"}
        for headers, sent, status in (
            ({}, body, "401"),
            (good, {"approved": False, "user_code": "x"}, "400"),
            (good, {"approved": True}, "400"),
            (good, body | {"user_code": "x"}, "400"),
            (good, body, "200"),
        ):
            async with session.post(url, json=sent, headers=headers) as reply:
                assert (reply.status, reply.headers["x-actual-status-code"]) == (200, status)
        assert (await client.poll(begun["device_code"]))[0] == 200


async def test_a_refresh_token_works_once_and_its_other_answers() -> None:
    portal = Portal(approves_after=0, tells_resource=False)
    async with Simulator(Scenario(portal=portal)) as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        told = await client.tokens()
        assert "resource_url" not in told
        status, renewed = await client.refresh(told["refresh_token"])
        assert status == 200 and renewed["access_token"] != told["access_token"]
        assert renewed["expires_in"] == told["expires_in"] == 21_600
        portal.renewed_seconds = 3
        assert (await client.refresh(told["refresh_token"]))[0] == 400
        portal.refresh = "same_token"
        again = (await client.refresh(renewed["refresh_token"]))[1]
        assert "refresh_token" not in again and again["expires_in"] == 3
        found: list[tuple[int, Any]] = []
        for form in ("dead_400", "dead_401", "not_json", "empty"):
            portal.refresh = form
            found.append(await client.refresh(renewed["refresh_token"]))
        assert found == [(400, b""), (401, b"<html>gone</html>"), (200, b"not JSON"), (200, b"")]


async def test_the_service_answers_whole_and_as_a_stream_and_refuses() -> None:
    portal = Portal(approves_after=0, refused="first")
    async with Simulator(Scenario(portal=portal)) as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        told = await client.tokens()
        assert (await client.ask(told["access_token"]))[0] == 401
        token = (await client.refresh(told["refresh_token"]))[1]["access_token"]
        status, body = await client.ask(token)
        assert (status, body["choices"][0]["message"]["content"]) == (200, "You said: hi")
        status, text = await client.ask(token, stream=True, stream_options={"include_usage": True})
        assert status == 200 and '"usage"' in text and text.rstrip().endswith("data: [DONE]")
        unled: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
        wrong: list[dict[str, Any]] = [{"seed": 1}, {"tools": []}, unled, {"model": "x"}]
        for fields in wrong:
            assert (await client.ask(token, **fields))[0] == 400, fields
        portal.out_of_quota = True
        status, body = await client.ask(token)
        assert (status, body["error"]["code"]) == (429, "insufficient_quota")
        portal.refused = "all"
        assert (await client.ask(token))[0] == 401
