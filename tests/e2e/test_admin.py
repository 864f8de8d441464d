"""The admin API over the real server: its document, every route's declared shape, and who may call it."""

import re
from contextlib import suppress

import msgspec
import pytest
from aiohttp import ClientSession
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.bulk.book import BatchBook, batch_id
from qwen_proxy.accounts.bulk.model import Batch, BatchStatus, PauseCause
from qwen_proxy.accounts.grants import granted
from qwen_proxy.accounts.lines import PastedLines
from qwen_proxy.accounts.model import Tokens
from qwen_proxy.admin.diagnostics import DiagnosticsBody
from qwen_proxy.admin.records import AuditBody, ProcessesBody
from qwen_proxy.admin.routing import AdminRoute
from qwen_proxy.admin.settings import SettingsBody, SettingsChangedBody, SettingsHistoryBody
from qwen_proxy.config.backend_book import key_id
from qwen_proxy.config.keybook import NewKey
from qwen_proxy.ground.errors import AlreadyExists
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.serving.auth import Access
from tests.support.admin import Json, answer, as_admin, table
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.replies import refusal
from tests.support.running import Running, running


class Example(Struct):
    """A call that goes well, in the order of the table."""

    path: str
    body: Json | None = None


VICTIM = "sk-a-key-for-the-examples"
KEY = "/api/admin/keys/{victim}"  # its id
BATCH = "/api/admin/accounts/batches/{batch}"  # one in the right state
MORE = "sk-one-more-for-the-examples"  # a backend's
GRANT = "a0b1c2d3e4f5"  # a sign-in at Qwen Code
ACCOUNT = "/api/admin/accounts/b@example.com"
EXAMPLES: dict[tuple[str, str], Example] = {
    ("POST", "/api/admin/session"): Example("/api/admin/session", {"api_key": ADMIN_KEY}),
    ("GET", "/api/admin/session"): Example("/api/admin/session"),
    ("DELETE", "/api/admin/session"): Example("/api/admin/session"),
    ("GET", "/api/admin/settings"): Example("/api/admin/settings"),
    ("PATCH", "/api/admin/settings"): Example("/api/admin/settings", {"values": {"MAX_CHOICES": 5}}),
    ("GET", "/api/admin/settings/history"): Example("/api/admin/settings/history?limit=10"),
    ("POST", "/api/admin/settings/undo"): Example("/api/admin/settings/undo"),
    ("GET", "/api/admin/routes"): Example("/api/admin/routes"),
    ("GET", "/api/admin/routes/explain"): Example("/api/admin/routes/explain?model=gpt-5"),
    ("PUT", "/api/admin/routes/{name}"): Example("/api/admin/routes/fast", {"targets": ["web:qwen3.7-plus"]}),
    ("DELETE", "/api/admin/routes/{name}"): Example("/api/admin/routes/fast"),
    ("GET", "/api/admin/backends"): Example("/api/admin/backends"),
    ("POST", "/api/admin/backends"): Example(
        "/api/admin/backends", {"name": "lab", "base_url": "http://127.0.0.1:9/v1", "kind": "local", "models": ["m"]}
    ),
    ("GET", "/api/admin/backends/{name}"): Example("/api/admin/backends/lab"),
    ("PATCH", "/api/admin/backends/{name}"): Example("/api/admin/backends/lab", {"enabled": False}),
    ("POST", "/api/admin/backends/{name}/test"): Example("/api/admin/backends/lab/test"),
    ("POST", "/api/admin/backends/{name}/keys"): Example("/api/admin/backends/lab/keys", {"keys": [MORE]}),
    ("DELETE", "/api/admin/backends/{name}/keys/{id}"): Example("/api/admin/backends/lab/keys/{more}"),
    ("DELETE", "/api/admin/backends/{name}"): Example("/api/admin/backends/lab"),
    ("GET", "/api/admin/qwen-code"): Example("/api/admin/qwen-code"),
    ("POST", "/api/admin/qwen-code/logins"): Example("/api/admin/qwen-code/logins", {"account": "a@example.com"}),
    ("POST", "/api/admin/qwen-code/logins/{id}/poll"): Example(f"/api/admin/qwen-code/logins/{GRANT}/poll"),
    ("POST", "/api/admin/qwen-code/{id}/test"): Example(f"/api/admin/qwen-code/{GRANT}/test"),
    ("DELETE", "/api/admin/qwen-code/{id}"): Example(f"/api/admin/qwen-code/{GRANT}"),
    ("GET", "/api/admin/keys"): Example("/api/admin/keys"),
    ("POST", "/api/admin/keys"): Example("/api/admin/keys", {"name": "new"}),
    ("GET", "/api/admin/keys/{id}"): Example(KEY),
    ("PATCH", "/api/admin/keys/{id}"): Example(KEY, {"limits": {"tokens_per_day": 1000}, "expires_at": None}),
    ("POST", "/api/admin/keys/{id}/revoke"): Example(f"{KEY}/revoke"),
    ("POST", "/api/admin/keys/{id}/restore"): Example(f"{KEY}/restore"),
    ("DELETE", "/api/admin/keys/{id}"): Example(KEY),
    ("GET", "/api/admin/accounts"): Example("/api/admin/accounts?limit=10"),
    ("POST", "/api/admin/accounts"): Example("/api/admin/accounts", {"email": "b@example.com", "password": "pw"}),
    ("POST", "/api/admin/accounts/refresh"): Example("/api/admin/accounts/refresh", {"within_hours": 24}),
    ("GET", "/api/admin/accounts/{id}"): Example(ACCOUNT),
    ("PATCH", "/api/admin/accounts/{id}"): Example(ACCOUNT, {"labels": ["spare"], "proxy": None}),
    ("POST", "/api/admin/accounts/{id}/test"): Example(f"{ACCOUNT}/test"),
    ("POST", "/api/admin/accounts/{id}/refresh"): Example(f"{ACCOUNT}/refresh"),
    ("PUT", "/api/admin/accounts/{id}/cookies"): Example(f"{ACCOUNT}/cookies", {"cookies": "cna=abc; isg=def"}),
    ("DELETE", "/api/admin/accounts/{id}/cookies"): Example(f"{ACCOUNT}/cookies"),
    ("DELETE", "/api/admin/accounts/{id}"): Example(ACCOUNT),
    ("GET", "/api/admin/audit"): Example("/api/admin/audit?limit=5"),
    ("GET", "/api/admin/processes"): Example("/api/admin/processes"),
    ("GET", "/api/admin/usage"): Example("/api/admin/usage?by=key,model"),
    ("GET", "/api/admin/usage.csv"): Example("/api/admin/usage.csv?by=time,key,account,model,feature"),
    ("POST", "/api/admin/accounts/batches"): Example("/api/admin/accounts/batches", {"lines": "a:b", "dry_run": True}),
    ("GET", "/api/admin/accounts/batches"): Example("/api/admin/accounts/batches"),
    ("GET", "/api/admin/accounts/batches/{id}"): Example(BATCH),
    ("GET", "/api/admin/accounts/batches/{id}/lines"): Example(f"{BATCH}/lines?status=failed"),
    ("GET", "/api/admin/accounts/batches/{id}/events"): Example(f"{BATCH}/events"),
    ("POST", "/api/admin/accounts/batches/{id}/pause"): Example(f"{BATCH}/pause"),
    ("POST", "/api/admin/accounts/batches/{id}/resume"): Example(f"{BATCH}/resume"),
    ("POST", "/api/admin/accounts/batches/{id}/cancel"): Example(f"{BATCH}/cancel"),
    ("POST", "/api/admin/accounts/batches/{id}/retry"): Example(f"{BATCH}/retry"),
    ("DELETE", "/api/admin/accounts/batches/{id}"): Example(BATCH),
    ("GET", "/api/admin/diagnostics"): Example("/api/admin/diagnostics"),
    ("POST", "/verify"): Example("/verify", {"apiKey": USER_KEY}),
    ("GET", "/api/settings"): Example("/api/settings"),
    ("POST", "/api/addRegularKey"): Example("/api/addRegularKey", {"apiKey": "sk-another-for-the-examples"}),
    ("POST", "/api/deleteRegularKey"): Example("/api/deleteRegularKey", {"apiKey": VICTIM}),
    ("POST", "/api/setAutoRefresh"): Example("/api/setAutoRefresh", {"autoRefresh": True}),
    ("POST", "/api/setBatchLoginConcurrency"): Example("/api/setBatchLoginConcurrency", {"batchLoginConcurrency": 5}),
    ("POST", "/api/setOutThink"): Example("/api/setOutThink", {"outThink": True}),
    ("POST", "/api/setLegacyReasoning"): Example("/api/setLegacyReasoning", {"legacyReasoningInContent": False}),
    ("POST", "/api/search-info-mode"): Example("/api/search-info-mode", {"searchInfoMode": "text"}),
    ("POST", "/api/simple-model-map"): Example("/api/simple-model-map", {"simpleModelMap": False}),
    ("POST", "/api/setRetryConfig"): Example("/api/setRetryConfig", {"chatRetryCount": 1}),
    ("GET", "/api/getAllAccounts"): Example("/api/getAllAccounts?page=1&pageSize=10"),
    ("POST", "/api/setAccount"): Example("/api/setAccount", {"email": "c@example.com", "password": "pw"}),
    ("DELETE", "/api/deleteAccount"): Example("/api/deleteAccount", {"email": "c@example.com"}),
    ("POST", "/api/setAccounts"): Example("/api/setAccounts", {"accounts": "d@example.com:pw"}),
    ("GET", "/api/batchTasks/{taskId}"): Example("/api/batchTasks/{batch}"),
    ("POST", "/api/updateAccountProxy"): Example("/api/updateAccountProxy", {"email": "a@example.com", "proxy": None}),
    ("POST", "/api/refreshAccount"): Example("/api/refreshAccount", {"email": "a@example.com"}),
    ("POST", "/api/refreshAllAccounts"): Example("/api/refreshAllAccounts", {"thresholdHours": 24}),
    ("POST", "/api/forceRefreshAllAccounts"): Example("/api/forceRefreshAllAccounts"),
    ("GET", "/api/accountStats"): Example("/api/accountStats"),
    ("GET", "/api/statsHistory"): Example("/api/statsHistory"),
    ("POST", "/api/debug/archiveYesterday"): Example("/api/debug/archiveYesterday"),
}
# What a batch has to be for a call of it to go well.
STATES: dict[str, Batch] = {
    "pause": Batch(created_at=0.0, status=BatchStatus.RUNNING, total=2, good=2),
    "resume": Batch(created_at=0.0, status=BatchStatus.PAUSED, paused_by=PauseCause.OPERATOR, total=2, good=2),
    "cancel": Batch(created_at=0.0, status=BatchStatus.PAUSED, paused_by=PauseCause.OPERATOR, total=2, good=2),
    "retry": Batch(created_at=0.0, status=BatchStatus.COMPLETED, finished_at=1.0, total=1, good=1, failed=(1,)),
}
OVER = Batch(created_at=0.0, status=BatchStatus.COMPLETED, finished_at=1.0)


