"""The commands that go on until they are told to end."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from qwen_proxy.simulator import Scenario, Simulator


def serve(environ: Mapping[str, str], dotenv: Path, *, reload: bool) -> int:
    """Supervise the workers until SIGTERM or SIGINT; the exit code. Raises WrongSetting before anything has begun."""
    raise NotImplementedError("serve is wired with the workers")


def work(environ: Mapping[str, str], dotenv: Path, *, slot: int, channel: int, listener: int) -> int:
    """Be one worker process, on descriptors inherited from the supervisor; the exit code."""
    raise NotImplementedError("worker is wired with the workers")


async def simulate(host: str, port: int, pause_seconds: float, started: Callable[[str], None]) -> None:
    """Play chat.qwen.ai until SIGTERM or SIGINT; `started` gets the address."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(Scenario(pause_seconds=pause_seconds), host=host, port=port) as simulator:
        started(simulator.base_url)
        await ended.wait()
