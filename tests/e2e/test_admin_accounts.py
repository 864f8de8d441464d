"""Accounts added, changed, tested and deleted through the admin API."""

from typing import Any

from aiohttp import ClientSession

from qwen_proxy.admin.account_bodies import (
    AccountBody,
    AccountDeletedBody,
    AccountsBody,
    AccountTestBody,
    AskedBody,
    CookiesSetBody,
)
from qwen_proxy.admin.records import AuditBody
from qwen_proxy.simulator import Account, Scenario
from tests.support.admin import answer, as_admin
from tests.support.replies import folded, refusal
from tests.support.running import Running, ask, running

PATH = "/api/admin/accounts"
A, B = f"{PATH}/a@example.com", f"{PATH}/b@example.com"
CANARY = "canary-of-the-accounts"


async def add(client: ClientSession, email: str = "B@example.com", **body: Any) -> AccountBody:
    return await answer(client, "POST", PATH, AccountBody, json={"email": email, "password": "pw-b"} | body)


async def accounts(client: ClientSession, **query: str | int) -> AccountsBody:
    return await answer(client, "GET", PATH, AccountsBody, params=query)


async def signed_in(client: ClientSession, path: str) -> AccountTestBody:
    return await answer(client, "POST", f"{path}/test", AccountTestBody)


async def test_an_account_is_added_used_changed_and_deleted() -> None:
    async with running(accounts=()) as gateway, as_admin(gateway) as client:
        made = await add(client, labels=["team"], weight=2, priority=1, note="ours")
        assert (made.id, made.email, made.origin.value) == ("b@example.com", "B@example.com", "added")
        assert (made.labels, made.weight, made.priority, made.note) == (("team",), 2.0, 1, "ours")
        assert (made.proxy, made.has_password, made.cookies) == (None, True, None)
        assert (await signed_in(client, B)).signed_in
        await folded(gateway, ask())
        changed = await answer(client, "PATCH", B, AccountBody, json={"enabled": False, "note": ""})
        assert (changed.enabled, changed.note, changed.labels) == (False, "", ("team",))
        assert changed.health.state == "disabled" and changed.health.next_action == "Enable the account to use it."
        deleted = await answer(client, "DELETE", B, AccountDeletedBody)
        assert (deleted.id, deleted.note) == ("b@example.com", "")
        assert (await accounts(client)).accounts == ()


async def test_an_account_of_the_environment_is_said_to_come_back() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        deleted = await answer(client, "DELETE", A, AccountDeletedBody)
        assert "ACCOUNTS" in deleted.note


async def test_accounts_are_listed_by_page_and_filtered() -> None:
    async with running(accounts=[f"{name}@example.com:pw" for name in "abc"]) as gateway, as_admin(gateway) as client:
        for path in (A, B):
            await signed_in(client, path)
        await answer(client, "PATCH", B, AccountBody, json={"labels": ["Spare"], "note": "of the other team"})
        first = await accounts(client, limit=2)
        assert [each.id for each in first.accounts] == ["a@example.com", "b@example.com"]
        assert (first.total, first.next_after) == (3, "b@example.com")
        second = await accounts(client, limit=2, after="b@example.com")
        assert [each.id for each in second.accounts] == ["c@example.com"] and second.next_after is None
        for query in ({"label": "Spare"}, {"text": "OTHER"}, {"text": "b@"}, {"text": "spare"}):
            found = await accounts(client, **query)
            assert [each.id for each in found.accounts] == ["b@example.com"] and found.total == 1, query
        assert (await accounts(client, state="disabled")).total == 0
        assert sum((await accounts(client, limit=1)).states.values()) == 3


async def test_no_secret_of_an_account_is_ever_told() -> None:
    proxy = f"http://user:{CANARY}@127.0.0.1:9"
    async with running() as gateway, as_admin(gateway) as client:
        made = await add(client, password=CANARY, proxy=proxy, cookies=f"cna={CANARY}", enabled=False)
        assert made.proxy == "http://127.0.0.1:9" and made.cookies is not None
        await answer(client, "PATCH", B, AccountBody, json={"password": f"{CANARY}2", "proxy": proxy})
        await answer(client, "PUT", f"{B}/cookies", CookiesSetBody, json={"cookies": f"cna={CANARY}3"})
        for path in (PATH, B, "/api/admin/audit", "/api/admin/diagnostics"):
            async with client.get(path) as response:
                assert response.status == 200 and CANARY not in await response.text(), path
        for body in ({"email": CANARY, "password": "x"}, {"email": "c@example.com", "password": [CANARY]}):
            async with client.post(PATH, json=body) as response:
                assert response.status == 400 and CANARY not in await response.text()


async def test_a_test_tells_how_the_sign_in_went_and_what_to_do() -> None:
    async with (
        running(Scenario(accounts={"a@example.com": Account("another")})) as gateway,
        as_admin(gateway) as client,
    ):
        tested = await signed_in(client, A)
        assert (tested.signed_in, "wrong_password" in tested.reason) == (False, True)
        assert tested.next_action == "Correct the account's password."
        assert tested.account.health.state == "sign_in_refused"
        await answer(client, "PATCH", A, AccountBody, json={"password": "another"})
        tested = await signed_in(client, A)
        assert (tested.signed_in, tested.reason, tested.account.health.has_token) == (True, "", True)