async def example(gateway: Running, route: AdminRoute) -> Example:
    """The key that the examples are about is there."""
    book = gateway.commons.key_book
    with suppress(AlreadyExists):
        await book.create(NewKey(name="victim"), given=Secret(VICTIM))
    given = EXAMPLES[route.method, route.path]
    if GRANT in given.path:
        tokens = Tokens(
            access_token=Secret("at"),
            refresh_token=Secret("rt"),
            resource_url=gateway.simulator.base_url,
            lasts_seconds=3600.0,
        )
        await gateway.others.qwen_code.grants.add(GRANT, granted(tokens, SystemClock().now(), label="example"))
    path = given.path.replace("{victim}", book.id_of(VICTIM))
    path = path.replace("{more}", key_id(gateway.commons.vault, Secret(MORE)))
    if "{batch}" in path:
        batches = BatchBook(gateway.commons.store, gateway.commons.vault)
        batch, now = STATES.get(path.rpartition("/")[2], OVER), SystemClock().now()  # an old one is forgotten
        id = batch_id(now, SystemIds().token(8))
        batch = replace(batch, created_at=now, finished_at=now if batch.is_over else None)
        await batches.create(id, batch, PastedLines())
        path = path.replace("{batch}", id)
    return Example(path, given.body)


async def test_every_route_is_in_the_document_and_answers_in_its_declared_shape() -> None:
    async with running(QWEN_CODE_ENABLED="true") as gateway, as_admin(gateway) as client:
        routes = table(gateway)
        assert [(route.method, route.path) for route in routes] == list(EXAMPLES)
        async with client.get("/openapi.json") as response:
            document = await response.json()
        for route in routes:
            assert route.method.lower() in document["paths"][route.path]
            given = await example(gateway, route)
            async with client.request(route.method, given.path, json=given.body) as response:
                body = await response.read()
                assert response.status == route.status, (route.path, body)
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["x-request-id"].startswith("req_")
                if route.answer is not None:
                    assert response.content_type == "application/json"
                    decoded = msgspec.json.decode(body, type=route.answer)
                    assert msgspec.json.decode(msgspec.json.encode(decoded)) == msgspec.json.decode(body)


