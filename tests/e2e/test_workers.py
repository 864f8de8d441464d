"""The supervisor and its workers: real processes, signals and sockets."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import psutil
import pytest

from qwen_proxy.workers.messages import Survey
from tests.support.fake_supervisor import Setup
from tests.support.fake_worker import Found


class Site:
    """A running supervisor. Every request is a connection of its own, and a POST, which aiohttp never sends twice."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def ask(self, path: str) -> str:
        async with aiohttp.ClientSession(self.url, headers={"Connection": "close"}) as client, client.post(path) as got:
            return await got.text()

    async def look(self) -> Found:
        return msgspec.json.decode(await self.ask("/survey"), type=Found)

    async def survey(self) -> Survey:
        return (await self.look()).survey

    async def pids(self, state: str = "ready") -> list[int]:
        return [worker.pid for worker in (await self.survey()).workers if worker.state == state]

    async def until(self, met: Callable[[Survey], bool], seconds: float = 20.0) -> Survey:
        """Ask until it is so: the processes take the time they take."""
        async with asyncio.timeout(seconds):
            while not met(survey := await self.survey()):  # noqa: ASYNC110 - they are other processes
                await asyncio.sleep(0.05)
        return survey

    async def until_in_use(self, count: int, seconds: float = 20.0) -> Found:
        """Until so many accounts are in use, over all workers; each tells of itself once a second."""
        async with asyncio.timeout(seconds):
            while (found := await self.look()).accounts.in_use != count:  # noqa: ASYNC110 - they are other processes
                await asyncio.sleep(0.05)
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def supervised(setup: Setup) -> AsyncGenerator[Site]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.fake_supervisor", msgspec.json.encode(setup).decode()),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield Site(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.read()  # ends when the last worker has, which inherited it
        await process.wait()


async def test_all_workers_serve_one_port() -> None:
    async with supervised(Setup(workers=2)) as site:
        seen = {await site.ask("/pid") for _ in range(60)}
        assert seen == {str(pid) for pid in await site.pids()}
        assert len(seen) == 2


async def test_workers_share_the_concurrency_of_an_account_exactly(tmp_path: Path) -> None:
    async with supervised(Setup(workers=2, accounts=1, concurrency=2, folder=str(tmp_path))) as site:
        answers = await asyncio.gather(*(site.ask("/lease?hold=0.15&note=1") for _ in range(12)))
        assert all(answer.startswith("a0 ") for answer in answers)
        at_once, most = 0, 0
        for line in sorted((tmp_path / "notes").read_text().splitlines()):
            at_once += 1 if line.endswith("begins") else -1
            most = max(most, at_once)
        assert most == 2


async def test_errors_of_the_pool_are_told() -> None:
    async with supervised(Setup(workers=1)) as site:
        holding = asyncio.gather(site.ask("/lease?hold=0.6"))
        await site.until_in_use(1)
        assert "AccountsBusy: no account can be used for chat now" in await site.ask("/lease?wait=0.1")
        await holding
        await site.ask("/lease?kind=out_of_quota")
        assert "AccountsOutOfQuota" in await site.ask("/lease")
        assert (await site.look()).accounts.why_not_ready


async def test_a_rejected_token_is_renewed_for_all() -> None:
    async with supervised(Setup(workers=2)) as site:
        first = await site.ask("/lease")
        assert {await site.ask("/lease") for _ in range(6)} == {first}
        await site.ask("/lease?kind=credential_rejected&renew=1")
        async with asyncio.timeout(
            30
        ):  # it is heard of within 250 ms, but the one use goes from worker to worker in 1 s
            while len({await site.ask("/lease") for _ in range(6)} - {first}) != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len({await site.ask("/lease") for _ in range(6)}) == 1


