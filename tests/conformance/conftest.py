"""Stores for the suites over all of them: each test runs once a line of `stores.STORES`."""

from collections.abc import AsyncGenerator

import pytest

from qwen_proxy.state.store import Store
from tests.conformance.stores import STORES, Place


@pytest.fixture(params=STORES)
async def place(request: pytest.FixtureRequest) -> AsyncGenerator[Place]:
    async with STORES[str(request.param)]() as place:
        yield place


@pytest.fixture
async def store(place: Place) -> AsyncGenerator[Store]:
    async with place.open() as store:
        yield store


@pytest.fixture
async def other(place: Place, store: Store) -> AsyncGenerator[Store]:
    """As another process has it."""
    async with place.open() as other:
        yield other