async def test_the_document_has_every_route_that_is_served() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger:
        async with stranger.get("/openapi.json") as response:
            assert (response.status, response.content_type) == (200, "application/json")
            paths = (await response.json())["paths"]
        for template in paths:
            path = re.sub(r"\{\w+\}", "x", template)
            told = {method for other in paths if fits(other, path) for method in paths[other]}
            # What is there says which methods it takes; what is not, is a 404.
            async with stranger.request("TRACE", path) as response:
                assert response.status == 405, path
                assert {method.strip().lower() for method in response.headers["Allow"].split(",")} == told, path


def fits(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path) is not None


async def test_the_page_of_the_document_runs_nothing() -> None:
    async with running() as gateway, ClientSession(gateway.url) as stranger, stranger.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "/api/admin/settings" in await response.text()


CARRIERS: list[dict[str, str]] = [
    {"Authorization": "Bearer KEY"},
    {"Authorization": "KEY"},
    {"x-api-key": "KEY"},
    {"Authorization": "Bearer dummy", "x-api-key": "KEY"},
]


async def test_every_route_gives_one_decision_for_every_carrier_and_role() -> None:
    async with running(WRONG_KEYS_PER_ADDRESS="0") as gateway, ClientSession(gateway.url) as session:
        for route in table(gateway):
            for key, refused in ((USER_KEY, 403), ("sk-nobody-has-this", 401), ("", 401), (ADMIN_KEY, None)):
                for carrier in CARRIERS:
                    headers = {name: value.replace("KEY", key) for name, value in carrier.items()}
                    given = await example(gateway, route)
                    async with session.request(route.method, given.path, json=given.body, headers=headers) as response:
                        if refused is None or route.access is Access.OPEN:
                            assert response.status not in (401, 403), (route.method, route.path, carrier, key)
                        else:
                            code = "invalid_api_key" if refused == 401 else "permission_denied"
                            assert await refusal(response) == (refused, code, None), (route.path, carrier, key)


