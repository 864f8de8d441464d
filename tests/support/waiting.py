"""Waiting for what comes about by itself."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool], within_seconds: float = 5.0) -> None:
    """Return as soon as it holds. Raises TimeoutError when it does not in time."""
    async with asyncio.timeout(within_seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
