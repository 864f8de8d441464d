"""`qwen-proxy serve` with two workers over the simulator: the real command, signals and streams."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from qwen_proxy.accounts.model import Account
from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.settings import load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.places import own_place
from qwen_proxy.runtime.environment import environment
from qwen_proxy.simulator import Scenario, Simulator
from tests.support.command import run_command
from tests.support.http import ADMIN_KEY
from tests.support.served import served


async def test_streams_and_requests_survive_a_rolling_replacement(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        before = {worker.pid for worker in (await site.diagnostics()).workers}
        assert len(before) == 2
        streams = asyncio.gather(*(site.chat("[[sim slow 30ms]] [[sim repeat 200]] x") for _ in range(6)))
        while site.simulator.open_generations < 6:  # noqa: ASYNC110 - it is other processes that open them
            await asyncio.sleep(0.05)
        site.process.send_signal(signal.SIGHUP)
        short: list[tuple[str, str | None]] = []
        while not streams.done():
            short.append(await site.chat("hello"))
        assert {end for _, end in await streams} == {"stop"}
        assert len({text for text, _ in await streams}) == 1
        assert {end for _, end in short} == {"stop"}
        body = await site.until(lambda body: len(body.workers) == 2)
        assert not before & {worker.pid for worker in body.workers}


async def test_a_later_worker_has_the_settings_of_the_start(tmp_path: Path) -> None:
    """Whatever has become of `.env` since: half of the settings would be new, or the worker could not start."""
    (tmp_path / ".env").write_text("MODEL_NAMES=id\n")
    async with served(tmp_path, PM2_INSTANCES="1") as site:
        (before,) = (await site.diagnostics()).workers
        (tmp_path / ".env").write_text("MODEL_NAMES=neither\n")
        os.kill(before.pid, signal.SIGKILL)
        (after,) = (await site.until(lambda body: len(body.workers) == 1)).workers
        assert after.pid != before.pid
        async with site.client() as client, client.get("/v1/models/qwen3.7-plus") as answer:
            assert b'"id":"qwen3.7-plus"' in await answer.read()


async def test_a_killed_worker_costs_its_own_requests_only(tmp_path: Path) -> None:
    async with served(tmp_path, ACCOUNT_CONCURRENCY="1", QUEUE_SECONDS="10") as site:
        slow = asyncio.get_running_loop().create_task(site.chat("[[sim slow 50ms]] [[sim repeat 400]] x"))
        await site.until(lambda body: body.accounts[0].in_use == 1)
        for worker in (await site.diagnostics()).workers:
            os.kill(worker.pid, signal.SIGKILL)
        await asyncio.gather(slow, return_exceptions=True)
        assert (await site.chat("hello"))[1] == "stop"  # waits in the backlog; the lease came back
        assert (await site.until(lambda body: len(body.workers) == 2)).accounts[0].in_use == 0


async def test_two_workers_share_the_concurrency_of_an_account(tmp_path: Path) -> None:
    async with served(tmp_path, ACCOUNT_CONCURRENCY="2", QUEUE_SECONDS="60") as site:
        chats = asyncio.gather(*(site.chat("[[sim slow 10ms]] [[sim repeat 20]] x") for _ in range(10)))
        most = 0
        while not chats.done():
            most = max(most, site.simulator.open_generations)
            await asyncio.sleep(0.01)
        assert {end for _, end in await chats} == {"stop"}
        assert most == 2


async def test_two_workers_share_the_places_of_a_key(tmp_path: Path) -> None:
    async with served(tmp_path, KEY_CONCURRENCY="4") as site:
        body = {
            "model": "qwen3.7-plus",
            "stream": True,
            "messages": [{"role": "user", "content": "[[sim stall 5]] [[sim repeat 50]]"}],
        }
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(site.client()) for _ in range(12)]
            answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for client in clients))
            statuses = [answer.status for answer in answers]
            assert (statuses.count(200), statuses.count(429)) == (4, 8)
            for answer in answers:
                answer.close()
        async with asyncio.timeout(5):
            while site.simulator.open_generations:  # noqa: ASYNC110 - it is other processes that end them
                await asyncio.sleep(0.05)
            # What one worker has given back is there for the other within a second.
            while not all([(await site.ask("hello")) == 200 for _ in range(4)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_termination_lets_a_stream_end(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        stream = asyncio.get_running_loop().create_task(site.chat("[[sim slow 30ms]] [[sim repeat 60]] x"))
        while site.simulator.open_generations < 1:  # noqa: ASYNC110 - it is other processes that open them
            await asyncio.sleep(0.05)
        site.process.terminate()
        assert (await stream)[1] == "stop"
        async with asyncio.timeout(20):
            assert await site.process.wait() == 0


async def test_a_restart_uses_the_token_that_was_kept(tmp_path: Path) -> None:
    async with Simulator(Scenario()) as simulator:
        for _ in range(2):
            async with served(tmp_path, QWEN_CHAT_PROXY_URL=simulator.base_url) as site:
                assert (await site.chat("hello"))[1] == "stop"
        assert len(simulator.seen("signin_v1")) == 1


async def test_a_wrong_secret_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    async with served(tmp_path, SECRET_KEY="the first secret of this test"):
        pass
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "qwen_proxy", "serve"),
        env=environment()
        | {"DATA_DIR": str(tmp_path), "SECRET_KEY": "another secret of this test", "SERVICE_PORT": "0"},
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"SECRET_KEY='***' can't be used: it should be the secret that this data was written with" in said


@pytest.mark.timeout(120)
async def test_a_damaged_account_costs_nothing_but_itself_and_can_be_removed(tmp_path: Path) -> None:
    async with Simulator(Scenario()) as simulator:
        given = {"ACCOUNTS": "a@example.com:pw,lost@example.com:pw", "QWEN_CHAT_PROXY_URL": simulator.base_url}
        async with served(tmp_path, **given) as site:
            await site.until(lambda body: len(body.accounts) == 2)
        with sqlite3.connect(tmp_path / "qwen-proxy.db") as db:
            db.execute("UPDATE record SET value = x'00' WHERE kind = 'account' AND id = 'lost@example.com'")
        async with served(tmp_path, **given) as site:
            body = await site.until(lambda body: any(each.state == "ready" for each in body.accounts))
            assert [each.account for each in body.accounts] == ["a@example.com"] and not body.upstream.simulated
            assert (await site.chat("hello"))[1] == "stop"
            (tmp_path / "pw").write_text("pw\n")
            environ = {"SERVICE_PORT": site.url.rpartition(":")[2], "API_KEY": ADMIN_KEY, "DATA_DIR": str(tmp_path)}
            refused = await run_command(
                tmp_path, "accounts", "add", "lost@example.com", "--password-file", "pw", **environ
            )
            assert refused.code == 1 and "account lo***@example.com" in refused.err
            removed = await run_command(
                tmp_path, "accounts", "remove", "lost@example.com", "--yes", "--json", **environ
            )
            assert removed.code == 0, removed.err
            checked = await run_command(tmp_path, "check", "--json", **environ)
            assert checked.json["records"]["account"] == 1 and checked.json["faults"] == []
        async with served(tmp_path, **given) as site:  # ACCOUNTS lists it, so it is there again, and whole
            await site.until(lambda body: [each.state for each in body.accounts] == ["ready", "ready"])


async def test_the_first_account_that_is_added_ends_the_simulation(tmp_path: Path) -> None:
    dead_proxy = {"PROXY_URL": "http://127.0.0.1:9", "QWEN_CHAT_PROXY_URL": ""}  # nothing leaves this machine
    async with served(tmp_path, ACCOUNTS="", **dead_proxy) as site:
        body = await site.until(lambda body: any(each.state == "ready" for each in body.accounts))
        assert body.upstream.simulated
        assert (await site.chat("hello"))[1] == "stop"
        settings = load({"DATA_DIR": str(tmp_path)}, None)
        machine = Machine()
        async with open_commons(own_place(settings, machine.ids), machine) as commons:
            await commons.book.put(Account(id="new@example.com", email="new@example.com", password=Secret("pw")))
        body = await site.until(lambda body: not body.upstream.simulated)
        body = await site.until(lambda body: [each.account for each in body.accounts] == ["new@example.com"])
        assert body.upstream.base_url == "https://chat.qwen.ai"
        assert body.accounts[0].sign_in_state != "succeeded"
