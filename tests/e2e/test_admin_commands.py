"""The commands that use the admin API: through the running server, and through one of their own."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qwen_proxy.simulator import Account, Scenario
from tests.e2e.test_cli import site
from tests.support.command import ENTRY, Ran, run_command
from tests.support.freed import until
from tests.support.http import ADMIN_KEY
from tests.support.running import Running, ask, running

LINES = "bob@example.com:pw\n# a comment\n\nno login at all\ncarol@example.com:pw|socks5://u:canary@127.0.0.1:1\nbob@example.com:pw\n"


class Person:
    """Runs commands in a folder, with the same variables each time, and sees no secret."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.environ = environ
        (folder / "password").write_text("canary-pw\n")

    async def run(self, *arguments: str) -> Ran:
        ran = await run_command(self.folder, *arguments, **self.environ)
        assert "canary" not in ran.out + ran.err and "eyJ" not in ran.out + ran.err, arguments
        return ran

    async def json(self, *arguments: str) -> Any:
        ran = await self.run(*arguments, "--json")
        assert ran.code == 0, (arguments, ran.out, ran.err)
        return ran.json


def beside(gateway: Running, folder: Path) -> Person:
    """Who uses the running server."""
    return Person(folder, SERVICE_PORT=gateway.url.rpartition(":")[2], API_KEY=ADMIN_KEY)


# --- with no server ----------------------------------------------------------------------------------------


async def test_accounts_are_added_tested_listed_switched_and_removed_without_a_server(tmp_path: Path) -> None:
    accounts = {"alice@example.com": Account("canary-pw"), "bob@example.com": Account("other")}
    async with site(Scenario(accounts=accounts)) as (simulator, environ):
        person = Person(tmp_path, **{**environ, "ACCOUNTS": ""})
        none = await person.run("accounts", "list")
        assert none.code == 0 and "accounts add" in none.out
        added = await person.run(
            "accounts", "add", "alice@example.com", "--password-file", "password", "--labels", "team,x", "--note", "n"
        )
        assert added.code == 0 and "was added" in added.out and "signed in until" in added.out
        wrong = await person.run("accounts", "add", "bob@example.com", "--password-file", "password")
        assert wrong.code == 1 and "FAIL" in wrong.out and "wrong_password" in wrong.out
        again = await person.run("accounts", "add", "alice@example.com", "--password-file", "password")
        assert again.code == 1 and "exists already" in again.err
        listed = await person.json("accounts", "list")
        states = {each["id"]: each["health"]["state"] for each in listed["accounts"]}
        assert states == {"alice@example.com": "ready", "bob@example.com": "sign_in_refused"}
        table = await person.run("accounts", "list", "--label", "team")
        assert "alice@example.com" in table.out and "bob" not in table.out and "1 of 2 accounts" in table.out
        tested = await person.run("accounts", "test", "alice@example.com", "bob@example.com")
        assert tested.code == 1 and "ok" in tested.out and "FAIL" in tested.out
        signed_in = len(simulator.requests)
        disabled = await person.run("accounts", "disable", "alice@example.com")
        assert disabled.out == "alice@example.com is not used.\n"
        assert (await person.json("accounts", "list", "--state", "disabled"))["total"] == 1
        await person.run("accounts", "enable", "alice@example.com")
        asked = await person.run("accounts", "remove", "alice@example.com")
        assert asked.code == 0 and "--yes" in asked.out
        removed = await person.run("accounts", "remove", "alice@example.com", "--yes")
        assert removed.out == "alice@example.com is forgotten.\n"
        gone = await person.run("accounts", "remove", "alice@example.com", "--yes")
        assert gone.code == 1 and "alice@example.com" in gone.err
        assert len(simulator.requests) == signed_in  # who only looks or changes has nobody signed in


