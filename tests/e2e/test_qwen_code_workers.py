"""Qwen Code's sign-ins over worker processes: `qwen-proxy serve` itself. Whatever happens to a token happens once, and
every worker has what came of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from qwen_proxy.admin.qwen_code import BegunBody, ProgressBody, QwenCodeBody
from qwen_proxy.admin.qwen_code_desk import Progress
from qwen_proxy.simulator.records import SeenRequest
from tests.support.admin import answer
from tests.support.command import Ran, run_command
from tests.support.http import ADMIN_KEY, USER_KEY
from tests.support.running import ask
from tests.support.served import Served, served
from tests.support.waiting import until

ASKED = 24  # on as many connections: that one of two workers gets none of them happens once in millions of times
ACCOUNT = "a@example.com"
PATH = "/api/admin/qwen-code"


class Metadata(Struct, rename="camel"):
    session_id: str  # of a worker


class Asked(Struct):
    metadata: Metadata


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[Served]:
    async with served(folder, QWEN_CODE_ENABLED="true") as running:
        running.simulator.scenario.portal.resource_url = running.simulator.base_url
        await running.until(lambda body: sum(worker.state == "ready" for worker in body.workers) == 2)
        yield running


async def sign_in(running: Served) -> None:
    async with running.client(ADMIN_KEY) as client:
        begun = await answer(client, "POST", f"{PATH}/logins", BegunBody, json={"account": ACCOUNT})
        done = await answer(client, "POST", f"{PATH}/logins/{begun.id}/poll", ProgressBody)
        assert done.state is Progress.DONE, done


async def say(running: Served) -> tuple[int, str]:
    async with (
        running.client() as client,
        client.post("/cli/v1/chat/completions", json=ask(model="coder-model")) as got,
    ):
        return got.status, await got.text()


async def all_say(running: Served) -> list[tuple[int, str]]:
    return await asyncio.gather(*(say(running) for _ in range(ASKED)))


async def until_all(running: Served, are: Callable[[list[tuple[int, str]]], bool]) -> list[tuple[int, str]]:
    """Every worker's answers, once they are as they should be: a worker learns what another did within a second."""
    async with asyncio.timeout(30):
        while not are(told := await all_say(running)):  # noqa: ASYNC110 - they are other processes
            await asyncio.sleep(0.1)
    return told


def are_good(told: list[tuple[int, str]]) -> bool:
    return {status for status, _ in told} == {200}


def refreshes(running: Served) -> list[SeenRequest]:
    return [seen for seen in running.simulator.seen("oauth_token") if b"grant_type=refresh_token" in seen.body]


def workers(asked: list[SeenRequest]) -> set[str]:
    return {msgspec.json.decode(seen.body, type=Asked).metadata.session_id for seen in asked}


async def refused_at_once(running: Served) -> "asyncio.Task[list[tuple[int, str]]]":
    """Many ask in both workers with a token that is refused; its refresh is not answered until all of them were."""
    before = len(running.simulator.seen("portal_chat"))
    running.simulator.scenario.portal.refused = "first"
    gate = running.simulator.scenario.gates["oauth_token"] = asyncio.Event()
    asking = asyncio.ensure_future(all_say(running))  # noqa: TID251
    await until(lambda: len(running.simulator.seen("portal_chat")) == before + ASKED, 30)
    refused = running.simulator.seen("portal_chat")[before:]
    assert len(workers(refused)) == 2 and len({seen.bearer for seen in refused}) == 1
    gate.set()
    return asking


async def test_a_token_near_its_end_is_renewed_once_before_anybody_asks(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        running.simulator.scenario.portal.token_seconds = 3
        running.simulator.scenario.portal.renewed_seconds = 3600
        await sign_in(running)
        await until(lambda: bool(refreshes(running)), 30)
        assert running.simulator.seen("portal_chat") == []
        await until_all(running, are_good)
        asked = running.simulator.seen("portal_chat")
        assert len(workers(asked)) == 2
        await until_all(running, lambda told: are_good(told) and len(bearers(running)) == 1)
        assert len(refreshes(running)) == 1


def bearers(running: Served) -> set[str | None]:
    return {seen.bearer for seen in running.simulator.seen("portal_chat")[-ASKED:]}


async def test_a_token_that_two_workers_find_refused_is_renewed_once(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        await sign_in(running)
        await until_all(running, are_good)
        told = await (await refused_at_once(running))
        assert are_good(told), told
        assert len(refreshes(running)) == 1 and len(bearers(running)) == 1
        assert are_good(await all_say(running)) and len(refreshes(running)) == 1


async def test_a_refresh_that_is_refused_ends_the_sign_in_in_every_worker_and_says_what_to_do(tmp_path: Path) -> None:
    async def command(*arguments: str) -> Ran:
        port = running.url.rpartition(":")[2]
        environ = {"SERVICE_PORT": port, "API_KEY": f"{ADMIN_KEY},{USER_KEY}", "DATA_DIR": str(tmp_path)}
        ran = await run_command(tmp_path, "qwen-code", *arguments, **environ)
        assert ran.code == 0, ran
        return ran

    async with site(tmp_path) as running:
        await sign_in(running)
        await until_all(running, are_good)
        running.simulator.scenario.portal.refresh = "dead_400"
        told = await (await refused_at_once(running))
        assert min(status for status, _ in told) >= 500 and len(refreshes(running)) == 1, told
        says = "sign in again: qwen-proxy qwen-code login"
        told = await until_all(running, lambda told: {status for status, _ in told} == {503})
        assert all(says in text for _, text in told), told
        asked = len(running.simulator.seen("portal_chat"))
        await all_say(running)
        assert len(running.simulator.seen("portal_chat")) == asked and len(refreshes(running)) == 1

        listed = msgspec.convert((await command("list", "--json")).json, QwenCodeBody)
        assert [(each.state, says in each.reason) for each in listed.sign_ins] == [("ended", True)]
        running.simulator.scenario.portal.refused = "none"
        await command("login", "--account", ACCOUNT)
        await until_all(running, are_good)
