"""A process's way to a store that others share: it can be cut, lose answers, be slow, and counts what is asked."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.store import Store
from tests.support.passing import PassingStore

T = TypeVar("T")


class Line(PassingStore):
    """is_cut: nothing gets through. loses_answers: everything is done, and nobody told.

    only: the calls for which that holds, None for all. opened: while it is cleared, calls wait for it before they are
    done.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_cut = False
        self.loses_answers = False
        self.only: frozenset[str] | None = None
        self.opened = asyncio.Event()
        self.opened.set()
        self.calls: Counter[str] = Counter()

    async def _through(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        self.calls[name] += 1
        try:
            await self.opened.wait()
            if self.is_cut and (self.only is None or name in self.only):
                raise StoreUnavailable("the line is cut")
            await asyncio.sleep(0)  # what others do comes in between, before it is done and before that is known
            answer = await call
            await asyncio.sleep(0)
        finally:
            call.close()
        if self.loses_answers and (self.only is None or name in self.only):
            raise StoreUnavailable("the answer was lost")
        return answer
