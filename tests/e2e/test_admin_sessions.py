"""Signing the page in: the cookie, what it is good for, and what it is not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import ClientResponse, ClientSession, CookieJar

from qwen_proxy.admin.records import AuditBody
from qwen_proxy.admin.sessions import PATH, SessionBody
from tests.support.admin import answer, as_admin
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.replies import PATH as CHAT_PATH
from tests.support.replies import refusal
from tests.support.running import Running, ask, running

SAME = {"Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def browser(gateway: Running) -> AsyncGenerator[ClientSession]:
    async with ClientSession(gateway.url, cookie_jar=CookieJar(unsafe=True)) as client:  # cookies of IP addresses too
        yield client


async def sign_in(client: ClientSession, key: str = ADMIN_KEY, **headers: str) -> SessionBody:
    return await answer(client, "POST", PATH, SessionBody, json={"api_key": key}, headers=headers)


async def code(response: ClientResponse) -> tuple[int, str | None]:
    return (await refusal(response))[:2]


async def test_a_page_signs_in_asks_changes_things_and_signs_out() -> None:
    async with running() as gateway, browser(gateway) as page:
        begun = await sign_in(page, **SAME)
        assert (begun.key_name, begun.role) == ("key-1", "admin") and begun.csrf_token
        assert await answer(page, "GET", PATH, SessionBody) == begun
        proof = SAME | {"x-csrf-token": begun.csrf_token}
        async with page.patch("/api/admin/settings", json={"values": {"MAX_CHOICES": 5}}, headers=proof) as response:
            assert response.status == 200
        async with page.post(CHAT_PATH, json=ask(), headers=proof) as response:  # the page can chat, too
            assert response.status == 200
        async with page.delete(PATH, headers=proof) as response:
            assert response.status == 204
            assert "Max-Age=0" in response.headers["Set-Cookie"]
        async with page.get(PATH) as response:
            assert await code(response) == (401, "invalid_api_key")


async def test_a_session_that_is_over_is_over_for_whoever_has_kept_its_cookie() -> None:
    async with running() as gateway, browser(gateway) as page:
        begun = await sign_in(page)
        (cookie,) = page.cookie_jar
        proof = SAME | {"x-csrf-token": begun.csrf_token or ""}
        async with page.delete(PATH, headers=proof) as response:
            assert response.status == 204
        async with ClientSession(gateway.url, headers={"Cookie": f"{cookie.key}={cookie.value}"}) as thief:
            async with thief.get(PATH) as response:
                assert response.status == 401


async def test_the_cookie_is_for_no_script_no_other_site_and_holds_no_key() -> None:
    async with running() as gateway, browser(gateway) as page:
        for headers, is_secure in (({}, False), ({"X-Forwarded-Proto": "https"}, True)):
            async with page.post(PATH, json={"api_key": ADMIN_KEY}, headers=headers) as response:
                cookie = response.headers["Set-Cookie"]
                assert "; HttpOnly" in cookie and "; SameSite=Strict" in cookie and "; Path=/" in cookie
                assert ("; Secure" in cookie) is is_secure
                assert ADMIN_KEY not in cookie and ADMIN_KEY not in await response.text()


async def test_only_an_admin_signs_in() -> None:
    async with running() as gateway, browser(gateway) as page:
        for key, told in ((USER_KEY, (403, "permission_denied")), ("sk-wrong", (401, "invalid_api_key"))):
            async with page.post(PATH, json={"api_key": key}) as response:
                assert await code(response) == told
                assert "Set-Cookie" not in response.headers
        async with page.get(PATH) as response:
            assert response.status == 401


async def test_who_sends_a_key_has_no_session_to_end() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        body = await answer(client, "GET", PATH, SessionBody)
        assert (body.key_name, body.csrf_token, body.ends_at) == ("key-1", None, None)
        async with client.delete(PATH) as response:
            assert response.status == 204


async def test_a_change_without_the_proof_or_from_another_page_is_refused() -> None:
    async with running() as gateway, browser(gateway) as page:
        begun = await sign_in(page)
        proof = {"x-csrf-token": begun.csrf_token or ""}
        origin = {"Origin": gateway.url}
        for headers in (
            {},
            SAME,
            origin,
            proof,
            SAME | {"x-csrf-token": "0" * 64},
            proof | {"Origin": "http://evil.example"},
            proof | {"Sec-Fetch-Site": "cross-site"},
            proof | {"Sec-Fetch-Site": "same-site"} | origin,
        ):
            async with page.patch(
                "/api/admin/settings", json={"values": {"MAX_CHOICES": 5}}, headers=headers
            ) as response:
                assert await code(response) == (403, "origin_refused"), headers
            async with page.post(CHAT_PATH, json=ask(), headers=headers) as response:
                assert response.status == 403, headers
        assert gateway.live.values == {}
        async with page.patch(
            "/api/admin/settings", json={"values": {"MAX_CHOICES": 5}}, headers=proof | origin
        ) as response:
            assert response.status == 200


async def test_a_name_that_was_made_to_point_here_opens_nothing_for_a_browser() -> None:
    async with running(ADMIN_HOSTS="proxy.example") as gateway, browser(gateway) as page:
        for host, is_ours in (("evil.example", False), ("proxy.example:8443", True)):
            async with page.post(PATH, json={"api_key": ADMIN_KEY}, headers={"Host": host}) as response:
                assert (response.status == 201) is is_ours
        (cookie,) = page.cookie_jar
        async with page.get(PATH, headers={"Host": "evil.example"}) as response:
            assert await code(response) == (403, "origin_refused")
        headers = {"Host": "evil.example", "Authorization": f"Bearer {ADMIN_KEY}"}
        async with ClientSession(gateway.url) as program, program.get(PATH, headers=headers) as response:
            assert response.status == 200
        assert cookie.value


async def test_another_page_can_not_sign_a_browser_in() -> None:
    async with running() as gateway, browser(gateway) as page:
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            async with page.post(PATH, json={"api_key": ADMIN_KEY}, headers=headers) as response:
                assert await code(response) == (403, "origin_refused")


async def test_signing_in_and_out_is_in_the_audit_log() -> None:
    async with running() as gateway, browser(gateway) as page, as_admin(gateway) as client:
        begun = await sign_in(page)
        async with page.delete(PATH, headers=SAME | {"x-csrf-token": begun.csrf_token or ""}) as response:
            assert response.status == 204
        body = await answer(client, "GET", "/api/admin/audit", AuditBody)
        assert [(each.action, each.key_name) for each in body.entries] == [
            ("session.end", "key-1"),
            ("session.begin", "key-1"),
        ]
        async with client.get("/api/admin/audit") as response:
            assert str(begun.csrf_token) not in await response.text()
