"""Coverage of what tests without a server of ours cover, measured while all tests run: once is enough for both.

`PURE_COVERAGE=1 make test`, then `python -m tests.architecture.coverage_bars`. What e2e tests cover counts for nothing.
"""

import os
from collections.abc import Generator

import coverage
import pytest

COUNTED = ("tests/unit/", "tests/properties/", "tests/conformance/")


def is_wanted() -> bool:
    return bool(os.environ.get("PURE_COVERAGE"))  # noqa: TID251


class PureCoverage:
    """A plugin of each process that runs tests. Modules are read while the tests are collected, so that counts too."""

    def __init__(self) -> None:
        self._measured = coverage.Coverage(data_suffix=True)
        self._measured.set_option("run:patch", [])  # processes that e2e tests start are not measured
        self._measured.start()

    def pytest_collection_finish(self) -> None:
        self._measured.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool | None, bool | None]:
        if not item.nodeid.startswith(COUNTED):
            return (yield)
        self._measured.start()
        try:
            return (yield)
        finally:
            self._measured.stop()

    def pytest_sessionfinish(self) -> None:
        self._measured.save()
