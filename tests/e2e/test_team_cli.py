"""The commands of accounts, keys, usage and settings, as an operator types them, with a running server."""

from pathlib import Path

import pytest

from qwen_proxy.simulator import Fault, Scenario
from qwen_proxy.simulator.replies import flat_error
from tests.support.command import Ran, run_command
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.running import running


@pytest.mark.timeout(120)
async def test_a_day_of_an_operator(tmp_path: Path) -> None:
    wrong = Fault(flat_error(400, "The email or password provided is incorrect."), "signin_v1", account="bad@x.org")
    async with running(Scenario(faults=[wrong]), accounts=()) as gateway:
        port = gateway.url.rpartition(":")[2]

        async def command(*arguments: str, code: int = 0) -> Ran:
            environ = {"SERVICE_PORT": port, "API_KEY": f"{ADMIN_KEY},{USER_KEY}", "DATA_DIR": str(tmp_path / "data")}
            ran = await run_command(tmp_path, *arguments, **environ)
            assert ran.code == code, (arguments, ran.out, ran.err)
            return ran

        (tmp_path / "pw").write_text("secret\n")
        assert (
            "was added" in (await command("accounts", "add", "A@x.org", "--password-file", "pw", "--labels", "x")).out
        )
        (tmp_path / "lines").write_text("b@x.org:pw\nbad@x.org:pw\nno colon\na@x.org:pw\n")
        looked = await command("accounts", "import", "lines", "--dry-run", code=1)
        assert "4 lines: 2 good, 1 known already, 1 wrong" in looked.out and "line 3" in looked.err
        done = await command("accounts", "import", "lines", code=1)
        assert "1 added, 1 failed" in done.out and "line 2, bad@x.org: " in done.err
        listed = (await command("accounts", "list", "--json")).json
        assert [account["email"] for account in listed["accounts"]] == ["A@x.org", "b@x.org"]
        assert "secret" not in (await command("accounts", "list")).out
        await command("accounts", "disable", "b@x.org")
        assert "signed in" in (await command("accounts", "test", "a@x.org")).out
        await command("accounts", "remove", "b@x.org", "--yes")
        assert (await command("accounts", "remove", "b@x.org", "--yes", code=1)).err

        made = (await command("keys", "create", "--name", "ada", "--rpm", "60", "--models", "qwen3.7-*", "--json")).json
        assert made["secret"].startswith("sk-") and made["key"]["limits"]["requests_per_minute"] == 60
        assert made["secret"] not in (await command("keys", "list")).out
        await command("keys", "revoke", "ada")
        assert "revoked" in (await command("keys", "list")).out
        await command("keys", "restore", made["key"]["id"])
        await command("keys", "delete", "ada")
        assert "no key goes by" in (await command("keys", "revoke", "ada", code=1)).err

        assert "hello" in (await command("chat", "hello")).out
        await gateway.commons.usage.flush()
        assert (await command("usage", "--by", "account,model", "--json")).json["lines"][0]["requests"] == 1
        assert (await command("usage", "--by", "key", "--csv")).out.startswith("key,key_name,requests")
        assert "Requests" in (await command("usage")).out

        assert "OUTPUT_THINK" in (await command("settings", "set", "OUTPUT_THINK", "false")).out
        assert "runtime" in (await command("settings", "list")).out
        assert "false" in (await command("settings", "history")).out
        await command("settings", "undo")
        assert "It was so already." in (await command("settings", "unset", "OUTPUT_THINK")).out
        assert "from 1 to 128" in (await command("settings", "set", "MAX_CHOICES", "x", code=1)).err
        assert "account.add" in (await command("audit")).out or "account" in (await command("audit")).out
