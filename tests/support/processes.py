"""Processes of an installation, for tests."""

import random

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.store import SlotsTaken, SlotsWanted, Store


class Alone(Membership):
    """The only process there is. It never beats, so that a test's clock may leap by days, and keeps what it holds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock, id="alone")

    @property
    def is_valid(self) -> bool:
        return True

    def require(self) -> None:
        pass

    async def take(self, wanted: SlotsWanted) -> SlotsTaken:
        await self._join()  # a leap of time may have buried it
        return await super().take(wanted)

    async def __aenter__(self) -> "Alone":
        await self._join()
        await self._take_roles()
        return self


class Still(random.Random):
    """Chance that always says none."""

    def random(self) -> float:
        return 0.0