async def test_an_account_that_one_worker_parked_is_parked_for_all() -> None:
    async with supervised(Setup(workers=2)) as site:
        await site.ask("/lease?kind=out_of_quota")
        async with asyncio.timeout(5):
            while not all(["AccountsOutOfQuota" in await site.ask("/lease") for _ in range(6)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_client_that_leaves_gives_up_its_lease_or_its_place() -> None:
    async with supervised(Setup(workers=2)) as site:
        holder, waiter = (asyncio.get_running_loop().create_task(site.ask("/lease?hold=30")) for _ in range(2))
        await site.until_in_use(1)
        await asyncio.sleep(0.2)
        holder.cancel()
        waiter.cancel()
        await asyncio.gather(holder, waiter, return_exceptions=True)
        await site.until_in_use(0)
        assert (await site.ask("/lease?wait=3")).startswith("a0 ")


async def test_a_killed_worker_gives_its_leases_back_and_others_go_on() -> None:
    async with supervised(Setup(workers=2, accounts=1, concurrency=1)) as site:
        holder = asyncio.get_running_loop().create_task(site.ask("/lease?hold=30"))
        found = await site.until_in_use(1)
        victim = next(pid for pid, in_use in found.accounts.by_pid.items() if in_use)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await holder
        assert (await site.ask("/lease?wait=5")).startswith("a0 ")
        survey = await site.until(lambda survey: [worker.state for worker in survey.workers] == ["ready"] * 2)
        assert victim not in [worker.pid for worker in survey.workers]


async def test_traffic_goes_on_while_workers_crash() -> None:
    async with supervised(Setup(workers=2)) as site:
        for _ in range(3):
            with pytest.raises(aiohttp.ClientError):
                await site.ask("/crash")
            answers = await asyncio.gather(*(site.ask("/pid") for _ in range(20)))  # some wait in the backlog
            assert all(answers)


async def test_rolling_refuses_no_connection_and_cuts_no_stream() -> None:
    async with supervised(Setup(workers=2)) as site:
        before = await site.pids()
        streams = asyncio.gather(*(site.ask("/stream?lines=150") for _ in range(8)))
        await asyncio.sleep(0.3)
        site.signal(signal.SIGHUP)
        answers: list[str] = []

        async def knock() -> None:
            while not streams.done():
                answers.append(await site.ask("/pid"))

        await asyncio.gather(*(knock() for _ in range(4)))
        for text in await streams:
            lines = text.splitlines()
            assert len(lines) == 151 and lines[-1] == "end"
            assert {line.split()[0] for line in lines[:-1]} <= {str(pid) for pid in before}
        survey = await site.until(lambda survey: len(survey.workers) == 2)
        assert not set(before) & {worker.pid for worker in survey.workers}
        assert len(answers) > 20


async def test_a_worker_that_holds_too_much_memory_is_replaced_after_its_requests() -> None:
    async with supervised(Setup(workers=1, max_memory_megabytes=200)) as site:
        (before,) = await site.pids()
        stream = asyncio.get_running_loop().create_task(site.ask("/stream?lines=100"))
        await site.ask("/grow?megabytes=300")
        survey = await site.until(lambda survey: any(w.pid != before and w.state == "ready" for w in survey.workers))
        assert [worker.state for worker in survey.workers if worker.pid == before] in (["retiring"], [])
        assert (await stream).endswith("end\n")
        await site.until(lambda survey: before not in [worker.pid for worker in survey.workers])


async def test_what_one_worker_saw_is_told_by_all_also_when_it_is_gone() -> None:
    async with supervised(Setup(workers=2)) as site:
        await site.ask("/drift")
        survey = await site.until(lambda survey: len(survey.drift) == 1)
        assert (survey.drift[0].name, survey.drift[0].count) == ("odd", 2)
        before = await site.pids()
        site.signal(signal.SIGHUP)
        survey = await site.until(lambda survey: not set(before) & {worker.pid for worker in survey.workers})
        assert survey.drift[0].count == 2


async def test_termination_lets_streams_end_and_refuses_new_connections() -> None:
    async with supervised(Setup(workers=2)) as site:
        stream = asyncio.get_running_loop().create_task(site.ask("/stream?lines=60"))
        await asyncio.sleep(0.3)
        site.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises(aiohttp.ClientConnectorError):
            await site.ask("/pid")
        assert (await stream).endswith("end\n")
        assert await site.process.wait() == 0


async def test_a_stream_longer_than_the_grace_is_cut() -> None:
    async with supervised(Setup(workers=1, grace_seconds=0.3)) as site:
        stream = asyncio.get_running_loop().create_task(site.ask("/stream?lines=3000"))
        await asyncio.sleep(0.3)
        site.signal(signal.SIGINT)
        with pytest.raises(aiohttp.ClientError):
            await stream
        async with asyncio.timeout(5):
            assert await site.process.wait() == 0


async def test_a_second_signal_ends_at_once() -> None:
    async with supervised(Setup(workers=2)) as site:
        stream = asyncio.get_running_loop().create_task(site.ask("/stream?lines=3000"))
        await asyncio.sleep(0.3)
        site.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        site.signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await site.process.wait() == 0
        with pytest.raises(aiohttp.ClientError):
            await stream


async def test_workers_end_when_the_supervisor_is_killed() -> None:
    async with supervised(Setup(workers=2)) as site:
        processes = [psutil.Process(pid) for pid in await site.pids()]
        stream = asyncio.get_running_loop().create_task(site.ask("/stream?lines=60"))
        await asyncio.sleep(0.3)
        site.signal(signal.SIGKILL)
        assert (await stream).endswith("end\n")
        _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=10)
        assert not alive


async def test_workers_that_cant_start_end_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.fake_supervisor", f'{{"folder": "{tmp_path}"}}')
    )
    async with asyncio.timeout(30):
        assert await process.wait() == 1


@pytest.mark.parametrize("fault", ["fail", "hang"])
async def test_a_replacement_that_does_not_become_ready_changes_nothing(tmp_path: Path, fault: str) -> None:
    async with supervised(Setup(workers=1, folder=str(tmp_path))) as site:
        before = await site.pids()
        (tmp_path / fault).touch()
        site.signal(signal.SIGHUP)
        await site.until(lambda survey: len(survey.workers) == 2)
        await site.until(lambda survey: len(survey.workers) == 1)
        assert await site.pids() == before
        (tmp_path / fault).unlink()
        site.signal(signal.SIGHUP)
        await site.until(lambda survey: [worker.pid for worker in survey.workers] != before)


async def test_changed_code_replaces_the_workers(tmp_path: Path) -> None:
    async with supervised(Setup(workers=1, folder=str(tmp_path))) as site:
        before = await site.pids()
        (tmp_path / "module.py").touch()
        await site.until(lambda survey: not set(before) & {worker.pid for worker in survey.workers})


async def test_a_port_that_is_taken_is_not_shared() -> None:
    async with supervised(Setup(workers=1)) as site:
        port = site.url.rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.fake_supervisor", f'{{"port": {port}}}'),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"Address already in use" in said
