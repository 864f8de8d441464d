"""A worker whose server is a toy, for the tests of the supervisor: `python -m tests.support.fake_worker --slot …`."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from qwen_proxy.accounts.model import Feature, Outcome, OutcomeKind
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.workers.host import WorkerHost, run_worker
from qwen_proxy.workers.messages import DriftCount

CLOCK = SystemClock()
hoard: list[bytearray] = []


def app(host: WorkerHost) -> web.Application:
    async def pid(request: web.Request) -> web.Response:
        return web.Response(text=str(os.getpid()))

    async def lease(request: web.Request) -> web.Response:
        """Hold an account for `hold` seconds, waiting `wait` for it; end with the outcome `kind`."""
        deadline = CLOCK.monotonic() + float(request.query.get("wait", "10"))
        kind = OutcomeKind(request.query.get("kind", "succeeded"))
        try:
            async with host.leasing.lease(Feature.CHAT, deadline=deadline) as held:
                await asyncio.sleep(float(request.query.get("hold", "0")))
                held.report(Outcome(kind=kind))
                if "renew" in request.query:
                    await host.leasing.renew(held.credential, deadline=deadline)
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
        return web.Response(body=msgspec.json.encode(await host.leasing.survey()))

    async def crash(request: web.Request) -> web.Response:
        os.kill(os.getpid(), signal.SIGKILL)
        return web.Response()

    made = web.Application()
    for handler in (pid, lease, stream, grow, drift, survey, crash):
        made.router.add_post(f"/{handler.__name__}", handler)
    return made


async def serve(host: WorkerHost) -> None:
    runner = web.AppRunner(app(host), handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.SockSite(runner, host.listener)
    await site.start()
    host.ready()
    await host.retired.wait()
    await site.stop()
    await asyncio.sleep(0.3)  # a connection that was accepted a moment ago has not sent its request yet
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
    given = parser.parse_args()
    if given.fail_if is not None and given.fail_if.exists():
        raise SystemExit(3)
    if given.hang_if is not None and given.hang_if.exists():
        signal.pause()
    work = run_worker(given.slot, given.channel, given.listener, serve, CLOCK, drain_seconds=5.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    main()
