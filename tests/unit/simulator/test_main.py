"""`python -m qwen_proxy.simulator`."""

import asyncio
import signal
import sys

import aiohttp
import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_until_told_to_end(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qwen_proxy.simulator", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30.0):
        url = (await process.stdout.readline()).decode().split()[-1]
        async with aiohttp.ClientSession() as http, http.get(url + "/api/models") as response:
            assert response.status == 200
        process.send_signal(number)
        assert await process.wait() == 0
