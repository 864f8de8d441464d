"""What lasts for all tests of a process."""

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support import redis_server

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing on a loaded one
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def end_of_servers() -> Generator[None]:
    yield
    redis_server.end_shared()
