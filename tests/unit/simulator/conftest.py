from collections.abc import AsyncIterator

import aiohttp
import pytest

from qwen_proxy.simulator import Simulator
from tests.unit.simulator.visitor import Visitor


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def stranger(simulator: Simulator) -> AsyncIterator[Visitor]:
    """A visitor who has not signed in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Visitor(simulator, http)


@pytest.fixture
async def visitor(stranger: Visitor) -> Visitor:
    """A visitor who has signed in as demo@simulated."""
    await stranger.sign_in()
    return stranger
