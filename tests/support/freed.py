"""Waiting for what a request held to be given back."""

import asyncio

from tests.support.running import Running


async def freed(gateway: Running, within_seconds: float = 1.0) -> bool:
    """Whether, in time, no generation runs upstream, no lease is out and nobody waits for one."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_seconds
    while gateway.simulator.open_generations or gateway.leases() or gateway.pool.waiting:
        if loop.time() >= end:
            return False
        await asyncio.sleep(0.005)
    return True
