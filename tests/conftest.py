"""What lasts for all tests of a process."""

from collections.abc import Generator

import pytest

from tests.support import redis_server


@pytest.fixture(scope="session", autouse=True)
def end_of_servers() -> Generator[None]:
    yield
    redis_server.end_shared()
