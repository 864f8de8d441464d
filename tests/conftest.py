"""What lasts for all tests of a process."""

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support import pure_coverage


def pytest_configure(config: pytest.Config) -> None:
    if pure_coverage.is_wanted() and runs_tests(config):
        config.pluginmanager.register(pure_coverage.PureCoverage(), "pure coverage")


def runs_tests(config: pytest.Config) -> bool:
    """False for the process that only hands them out to others."""
    return hasattr(config, "workerinput") or not config.getoption("numprocesses", None)


settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing on a loaded one
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def end_of_servers() -> Generator[None]:
    from tests.support import redis_server  # behind `pytest_configure`: it imports what is measured

    yield
    redis_server.end_shared()
