"""Waiting for what others do: that something becomes true, or that all a request held is given back."""

import asyncio
from collections.abc import Callable

from tests.support.running import Running


async def until(claim: Callable[[], object], within_seconds: float = 5.0) -> bool:
    """Whether the claim comes true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_seconds
    while not claim():
        if loop.time() >= end:
            return False
        await asyncio.sleep(0.005)
    return True


async def freed(gateway: Running, within_seconds: float = 1.0) -> bool:
    """Whether, in time, no generation runs upstream, no lease is out and nobody waits for one."""
    return await until(
        lambda: not (gateway.simulator.open_generations or gateway.leases() or gateway.pool.waiting), within_seconds
    )
