"""The commands, as processes, against the simulator."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from qwen_proxy.simulator import Account, Scenario, Simulator, challenge, quota
from qwen_proxy.simulator.answers import Shape, compose
from tests.support.command import ENTRY, Ran, run_command
from tests.support.http import ADMIN_KEY
from tests.support.running import running

ALICE = "alice@example.com:pw"


@asynccontextmanager
async def site(scenario: Scenario | None = None) -> AsyncGenerator[tuple[Simulator, dict[str, str]]]:
    """A simulated upstream, and the variables that lead to it; no port of ours is taken."""
    async with Simulator(scenario) as simulator:
        environ = {
            "QWEN_CHAT_PROXY_URL": simulator.base_url,
            "ACCOUNTS": ALICE,
            "SERVICE_PORT": str(free_port()),
            "SIGNIN_SPACING_SECONDS": "0",
            "CHAT_RETRY_COUNT": "0",
        }
        yield simulator, environ


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def texts_below(folder: Path) -> list[str]:
    return [file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()]


def troubles(ran: Ran) -> dict[str, str]:
    """Trouble -> advice, of every check of doctor that found one."""
    return {check["trouble"]: check["advice"] for check in ran.json["checks"] if check["trouble"]}


# --- configuration ------------------------------------------------------------------------------------------


async def test_config_tells_where_each_value_came_from_and_shows_no_secret(tmp_path: Path):
    (tmp_path / ".env").write_text("SERVICE_PORT=4000\nACCOUNTS=a@x.example:canary\n")
    ran = await run_command(tmp_path, "config", "--json", API_KEY="sk-canary-key", PROXY_URL="http://u:canary@h:1")
    values = {row["name"]: (row["value"], row["source"]) for row in ran.json["variables"]}
    assert values["SERVICE_PORT"] == ("4000", ".env")
    assert values["API_KEY"] == ("***", "environment")
    assert values["PROXY_URL"] == ("http://***@h:1", "environment")
    assert values["LOG_LEVEL"] == ("INFO", "default")
    table = await run_command(tmp_path, "config", API_KEY="sk-canary-key")
    assert "SERVICE_PORT" in table.out and "4000" in table.out
    assert "canary" not in ran.out + ran.err + table.out + table.err


async def test_wrong_setting_stops_with_code_2_and_names_what_would_be_right(tmp_path: Path):
    ran = await run_command(tmp_path, "models", SERVICE_PORT="http")
    assert ran.code == 2
    assert "SERVICE_PORT='http'" in ran.err and "a whole number from 0 to 65535" in ran.err
    as_json = await run_command(tmp_path, "models", "--json", SERVICE_PORT="http")
    assert as_json.code == 2 and as_json.json["error"]["kind"] == "WrongSetting"


async def test_unknown_command_is_wrong_usage(tmp_path: Path):
    assert (await run_command(tmp_path, "dance")).code == 2


async def test_example_is_a_dotenv_that_changes_nothing(tmp_path: Path):
    (tmp_path / ".env").write_text((await run_command(tmp_path, "config", "--example")).out)
    ran = await run_command(tmp_path, "config", "--json")
    assert ran.json["warnings"] == []
    assert {row["source"] for row in ran.json["variables"]} == {"default"}


async def test_key_is_generated_once_and_shown(tmp_path: Path):
    first, again = await run_command(tmp_path, "key"), await run_command(tmp_path, "key", "--json")
    assert first.out.startswith("sk-")
    assert again.json == {"where": "data/admin.key", "key": first.out.strip()}
    where = await run_command(tmp_path, "key", "--where", API_KEY="sk-123456")
    assert where.out == "API_KEY (environment)\n"
    assert "sample key" in where.err


async def test_module_is_the_command(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qwen_proxy", "version", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out[:11]) == (0, b"qwen-proxy ")


# --- requests -----------------------------------------------------------------------------------------------


async def test_models_and_chat_work_with_nothing_configured(tmp_path: Path):
    port = str(free_port())
    models = await run_command(tmp_path, "models", "--json", SERVICE_PORT=port)
    assert models.code == 0 and "Qwen3.7-Plus" in [model["id"] for model in models.json["models"]]
    table = await run_command(tmp_path, "models", SERVICE_PORT=port)  # into a pipe: a model a line
    assert len(table.out.splitlines()) == 1 + len(models.json["models"])
    chat = await run_command(tmp_path, "chat", "hello", "--json", "--thinking", SERVICE_PORT=port)
    assert chat.code == 0 and "hello" in chat.json["text"] and chat.json["reasoning"]


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
async def test_chat_prints_the_answer_and_nothing_else_on_stdout(tmp_path: Path, how: str):
    async with site(Scenario(answer_text="Blue.\x1b[2J")) as (_, environ):
        ran = await run_command(tmp_path, "chat", "What colour?", "--thinking", how, **environ)
    assert (ran.code, ran.out) == (0, "Blue.[2J\n")
    thought, _, facts = ran.err.rpartition("\n\n")  # in a terminal the answer stands apart from what was thought
    assert thought.strip() and facts.strip().lower().startswith("qwen") and "tokens" in facts


async def test_chat_goes_through_the_running_server(tmp_path: Path):
    async with running() as gateway:
        port = gateway.url.rpartition(":")[2]
        ran = await run_command(
            tmp_path, "chat", "hello", "--search", "--json", SERVICE_PORT=port, API_KEY=ADMIN_KEY, ACCOUNTS=ALICE
        )
        assert ran.code == 0, ran.err
        assert ran.json["sources"]
        (completion,) = [seen for seen in gateway.simulator.requests if seen.endpoint == "completions"]
        assert completion.account == "a@example.com"


async def test_failed_request_has_code_1_and_the_servers_sentence(tmp_path: Path):
    async with site(Scenario(faults=[quota()])) as (_, environ):
        ran = await run_command(tmp_path, "chat", "hello", **environ)
        as_json = await run_command(tmp_path, "chat", "hello", "--json", **environ)
    assert ran.code == as_json.code == 1
    assert "quota" in ran.err
    assert as_json.json["error"]["kind"] == "ServerRefused"


async def test_accounts_check_tells_of_each(tmp_path: Path):
    accounts = {"alice@example.com": Account("pw"), "bob@example.com": Account("other")}
    async with site(Scenario(accounts=accounts)) as (simulator, environ):
        environ["ACCOUNTS"] = f"{ALICE},bob@example.com:pw,carol@example.com:pw|http://127.0.0.1:1"
        ran = await run_command(tmp_path, "accounts", "check", "--json", **environ)
        table = await run_command(tmp_path, "accounts", "check", **environ)
        assert "carol@example.com" not in [seen.account for seen in simulator.requests]
    assert ran.code == table.code == 1
    rows = {row["account"]: row["trouble"] for row in ran.json["accounts"]}
    assert rows == {
        "al***@example.com": None,
        "bo***@example.com": "wrong_password",
        "ca***@example.com": "proxy_dead",
    }
    assert "Correct this account's password" in table.out


async def test_accounts_check_asks_the_simulator_when_that_stands_in(tmp_path: Path):
    ran = await run_command(tmp_path, "accounts", "check", "--json", ACCOUNTS=ALICE, SIMULATOR="always")
    assert ran.code == 0 and ran.json["accounts"][0]["says"] == "signed in"
    none = await run_command(tmp_path, "accounts", "check", DATA_DIR="another")
    assert none.code == 1 and "set ACCOUNTS" in none.out


# --- doctor -------------------------------------------------------------------------------------------------


async def test_doctor_finds_nothing_where_all_is_well(tmp_path: Path):
    async with site() as (_, environ):
        ran = await run_command(tmp_path, "doctor", "--json", **environ)
    assert ran.code == 0, ran.out
    assert ran.json["verdict"] == "ok"
    names = [check["name"] for check in ran.json["checks"]]
    assert names == [
        "configuration", "data folder", "data", "port", "account al***@example.com", "exit direct", "clock", "models",
        "chat", "drift",
    ]  # fmt: skip


async def test_doctor_gives_distinct_advice_for_six_faults(tmp_path: Path):
    drifting = compose(Shape("OK", drift=True))
    faults = {
        "wrong_password": Scenario(accounts={"alice@example.com": Account("other")}),
        "exit_challenged": Scenario(faults=[challenge("html", endpoint="any")]),
        "proxy_dead": Scenario(),
        "out_of_quota": Scenario(faults=[quota()]),
        "wrong_clock": Scenario(clock_offset_seconds=7200),
        "drift": Scenario(replies=[drifting]),
    }
    advice: dict[str, str] = {}
    for fault, scenario in faults.items():
        async with site(scenario) as (_, environ):
            if fault == "proxy_dead":
                environ["ACCOUNTS"] = f"{ALICE}|http://127.0.0.1:1"
            ran = await run_command(tmp_path, "doctor", "--json", QUEUE_SECONDS="1", DATA_DIR=fault, **environ)
            found = troubles(ran)
            assert fault in found, (fault, ran.out, ran.err)
            assert ran.code == (0 if fault == "drift" else 1)
            assert not faults.keys() - {fault} & found.keys(), (fault, found)
            advice[fault] = found[fault]
            assert "upstream_down" not in found  # nobody is sent to look for the fault elsewhere
    assert len(set(advice.values())) == 6


async def test_doctor_asks_the_running_server(tmp_path: Path):
    async with running(Scenario(faults=[quota(times=1)]), CHAT_RETRY_COUNT="0") as gateway:
        port = gateway.url.rpartition(":")[2]
        async with gateway.client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}
        ) as response:
            assert response.status == 429
        sign_ins = sum(seen.endpoint.startswith("signin") for seen in gateway.simulator.requests)
        environ = {"SERVICE_PORT": port, "ACCOUNTS": ALICE, "QWEN_CHAT_PROXY_URL": gateway.simulator.base_url}
        ran = await run_command(tmp_path, "doctor", "--json", "--no-chat", API_KEY=ADMIN_KEY, **environ)
        assert "out_of_quota" in troubles(ran)  # parked there; a process of its own would not know
        assert sum(seen.endpoint.startswith("signin") for seen in gateway.simulator.requests) == sign_ins
        other = await run_command(tmp_path, "doctor", "--json", API_KEY="sk-another-key", **environ)
    assert "key_refused" in troubles(other)


async def test_doctor_tells_a_port_that_another_program_has(tmp_path: Path):
    async with site() as (simulator, environ):
        environ["SERVICE_PORT"] = simulator.base_url.rpartition(":")[2]
        ran = await run_command(tmp_path, "doctor", **environ)
    assert ran.code == 1
    assert "another program listens" in ran.out and "SERVICE_PORT" in ran.out


async def test_doctor_stops_at_a_wrong_setting(tmp_path: Path):
    ran = await run_command(tmp_path, "doctor", "--json", CHAT_RETRY_COUNT="many")
    assert ran.code == 1 and list(troubles(ran)) == ["configuration"]
    (tmp_path / "data").touch()
    ran = await run_command(tmp_path, "doctor", "--json", "--no-chat")
    assert ran.code == 1 and list(troubles(ran)) == ["data_folder"]


# --- record -------------------------------------------------------------------------------------------------


async def test_record_writes_what_came_without_secrets(tmp_path: Path):
    async with site(Scenario(answer_text="A canary sang.")) as (simulator, environ):
        ran = await run_command(tmp_path, "record", "--prompt", "sing", "--json", **environ)
        kept = await run_command(tmp_path, "record", "--prompt", "sing", "--keep-text", "--name", "kept", **environ)
        again = await run_command(tmp_path, "record", "--prompt", "sing", **environ)
        tokens = {seen.headers["authorization"] for seen in simulator.requests if "authorization" in seen.headers}
    assert (ran.code, ran.json) == (
        0, {"files": ["recordings/recorded.json", "recordings/recorded.sse"], "failure": ""},
    )  # fmt: skip
    files = {file.name: file.read_text() for file in (tmp_path / "recordings").iterdir()}
    assert "response.created" in files["recorded.sse"] and "canary" not in files["recorded.sse"]
    assert "canary" in files["kept.sse"] and "Look through" in kept.err
    everything = "".join(files.values())
    assert "alice" not in everything
    assert not any(token.removeprefix("Bearer ") in everything for token in tokens)
    assert again.code == 1 and "exists" in again.err


async def test_record_says_that_it_recorded_the_simulator(tmp_path: Path):
    ran = await run_command(tmp_path, "record", "--prompt", "sing")
    assert ran.code == 0
    assert msgspec.json.decode((tmp_path / "recordings" / "recorded.json").read_bytes())["source"] == "simulated"


async def test_record_keeps_a_failure_too(tmp_path: Path):
    async with site(Scenario(faults=[quota()])) as (_, environ):
        ran = await run_command(tmp_path, "record", "--prompt", "sing", "--out", "there", **environ)
    assert ran.code == 0 and "quota" in ran.err
    assert "RateLimited" in (tmp_path / "there" / "recorded.sse").read_text()


async def test_record_needs_an_account(tmp_path: Path):
    ran = await run_command(tmp_path, "record", "--prompt", "sing", SIMULATOR="never")
    assert ran.code == 1 and "set ACCOUNTS" in ran.err


# --- secrets ------------------------------------------------------------------------------------------------


async def test_no_command_prints_a_secret(tmp_path: Path):
    """Passwords, keys, proxy logins and tokens, in output, errors and log files, well or not."""
    scenario = Scenario(accounts={"alice@example.com": Account("canary-pw"), "bob@example.com": Account("canary-2")})
    async with site(scenario) as (simulator, environ):
        environ |= {
            "ACCOUNTS": (
                "alice@example.com:canary-pw,bob@example.com:canary-wrong,"
                "carol@example.com:canary-3|http://canary-user:canary-4@127.0.0.1:1"
            ),
            "API_KEY": "sk-canary-admin,sk-canary-user",
            "QWEN_EXTRA_HEADERS": '{"x-extra": "canary-5"}',
            "REDIS_URL": "redis://:canary-6@localhost",
            "LOG_LEVEL": "DEBUG",
            "ENABLE_FILE_LOG": "true",
        }
        for command in (
            ["config"],
            ["accounts", "check"],
            ["doctor"],
            ["models"],
            ["chat", "hello"],
            ["key", "--where"],
        ):
            for form in ([], ["--json"]):
                ran = await run_command(tmp_path, *command, *form, **environ)
                assert "canary" not in ran.out + ran.err, command
                assert "eyJ" not in ran.out + ran.err, command
        assert any(b"canary" in seen.headers.get("x-extra", "").encode() for seen in simulator.requests)
    wrong = await run_command(tmp_path, "config", ACCOUNTS="alice@example.com:canary,broken-canary")
    assert wrong.code == 2 and "entry 2" in wrong.err and "canary" not in wrong.err
    assert not any("canary" in text for text in texts_below(tmp_path))


# --- simulate -----------------------------------------------------------------------------------------------


async def test_simulate_serves_until_it_is_told_to_end(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        str(ENTRY), "simulate", "--port", "0", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    base_url = line.split(";")[0].rpartition(" ")[2]
    async with aiohttp.ClientSession(base_url, headers={"User-Agent": "test"}) as client:
        async with client.get("/api/models") as response:
            assert response.status == 200
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    await process.stdout.read()