@pytest.mark.parametrize(
    ("method", "path", "body", "param", "says"),
    [
        ("PATCH", "/api/admin/settings", b"{", None, "no valid JSON"),
        ("PATCH", "/api/admin/settings", b"{}", "values", "`values` is missing"),
        ("PATCH", "/api/admin/settings", b'{"values": {}, "vlaues": {}}', "vlaues", "there is no `vlaues` here"),
        ("PATCH", "/api/admin/settings", b'{"values": {"MAX_CHOICES": "x"}}', "MAX_CHOICES", "from 1 to 128"),
        ("PATCH", "/api/admin/settings", b'{"values": {"SERVICE_PORT": 1}}', "SERVICE_PORT", "start again"),
        ("PATCH", "/api/admin/settings", b'{"values": {"by": 1, "target": 2}}', "by", "there is no setting"),
        ("GET", "/api/admin/settings/history?limit=0", b"", "limit", ">= 1"),
        ("GET", "/api/admin/audit?page=2", b"", "page", "there is no `page` here"),
        ("POST", "/api/admin/settings/undo", b'{"number": 99}', "number", "no such entry"),
    ],
)
async def test_what_is_wrong_is_named(method: str, path: str, body: bytes, param: str | None, says: str) -> None:
    async with running() as gateway, as_admin(gateway) as client:
        async with client.request(method, path, data=body) as response:
            assert await refusal(response) == (400, None, param)
            assert says in (await response.json())["error"]["message"]


# --- settings, the audit log, processes ----------------------------------------------------------------------


async def setting(client: ClientSession, name: str) -> tuple[str, str]:
    body = await answer(client, "GET", "/api/admin/settings", SettingsBody)
    return next((each.value, each.source) for each in body.settings if each.name == name)


async def change(client: ClientSession, **values: object) -> list[tuple[str, str | None, str | None]]:
    body = await answer(client, "PATCH", "/api/admin/settings", SettingsChangedBody, json={"values": values})
    return [(each.name, each.before, each.after) for each in body.changes]


async def undo(client: ClientSession, number: int | None = None) -> list[tuple[str, str | None, str | None]]:
    body = await answer(client, "POST", "/api/admin/settings/undo", SettingsChangedBody, json={"number": number})
    return [(each.name, each.before, each.after) for each in body.changes]


