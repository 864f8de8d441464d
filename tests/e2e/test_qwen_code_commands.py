"""The commands of Qwen Code as a person runs them, beside a server."""

from pathlib import Path

from qwen_proxy.simulator import Portal, Scenario
from tests.e2e.test_admin_commands import beside
from tests.support.running import running


async def test_a_person_signs_in_in_a_browser_tests_and_forgets(tmp_path: Path) -> None:
    portal = Portal(approves_after=2, slow_downs=(429,))
    async with running(Scenario(portal=portal), QWEN_CODE_ENABLED="true") as gateway:
        portal.resource_url = gateway.simulator.base_url
        person = beside(gateway, tmp_path)
        signed = await person.run("qwen-code", "login", "--label", "mine")
        assert signed.code == 0 and "mine" in signed.out, signed
        assert "https://chat.qwen.ai/authorize?user_code=" in signed.err and "Waiting" in signed.err
        times = [seen.at for seen in gateway.simulator.seen("oauth_token")]
        assert len(times) == 3 and times[1] - times[0] > 2.5 and times[2] - times[1] > 2.5  # after slow_down: 3 s
        listed = await person.json("qwen-code", "list")
        (sign_in,) = listed["sign_ins"]
        assert (sign_in["label"], sign_in["state"], sign_in["account"]) == ("mine", "ready", "")
        assert "free tier ended" in (await person.run("qwen-code", "list")).err
        tried = await person.run("qwen-code", "test", sign_in["id"])
        assert tried.code == 0 and "answers (coder-model)" in tried.out
        portal.refused = "all"
        tried = await person.run("qwen-code", "test", sign_in["id"])
        assert tried.code == 1 and "free tier ended on 2026-04-15" in tried.out
        told = await person.json("qwen-code", "remove", sign_in["id"])
        assert told == {"removed": sign_in["id"]}
        assert (await person.json("qwen-code", "list"))["sign_ins"] == []


async def test_a_refusal_and_a_switch_that_is_off_are_told(tmp_path: Path) -> None:
    async with running(Scenario(portal=Portal(denied="access_denied")), QWEN_CODE_ENABLED="true") as gateway:
        refused = await beside(gateway, tmp_path).run("qwen-code", "login", "--account", "a@example.com")
        assert refused.code == 1 and "was refused on its page" in refused.out
    async with running() as gateway:
        off = await beside(gateway, tmp_path).run("qwen-code", "login")
        assert off.code == 1 and "2026-04-15" in off.err and "QWEN_CODE_ENABLED=true" in off.err