async def test_a_batch_is_looked_at_first_and_then_added(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(LINES)
    async with site() as (_, environ):
        person = Person(tmp_path, **{**environ, "ACCOUNTS": "", "CONNECT_TIMEOUT_SECONDS": "1"})
        dry = await person.run("accounts", "import", "lines.txt", "--dry-run")
        assert dry.code == 1 and "4 lines: 2 good, 1 known already, 1 wrong." in dry.out
        assert "line 4: there is no ':'" in dry.err and "Nothing was added" in dry.out
        (tmp_path / "good.txt").write_text("bob@example.com:pw\ndora@example.com:pw\n")
        done = await person.json("accounts", "import", "good.txt", "--labels", "new")
        batch = done["batch"]
        assert (batch["status"], batch["succeeded"]) == ("completed", 2)
        assert (await person.json("accounts", "list", "--label", "new"))["total"] == 2
        listed = await person.run("batches", "list")
        assert str(batch["id"]) in listed.out and "2 added, 0 failed" in listed.out
        nothing = await person.run("accounts", "import", "good.txt")
        assert nothing.code == 0 and "0 good" in nothing.out
        missing = await person.run("accounts", "import", "nowhere.txt")
        assert missing.code == 1 and "nowhere.txt" in missing.err


async def test_nothing_is_changed_where_nothing_is_kept(tmp_path: Path) -> None:
    person = Person(tmp_path, DATA_SAVE_MODE="none", SERVICE_PORT="1")
    for command in (["accounts", "list"], ["keys", "create"], ["usage"], ["settings", "set", "CHAT_RETRY_COUNT=1"]):
        ran = await person.run(*command)
        assert ran.code == 2 and "nothing outlives the server" in ran.err


# --- through the running server ----------------------------------------------------------------------------


async def test_a_key_is_made_used_limited_revoked_and_restored(tmp_path: Path) -> None:
    async with running() as gateway:
        person = beside(gateway, tmp_path)
        made = await person.run(
            "keys", "create", "--name", "app", "--expires", "30d", "--rpm", "5", "--models", "qwen*"
        )
        secret = made.out.strip()
        assert secret.startswith("sk-") and "\n" not in secret and "not shown again" in made.err

        async def status() -> int:
            headers = {"Authorization": f"Bearer {secret}"}
            async with gateway.client.get("/v1/models", headers=headers) as response:
                return response.status

        assert await status() == 200
        listed = await person.run("keys", "list")
        assert "app" in listed.out and "5 requests/min" in listed.out and "qwen*" in listed.out
        assert secret not in listed.out
        revoked = await person.run("keys", "revoke", "app")
        assert revoked.code == 0 and "works no more" in revoked.out and await status() == 401
        keys = await person.json("keys", "list")
        (id,) = [each["id"] for each in keys["keys"] if each["name"] == "app"]
        assert (await person.json("keys", "restore", id))["status"] == "active"
        assert await status() == 200
        unknown = await person.run("keys", "revoke", "nobody")
        assert unknown.code == 1 and "keys list" in unknown.err
        await person.run("keys", "create", "--name", "app")
        both = await person.run("keys", "revoke", "app")
        assert both.code == 1 and "several keys go" in both.err
        twice = await person.run("keys", "create", "--expires", "1d", "--days", "1")
        assert twice.code == 2 and "exclude" in twice.err
        assert (await person.json("keys", "create", "--days", "1"))["key"]["expires_at"] > 0
        wrong = await person.run("keys", "create", "--expires", "soon")
        assert wrong.code == 2 and "no point in time" in wrong.err
        (tmp_path / "own").write_text("sk-my-very-own-key-1\n")
        own = await person.run("keys", "create", "--key-file", "own", "--admin", "--json")
        assert own.json["secret"] == "sk-my-very-own-key-1" and own.json["key"]["role"] == "admin"


async def test_usage_is_told_as_a_table_and_as_csv(tmp_path: Path) -> None:
    async with running() as gateway:
        person = beside(gateway, tmp_path)
        empty = await person.run("usage")
        assert empty.code == 0 and "Nothing was used" in empty.out
        for _ in range(2):
            async with gateway.client.post("/v1/chat/completions", json=ask()) as response:
                assert response.status == 200
        await gateway.commons.usage.flush()
        table = await person.run("usage", "--by", "account,model,day")
        assert "a@example.com" in table.out and "qwen3.7-plus" in table.out
        told = await person.json("usage", "--by", "key")
        assert [line["requests"] for line in told["lines"]] == [2]
        csv = await person.run("usage", "--by", "day,account", "--csv")
        head, line = csv.out.splitlines()
        assert head.startswith("time,account,requests") and ",a@example.com,2," in line
        await person.run("usage", "--csv", "--out", "usage.csv", "--hours")
        assert (tmp_path / "usage.csv").read_text().startswith("time,requests")
        wrong = await person.run("usage", "--by", "colour")
        assert wrong.code == 1 and "colour" in wrong.err
        assert (await person.run("usage", "--since", "soon")).code == 2


async def test_settings_change_in_the_running_server_and_go_back(tmp_path: Path) -> None:
    async with running() as gateway:
        person = beside(gateway, tmp_path)
        changed = await person.run("settings", "set", "CHAT_RETRY_COUNT=3", "OUTPUT_THINK=false")
        assert changed.out.splitlines() == [
            "CHAT_RETRY_COUNT: as the start has it -> 3",
            "OUTPUT_THINK: as the start has it -> false",
        ]
        assert gateway.live.current.chat_retry_count == 3
        listed = await person.run("settings", "list")
        assert "CHAT_RETRY_COUNT" in listed.out and "runtime" in listed.out and "SERVICE_PORT" not in listed.out
        assert "SERVICE_PORT" in (await person.run("settings", "list", "--all")).out
        await person.run("settings", "unset", "OUTPUT_THINK")
        history = await person.json("settings", "history")
        entries = history["entries"]
        assert len(entries) == 2
        back = await person.run("settings", "undo", str(entries[1]["number"]))
        assert "OUTPUT_THINK" in back.out and gateway.live.current.output_think is False
        await person.run("settings", "undo", "--json")
        assert gateway.live.current.output_think is True
        for wrong in ("CHAT_RETRY_COUNT=many", "SERVICE_PORT=1", "COLOUR=red"):
            ran = await person.run("settings", "set", wrong)
            assert ran.code == 1 and wrong.partition("=")[0] in ran.err
        assert (await person.run("settings", "set", "CHAT_RETRY_COUNT")).code == 2
        audit = await person.run("audit", "--limit", "3")
        assert "settings.undo" in audit.out and len(audit.out.splitlines()) == 4
        more = await person.json("audit")
        assert "settings.change" in str(more["entries"])


async def test_who_has_another_key_is_refused(tmp_path: Path) -> None:
    async with running() as gateway:
        port = gateway.url.rpartition(":")[2]
        ran = await run_command(tmp_path, "keys", "list", "--json", SERVICE_PORT=port, API_KEY="sk-of-somebody-else")
        assert ran.code == 1 and ran.json["error"]["kind"] == "ServerRefused"


@pytest.mark.timeout(90)
async def test_a_batch_goes_on_when_nobody_looks_any_more(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"user{number}@example.com:pw\n" for number in range(3)))
    async with running(accounts=(), SIGNIN_SPACING_SECONDS="3600") as gateway:
        person = beside(gateway, tmp_path)
        terminal, end = os.openpty()  # a bar is for who looks at a terminal
        process = await asyncio.create_subprocess_exec(
            str(ENTRY),
            "accounts",
            "import",
            "lines.txt",
            cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100", **person.environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=end,
        )
        os.close(end)
        seen = bytearray()

        def look() -> None:
            with suppress(OSError):  # the other side is closed, on Linux
                seen.extend(os.read(terminal, 65536))

        # To the end: a terminal that nobody reads fills up, and whoever writes to it waits for ever.
        asyncio.get_running_loop().add_reader(terminal, look)
        try:
            assert await until(lambda: b"1/3" in seen, within_seconds=30), seen
            process.send_signal(signal.SIGINT)
            out, _ = await process.communicate()
        finally:
            asyncio.get_running_loop().remove_reader(terminal)
            if process.returncode is None:
                process.kill()
                await process.wait()
        look()
        said = seen.decode()
        os.close(terminal)
        assert process.returncode == 130 and b"3 good" in out
        assert "goes on in the server" in said
        (batch,) = (await person.json("batches", "list"))["batches"]
        assert (batch["status"], batch["succeeded"], batch["done"]) == ("running", 1, 1) and batch["id"] in said
        paused = await person.run("batches", "pause", batch["id"])
        assert paused.code == 0 and "paused at 1 of 3" in paused.out
        looked = await person.run("batches", "follow", batch["id"])
        assert looked.code == 1 and "batches resume" in looked.err
        resumed = await person.json("batches", "resume", batch["id"])
        assert resumed["status"] == "running"
        cancelled = await person.run("batches", "cancel", batch["id"])
        assert cancelled.code == 0
        assert (await person.run("batches", "retry", batch["id"])).code == 1