async def test_settings_are_changed_looked_back_at_and_undone() -> None:
    async with running(MAX_CHOICES="4") as gateway, as_admin(gateway) as client:
        assert await setting(client, "MAX_CHOICES") == ("4", "environment")
        assert await change(client, MAX_CHOICES=5, MODEL_MAP={"gpt-*": "qwen3.8-max"}) == [
            ("MAX_CHOICES", None, "5"),
            ("MODEL_MAP", None, '{"gpt-*":"qwen3.8-max"}'),
        ]
        assert await setting(client, "MAX_CHOICES") == ("5", "runtime")
        assert await change(client, MAX_CHOICES=6) == [("MAX_CHOICES", "5", "6")]
        body = await answer(client, "GET", "/api/admin/settings/history?limit=1", SettingsHistoryBody)
        (newest,) = body.entries
        assert newest.by == "key-1" and newest.request_id.startswith("req_")
        body = await answer(
            client, "GET", f"/api/admin/settings/history?before={body.next_before}", SettingsHistoryBody
        )
        (oldest,) = body.entries
        assert body.next_before is None
        assert await undo(client) == [("MAX_CHOICES", "6", "5")]
        await change(client, MAX_CHOICES=None, MODEL_MAP=None)
        assert await setting(client, "MAX_CHOICES") == ("4", "environment")
        assert len(await undo(client, oldest.number)) == 2
        assert await setting(client, "MAX_CHOICES") == ("5", "runtime")


async def test_no_secret_is_among_the_settings() -> None:
    secrets = {"QWEN_EXTRA_HEADERS": '{"cookie": "canary"}', "PROXY_URL": "http://u:canary@127.0.0.1:9"}
    async with running(accounts=("a@example.com:canary",), **secrets) as gateway, as_admin(gateway) as client:
        async with client.get("/api/admin/settings") as response:
            assert "canary" not in await response.text()
        assert await setting(client, "ACCOUNTS") == ("***", "environment")


async def test_every_change_is_in_the_audit_log_and_what_changes_nothing_is_not() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        await change(client, MAX_CHOICES=5)
        await change(client, MAX_CHOICES=5)
        await undo(client)
        body = await answer(client, "GET", "/api/admin/audit", AuditBody)
        assert [(each.action, each.details) for each in body.entries] == [
            ("settings.undo", {}),
            ("settings.change", {"MAX_CHOICES": "5"}),
        ]
        entry = body.entries[0]
        assert (entry.key_name, entry.address) == ("key-1", "127.0.0.1") and entry.request_id.startswith("req_")
        first = await answer(client, "GET", "/api/admin/audit?limit=1", AuditBody)
        rest = await answer(client, "GET", f"/api/admin/audit?before={first.next_before}", AuditBody)
        assert (*first.entries, *rest.entries) == body.entries and rest.next_before is None


async def test_the_client_of_a_trusted_proxy_is_told_by_its_own_address() -> None:
    for trusted, address in (("127.0.0.1", "203.0.113.7"), ("", "127.0.0.1")):
        async with running(TRUSTED_PROXIES=trusted) as gateway, as_admin(gateway) as client:
            forwarded = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
            body = {"values": {"MAX_CHOICES": 5}}
            await answer(client, "PATCH", "/api/admin/settings", SettingsChangedBody, json=body, headers=forwarded)
            (entry,) = (await answer(client, "GET", "/api/admin/audit", AuditBody)).entries
            assert entry.address == address


async def test_processes_and_diagnostics_tell_of_the_running_server() -> None:
    async with running() as gateway, as_admin(gateway) as client:
        (process,) = (await answer(client, "GET", "/api/admin/processes", ProcessesBody)).processes
        assert (process.id, process.in_use, process.waiting) == (gateway.commons.membership.id, {}, 0)
        body = await answer(client, "GET", "/api/admin/diagnostics", DiagnosticsBody)
        assert [each.account for each in body.accounts] == ["a@example.com"]


# --- throttling ----------------------------------------------------------------------------------------------


async def wrong(gateway: Running, key: str = "sk-nobody-has-this") -> int:
    async with ClientSession(gateway.url, headers={"x-api-key": key}) as client:
        async with client.get("/api/admin/settings") as response:
            if response.status == 429:
                assert await refusal(response) == (429, "too_many_attempts", None)
                assert 1 <= int(response.headers["Retry-After"]) <= 600
            return response.status


async def test_wrong_keys_are_throttled_and_the_right_one_is_not() -> None:
    async with running(WRONG_KEYS_PER_ADDRESS="3") as gateway, as_admin(gateway) as client:
        assert [await wrong(gateway) for _ in range(5)] == [401, 401, 401, 429, 429]
        await change(client, MAX_CHOICES=5)
        assert await wrong(gateway, USER_KEY) == 403
        async with ClientSession(gateway.url) as stranger:
            async with stranger.post("/api/admin/session", json={"api_key": ADMIN_KEY}) as response:
                assert (await refusal(response))[0] == 429
            async with stranger.get("/api/admin/settings") as response:
                assert response.status == 401  # no key is no guess