async def sign_ins(gateway: Running) -> int:
    return len(gateway.simulator.seen("signin_v1")) + len(gateway.simulator.seen("signin_v2"))


async def test_accounts_are_signed_in_anew_one_or_all_or_those_whose_token_ends() -> None:
    emails = ("a@example.com:pw", "b@example.com:pw")
    async with running(accounts=emails) as gateway, as_admin(gateway) as client:
        for path in (A, B):
            await signed_in(client, path)
        asked = await answer(client, "POST", f"{A}/refresh", AskedBody)
        assert (asked.asked, asked.total) == (1, 1)
        asked = await answer(client, "POST", f"{PATH}/refresh", AskedBody, json={"within_hours": 1})
        assert (asked.asked, asked.total) == (0, 2)
        before = await sign_ins(gateway)
        asked = await answer(client, "POST", f"{PATH}/refresh", AskedBody)
        assert asked.asked == 2
        for path in (A, B):  # each joins the sign-in that was asked for
            await signed_in(client, path)
        assert await sign_ins(gateway) > before


async def test_cookies_are_shown_by_their_age_and_a_token_among_them_is_used() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        token = gateway.simulator.issue_token("b@example.com")
        for body in ({"email": "b@example.com"}, {"email": "b@example.com", "cookies": "cna=x"}):
            async with client.post(PATH, json=body) as response:
                assert await refusal(response) == (400, None, "password")
        made = await answer(
            client, "POST", PATH, AccountBody, json={"email": "b@example.com", "cookies": f"cna=x; token={token}"}
        )
        assert (made.has_password, made.health.has_token, made.health.state) == (False, True, "ready")
        assert made.cookies is not None and made.cookies.age_seconds < 60
        tested = await signed_in(client, B)
        assert not tested.signed_in and "no password" in tested.reason
        await answer(client, "PATCH", A, AccountBody, json={"enabled": False})
        await folded(gateway, ask())  # with the token that was among the cookies
        async with client.delete(f"{B}/cookies") as response:
            assert response.status == 204
        assert (await answer(client, "GET", B, AccountBody)).cookies is None


async def test_pasted_cookies_are_read_in_each_form() -> None:
    netscape = ".qwen.ai\tTRUE\t/\tTRUE\t0\tcna\tx\n.other.example\tTRUE\t/\tTRUE\t0\ta\tb\n"
    curl = "curl 'https://chat.qwen.ai/api/v2/chats/' -H 'cookie: cna=x; isg=y'"
    async with running() as gateway, as_admin(gateway) as client:
        for text, form, names, left_out in (
            ("cna=x; isg=y", "header", ("cna", "isg"), 0),
            (netscape, "netscape", ("cna",), 1),
            (curl, "curl", ("cna", "isg"), 0),
        ):
            told = await answer(client, "PUT", f"{A}/cookies", CookiesSetBody, json={"cookies": text})
            assert (told.form, told.names, told.left_out, told.has_token) == (form, names, left_out, False)
        async with client.put(f"{A}/cookies", json={"cookies": "\n"}) as response:
            assert await refusal(response) == (400, None, "cookies")


async def test_wrong_wishes_are_refused_by_their_field() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        for body, told in (
            ({"email": "nobody", "password": "x"}, (400, None, "email")),
            ({"email": "c@example.com", "password": ""}, (400, None, "password")),
            ({"email": "c@example.com", "password": "x", "proxy": "ftp://h"}, (400, None, "proxy")),
            ({"email": "c@example.com", "password": "x", "weight": 0}, (400, None, "weight")),
            ({"email": "A@example.com ", "password": "x"}, (409, "already_exists", None)),
        ):
            async with client.post(PATH, json=body) as response:
                assert await refusal(response) == told, body
        nobody = f"{PATH}/nobody@example.com"
        for method, path, body in (
            ("GET", nobody, None),
            ("PATCH", nobody, {}),
            ("DELETE", nobody, None),
            ("POST", f"{nobody}/test", None),
            ("POST", f"{nobody}/refresh", None),
            ("PUT", f"{nobody}/cookies", {"cookies": "a=b"}),
            ("DELETE", f"{nobody}/cookies", None),
        ):
            async with client.request(method, path, json=body) as response:
                assert (await refusal(response))[:2] == (404, "not_found"), (method, path)


async def test_every_change_is_in_the_audit_log() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        await add(client, enabled=False)
        await answer(client, "PATCH", B, AccountBody, json={"priority": 3, "password": "new"})
        await answer(client, "PUT", f"{B}/cookies", CookiesSetBody, json={"cookies": "cna=x"})
        async with client.delete(f"{B}/cookies") as response:
            assert response.status == 204
        await answer(client, "POST", f"{A}/refresh", AskedBody)
        await answer(client, "DELETE", B, AccountDeletedBody)
        entries = (await answer(client, "GET", "/api/admin/audit", AuditBody)).entries
        assert [each.action for each in reversed(entries)] == [
            "account.add",
            "account.change",
            "account.cookies.set",
            "account.cookies.drop",
            "account.refresh",
            "account.delete",
        ]
        assert entries[-2].details == {"priority": "3", "password": "(another)"}
