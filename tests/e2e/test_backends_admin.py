"""Backends while the server runs, as an operator handles them: over the admin API, and by commands."""

import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from qwen_proxy.admin.backends import BackendTestBody, KnownBackendBody, KnownBackendsBody
from qwen_proxy.admin.records import AuditBody
from qwen_proxy.state.kinds import BACKEND_KEY
from tests.e2e.test_backends import described, say
from tests.support.admin import answer, as_admin
from tests.support.command import Ran, run_command
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.openai_server import OpenAIServer
from tests.support.replies import refusal
from tests.support.running import Running, running

PATH = "/api/admin/backends"
GOOD, BAD = "canary-good-0123456789", "canary-bad-0123456789"


async def refused(client: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any]) -> tuple[Any, str]:
    async with client.request(method, path, json=body) as response:
        return await refusal(response), (await response.json())["error"]["message"]


async def test_a_backend_from_its_first_day_to_its_last(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with OpenAIServer(GOOD) as server, running(accounts=()) as gateway, as_admin(gateway) as client:
        form = {"name": "lab", "base_url": server.base_url, "keys": [BAD, GOOD], "headers": {"X-Team": "canary-head"}}
        added = await answer(client, "POST", PATH, KnownBackendBody, json=form)
        assert (added.name, added.origin.value, added.enabled, added.headers) == ("lab", "added", True, ("X-Team",))
        assert [key.hint for key in added.keys] == ["…6789", "…6789"]

        tested = await answer(client, "POST", f"{PATH}/lab/test", BackendTestBody)
        assert not tested.works and [bool(key.problem) for key in tested.keys] == [True, False]
        assert tested.keys[1].models == ("m-1", "m-2")
        assert [key.state.value for key in tested.backend.keys] == ["retired", "ready"]
        assert (await say(gateway))[0] == 200 and server.keys == [GOOD]  # the refused one was not tried again

        edited = await answer(client, "PATCH", f"{PATH}/lab", KnownBackendBody, json={"key": GOOD, "prefix": "lab/"})
        assert (edited.prefix, len(edited.keys), edited.headers) == ("lab/", 1, ("X-Team",))
        (listed,) = (await answer(client, "GET", PATH, KnownBackendsBody)).backends
        assert listed == await answer(client, "GET", f"{PATH}/lab", KnownBackendBody)

        await answer(client, "PATCH", f"{PATH}/lab", KnownBackendBody, json={})
        async with client.delete(f"{PATH}/lab") as response:
            assert response.status == 204
        assert (await answer(client, "GET", PATH, KnownBackendsBody)).backends == ()
        audit = await answer(client, "GET", "/api/admin/audit", AuditBody)
        lines = [(each.action, each.target) for each in audit.entries]
        told = ["backend.remove", "backend.change", "backend.test", "backend.add"]  # no line for what changed nothing
        assert lines == [(action, "lab") for action in told]
        assert audit.entries[-1].details["keys"] == "2"
        for path in (PATH, "/api/admin/audit", "/api/admin/diagnostics"):
            async with client.get(path) as response:
                assert "canary" not in await response.text()
        assert "canary" not in caplog.text


async def test_a_server_that_repeats_the_key_is_not_quoted_with_it() -> None:
    async with OpenAIServer() as server, running(accounts=()) as gateway, as_admin(gateway) as client:
        body = b'{"error": {"message": "no such key: ' + BAD.encode() + b'", "code": "bad_request"}}'
        head = f"HTTP/1.1 400 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        server.refusals[BAD] = lambda: head.encode() + body
        await answer(
            client, "POST", PATH, KnownBackendBody, json={"name": "lab", "base_url": server.base_url, "key": BAD}
        )
        async with client.post(f"{PATH}/lab/test") as response:
            text = await response.text()
            assert "no such key: ***" in text and "canary" not in text


async def test_keys_come_and_go_one_by_one() -> None:
    environment = '[{"name": "env", "base_url": "http://b/v1", "key": "sk-env"}]'
    async with OpenAIServer(GOOD) as server, running(BACKENDS=environment) as gateway, as_admin(gateway) as client:
        form = {"name": "lab", "base_url": server.base_url, "keys": [BAD], "models": ["m-1"]}
        await answer(client, "POST", PATH, KnownBackendBody, json=form)
        await answer(client, "POST", f"{PATH}/lab/test", BackendTestBody)
        more = await answer(client, "POST", f"{PATH}/lab/keys", KnownBackendBody, json={"keys": [GOOD, BAD]})
        assert [key.state.value for key in more.keys] == ["retired", "ready"]
        assert (await say(gateway))[0] == 200 and server.keys == [GOOD]

        one = f"{PATH}/lab/keys/{more.keys[0].id}"
        left = await answer(client, "DELETE", one, KnownBackendBody)
        assert [key.id for key in left.keys] == [more.keys[1].id]
        assert await gateway.commons.store.find(BACKEND_KEY) == []
        wrong: list[tuple[str, str, dict[str, Any], int, str | None, str]] = [
            ("DELETE", one, {}, 404, None, "API key"),
            ("POST", f"{PATH}/lab/keys", {"keys": []}, 400, "keys", "a key at least"),
            ("POST", f"{PATH}/lab/keys", {"keys": ["a b"]}, 400, "keys", "printable"),
            ("POST", f"{PATH}/lab/keys", {"key": BAD}, 400, "key", "there is no `key` here"),
            ("POST", f"{PATH}/env/keys", {"keys": [BAD]}, 400, "name", "in the environment"),
            ("POST", f"{PATH}/nobody/keys", {"keys": [BAD]}, 404, None, "'nobody'"),
        ]
        for method, path, body, status, param, says in wrong:
            told, message = await refused(client, method, path, body)
            assert (told[0], told[2]) == (status, param) and says in message, (path, body, told, message)
        anew = await answer(client, "POST", f"{PATH}/lab/keys", KnownBackendBody, json={"keys": [BAD]})
        assert [key.state.value for key in anew.keys] == ["ready", "ready"]

        audit = await answer(client, "GET", "/api/admin/audit", AuditBody)
        lines = [(each.action, each.target, each.details) for each in audit.entries[:3]]
        assert lines == [
            ("backend.add_keys", "lab", {"keys": "1"}),
            ("backend.remove_key", "lab", {"key": more.keys[0].id}),
            ("backend.add_keys", "lab", {"keys": "2"}),
        ]
        assert "canary" not in str(audit)


async def test_one_that_is_switched_off_gets_no_request_until_it_is_switched_on() -> None:
    async with OpenAIServer() as first, OpenAIServer() as second:
        others = described(first, models=["m-1"])[:-1] + "," + described(second, models=["m-1"], name="c")[1:]
        async with running(accounts=(), BACKENDS=others) as gateway, as_admin(gateway) as client:
            assert (await say(gateway))[0] == 200 and (len(first.asked), len(second.asked)) == (1, 0)
            off = await answer(client, "PATCH", f"{PATH}/b", KnownBackendBody, json={"enabled": False})
            assert (off.enabled, off.origin.value) == (False, "environment")
            assert (await say(gateway))[0] == 200 and (len(first.asked), len(second.asked)) == (1, 1)
            await answer(client, "PATCH", f"{PATH}/b", KnownBackendBody, json={})
            assert (await say(gateway))[0] == 200 and len(second.asked) == 2
            tested = await answer(client, "POST", f"{PATH}/b/test", BackendTestBody)
            assert tested.works and tested.keys[0].id == "none"
            await answer(client, "PATCH", f"{PATH}/b", KnownBackendBody, json={"enabled": True})
            assert (await say(gateway, "another talk"))[0] == 200 and len(first.asked) == 2  # one keeps its backend


async def test_what_is_wrong_is_named() -> None:
    lab = {"name": "lab", "base_url": "http://lab/v1"}
    off = '[{"name": "b", "base_url": "http://b/v1"}, {"name": "off", "base_url": "http://b/v1", "enabled": false}]'
    async with running(BACKENDS=off) as gateway, as_admin(gateway) as client:
        wrong: list[tuple[str, str, dict[str, Any], int, str | None, str]] = [
            ("POST", PATH, {"name": "lab"}, 400, "base_url", "should be given"),
            ("POST", PATH, {"preset": "nope"}, 400, "preset", "model-studio"),
            ("POST", PATH, {"preset": "model-studio"}, 400, "keys", "wants a key"),
            ("POST", PATH, lab | {"keys": ["a b"]}, 400, "keys", "printable"),
            ("POST", PATH, lab | {"concurrency": -1}, 400, "concurrency", "0 for no limit"),
            ("POST", PATH, lab | {"modles": []}, 400, "modles", "there is no `modles` here"),
            ("POST", PATH, lab | {"name": "web"}, 400, "name", "none of"),
            ("POST", PATH, lab | {"name": "b"}, 409, None, "'b'"),
            ("PATCH", f"{PATH}/b", {"prefix": "x"}, 400, "name", "in the environment"),
            ("PATCH", f"{PATH}/off", {"enabled": True}, 400, "enabled", "switched off in the environment"),
            ("DELETE", f"{PATH}/b", {}, 400, "name", "disable it"),
            ("PATCH", f"{PATH}/lab", {"prefix": "x"}, 404, None, "'lab'"),
            ("POST", f"{PATH}/lab/test", {}, 404, None, "'lab'"),
        ]
        for method, path, body, status, param, says in wrong:
            told, message = await refused(client, method, path, body)
            assert (told[0], told[2]) == (status, param) and says in message, (path, body, told, message)
        names = [each.name for each in (await answer(client, "GET", PATH, KnownBackendsBody)).backends]
        assert names == ["b", "off"]


async def command(gateway: Running, folder: Path, *arguments: str, code: int = 0, feed: str = "") -> Ran:
    port = gateway.url.rpartition(":")[2]
    environ = {"SERVICE_PORT": port, "API_KEY": f"{ADMIN_KEY},{USER_KEY}", "DATA_DIR": str(folder / "data")}
    ran = await run_command(folder, "backends", *arguments, feed=feed, **environ)
    assert ran.code == code and "canary" not in ran.out + ran.err, (arguments, ran.code, ran.out, ran.err)
    return ran


@pytest.mark.timeout(180)
async def test_the_commands_of_an_operator(tmp_path: Path) -> None:
    async with OpenAIServer(GOOD) as server, running(accounts=()) as gateway:
        assert "backends add" in (await command(gateway, tmp_path, "list")).out
        address = ("--base-url", server.base_url)
        no_key = await command(gateway, tmp_path, "add", "--preset", "model-studio", *address, code=2)
        assert "no API key was given" in no_key.err

        wrong = await command(gateway, tmp_path, "add", "--name", "lab", *address, "--key", "-", code=1, feed=BAD)
        assert "FAIL" in wrong.out and "invalid_api_key" in wrong.out
        assert "backends keys add lab" in wrong.out and "backends keys remove lab" in wrong.out
        assert "retired" in (await command(gateway, tmp_path, "list")).out

        (tmp_path / "keys").write_text(f"{GOOD}\n\n")
        options = ("--key-file", "keys", "--prefix", "lab/", "--concurrency", "3", "--header", "X-Team: canary")
        assert "is changed" in (await command(gateway, tmp_path, "edit", "lab", *options)).out
        assert "2 models" in (await command(gateway, tmp_path, "test")).out
        shown = (await command(gateway, tmp_path, "show", "lab", "--json")).json
        assert (shown["prefix"], shown["concurrency"], shown["headers"]) == ("lab/", 3, ["X-Team"])

        await command(gateway, tmp_path, "disable", "lab")
        assert "switched off" in (await command(gateway, tmp_path, "list")).out
        await command(gateway, tmp_path, "enable", "lab")
        assert "…6789" in (await command(gateway, tmp_path, "show", "lab")).out
        await command(gateway, tmp_path, "remove", "lab", "--yes")
        assert "'lab'" in (await command(gateway, tmp_path, "show", "lab", code=1)).err


@pytest.mark.timeout(180)
async def test_the_commands_of_keys(tmp_path: Path) -> None:
    async with OpenAIServer(GOOD) as server, running(accounts=()) as gateway, as_admin(gateway) as client:
        form = {"name": "lab", "base_url": server.base_url, "key": BAD}
        await answer(client, "POST", PATH, KnownBackendBody, json=form)
        added = await command(gateway, tmp_path, "keys", "add", "lab", "--key", "-", feed=f"{GOOD}\n{BAD}")
        assert "lab has one key more, 2 in all" in added.out and "backends test lab" in added.out
        listed = (await command(gateway, tmp_path, "keys", "list", "lab", "--json")).json["keys"]
        assert [(key["state"], key["hint"]) for key in listed] == [("ready", "…6789")] * 2
        both = await command(gateway, tmp_path, "keys", "remove", "lab", "6789", "--yes", code=1)
        assert "several keys go by '6789'" in both.err
        assert "with --yes" in (await command(gateway, tmp_path, "keys", "remove", "lab", listed[0]["id"])).out
        gone = await command(gateway, tmp_path, "keys", "remove", "lab", listed[0]["id"], "--yes")
        assert "1 key is forgotten, 1 left" in gone.out
        gone = await command(gateway, tmp_path, "keys", "remove", "lab", "…6789", "--yes", "--json")
        assert gone.json == {"removed": [listed[1]["id"]]}
        assert "without one" in (await command(gateway, tmp_path, "keys", "list", "lab")).out


@pytest.mark.timeout(120)
async def test_the_doctor_looks_at_backends_and_misses_no_account_beside_them(tmp_path: Path) -> None:
    async with OpenAIServer(GOOD) as server:
        async with running(accounts=(), BACKENDS=described(server, GOOD, BAD)) as gateway:
            environ = {"SERVICE_PORT": gateway.url.rpartition(":")[2], "API_KEY": ADMIN_KEY}
            environ["QWEN_CHAT_PROXY_URL"] = gateway.simulator.base_url
            ran = await run_command(tmp_path, "doctor", "--json", "--no-chat", **environ)
            checks = {each["name"]: (each["verdict"], each["trouble"]) for each in ran.json["checks"]}
            assert checks["backend b"] == ("warn", "backend") and checks["accounts"][0] == "skipped", ran.out
            assert "canary" not in ran.out
