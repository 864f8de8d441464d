"""A connection to a store that a test can cut, and whose answers it can hold up or lose."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.store import Store
from tests.support.passing import PassingStore

T = TypeVar("T")


class ShakyStore(PassingStore):
    """Several may lie over one store, as the connections of several processes.

    is_down: nothing gets through. loses_answers: what is asked is done, and nobody hears of it. asked: the names of the
    calls that got through, in order.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_down = False
        self.loses_answers = False
        self.asked: list[str] = []
        self._answers_before = 0
        self._going = asyncio.Event()
        self._going.set()

    def hang(self, *, behind: int = 0) -> None:
        """What is asked is done, and its answer waits for `go_on`; so many answers come through before."""
        self._answers_before = behind
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    async def _through(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        if self.is_down:
            call.close()
            raise StoreUnavailable("cut off by the test")
        self.asked.append(name)
        answer = await call
        if self._answers_before and not self._going.is_set():
            self._answers_before -= 1
        else:
            await self._going.wait()
        if self.loses_answers:
            raise StoreUnavailable("its answer was lost by the test")
        return answer
