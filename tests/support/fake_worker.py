"""A worker whose server is a toy, for the tests of the supervisor: `python -m tests.support.fake_worker --slot …`."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web
from msgspec import Struct

from qwen_proxy.accounts.model import Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import AccountPool, PoolOptions
from qwen_proxy.app.commons import Commons, Kept, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import system_random
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import statuses
from qwen_proxy.storage.opening import FilePlace
from qwen_proxy.workers.host import WorkerHost, run_worker
from qwen_proxy.workers.messages import DriftCount, Survey

CLOCK = SystemClock()
SECRET = Secret("of the tests of workers")
hoard: list[bytearray] = []


class AccountUse(Struct, frozen=True):
    """What the workers together do with the accounts."""

    in_use: int
    by_pid: dict[int, int]
    why_not_ready: str | None


class Found(Struct, frozen=True):
    survey: Survey
    accounts: AccountUse


async def sign_in(account: Account) -> Credential:
    """Each time another token, whichever process asks: `a0 1`, `a0 2`."""
    global signed_in
    signed_in += 1
    return Credential(account_id=account.id, token=Secret(f"{account.id} {os.getpid()} {signed_in}"))


signed_in = 0


def app(host: WorkerHost, pool: AccountPool, commons: Commons, notes: Path) -> web.Application:
    def note(request: web.Request, what: str) -> None:
        if "note" in request.query:
            line = f"{CLOCK.monotonic():020.6f} {what}\n".encode()  # on Linux the same for all processes
            with open(notes, "ab", buffering=0) as file:
                file.write(line)

    async def pid(request: web.Request) -> web.Response:
        return web.Response(text=str(os.getpid()))

    async def lease(request: web.Request) -> web.Response:
        """Hold an account for `hold` seconds, waiting `wait` for it; end with the outcome `kind`. With `note` the
        beginning and the end are noted in the folder."""
        deadline = CLOCK.monotonic() + float(request.query.get("wait", "10"))
        kind = OutcomeKind(request.query.get("kind", "succeeded"))
        try:
            async with pool.lease(Feature.CHAT, deadline=deadline) as held:
                note(request, "begins")
                await asyncio.sleep(float(request.query.get("hold", "0")))
                note(request, "ends")
                held.report(Outcome(kind=kind))
                if "renew" in request.query:
                    await pool.renew(held.credential, deadline=deadline)
                return web.Response(text=held.credential.token.reveal())
        except ProxyError as error:
            return web.Response(status=503, text=f"{type(error).__name__}: {error}")

    async def stream(request: web.Request) -> web.StreamResponse:
        """A line every 20 ms, so many."""
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(request.query["lines"])):
            await response.write(f"{os.getpid()} {number}\n".encode())
            await asyncio.sleep(0.02)
        await response.write(b"end\n")
        return response

    async def grow(request: web.Request) -> web.Response:
        hoard.append(bytearray(os.urandom(1024)) * 1024 * int(request.query["megabytes"]))
        return web.Response()

    async def drift(request: web.Request) -> web.Response:
        host.report_drift([DriftCount(kind="phase", name="odd", count=2, first_at=7.0)])
        return web.Response()

    async def survey(request: web.Request) -> web.Response:
        by_pid = {row.pid: sum(told.in_use.values()) for row, told in statuses(await commons.store.processes())}
        by_pid[os.getpid()] = sum(report.in_use for report in pool.snapshot())
        use = AccountUse(sum(by_pid.values()), by_pid, (await pool.status()).why_not_ready)
        return web.Response(body=msgspec.json.encode(Found(await host.line.survey(), use)))

    async def crash(request: web.Request) -> web.Response:
        os.kill(os.getpid(), signal.SIGKILL)
        return web.Response()

    made = web.Application()
    for handler in (pid, lease, stream, grow, drift, survey, crash):
        made.router.add_post(f"/{handler.__name__}", handler)
    return made


async def serve(host: WorkerHost, data: Path, concurrency: int, notes: Path) -> None:
    machine = Machine()
    options = PoolOptions(account_concurrency=concurrency, signin_spacing_seconds=0)
    async with open_commons(Kept(FilePlace(data), SECRET), machine) as commons:
        pool = AccountPool(
            commons.store, commons.vault, commons.watch, commons.membership, sign_in, CLOCK, system_random(), options
        )
        commons.membership.describe(pool.describe)
        await commons.watch.load()
        async with commons.membership, pool, Tasks() as tasks:
            tasks.spawn(commons.watch.run(), name="watch")
            await serve_toys(host, app(host, pool, commons, notes))


async def serve_toys(host: WorkerHost, toys: web.Application) -> None:
    runner = web.AppRunner(toys, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.SockSite(runner, host.listener)
    await site.start()
    host.ready()
    await host.retired.wait()
    await site.stop()
    await asyncio.sleep(1.5)  # a connection that was accepted a moment ago has not sent its request yet
    assert runner.server is not None
    runner.server.pre_shutdown()
    await runner.server.shutdown(host.drain_seconds)
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--slot", "--channel", "--listener"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--fail-if", type=Path, help="end at once when this file is there")
    parser.add_argument("--hang-if", type=Path, help="never become ready when this file is there")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    if given.fail_if is not None and given.fail_if.exists():
        raise SystemExit(3)
    if given.hang_if is not None and given.hang_if.exists():
        signal.pause()

    async def work(host: WorkerHost) -> None:
        await serve(host, given.data, given.concurrency, given.notes)

    life = run_worker(given.slot, given.channel, given.listener, work, drain_seconds=5.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life)


if __name__ == "__main__":
    main()
