"""Limits guesses at keys: so many a window for each client address, and for all of them together, over all processes.

Only guesses are limited. A right key in a header is never refused for what others got wrong.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qwen_proxy.ground.errors import TooManyAttempts
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.serving.origins import block_of
from qwen_proxy.state.store import Charge, Draw, Store
from qwen_proxy.state.vault import Vault

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW_SECONDS: Final = 600
ADDRESSES: Final = 20  # that may all try as often as they can, before all together are refused
REFUSING_SECONDS: Final = 5.0  # for so long who was refused is refused again without a question to the store
MOST_REFUSED: Final = 10_000


class Throttle:
    """per_address: wrong keys a window. altogether: from all addresses; None for ADDRESSES times as many."""

    def __init__(
        self, store: Store, vault: Vault, clock: Clock, *, per_address: int, altogether: int | None = None
    ) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._limits = (per_address, ADDRESSES * per_address if altogether is None else altogether)
        self._guessing = asyncio.Lock()
        self._refused_until: dict[str, float] = {}

    async def check(self, address: str, find: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `find` finds with a key that may be a guess. It is not asked when there were too many wrong ones.

        One at a time: else many right ones at once would look like guesses while they are looked at. Raises
        TooManyAttempts, with the time to wait, and StoreUnavailable.
        """
        self._refuse_again(address)
        async with self._guessing:
            await self.wrong(address)
            found = await find()
            if found is not None:
                names, ends_at = self._names(address)
                await self._store.charge([Charge(name=name, ends_at=ends_at, amount=-1) for name in names])
            return found

    async def wrong(self, address: str) -> None:
        """A wrong key came from there. Raises TooManyAttempts and StoreUnavailable."""
        self._refuse_again(address)
        names, ends_at = self._names(address)
        limits = zip(names, self._limits, strict=True)
        drawn = await self._store.draw(
            [Draw(name=name, ends_at=ends_at, limit=limit, need=1) for name, limit in limits]
        )
        granted = [name for name, each in zip(names, drawn, strict=True) if each.granted]
        if len(granted) < len(names):
            await self._store.charge([Charge(name=name, ends_at=ends_at, amount=-1) for name in granted])
            if len(self._refused_until) >= MOST_REFUSED:
                self._refused_until.clear()
            self._refused_until[block_of(address)] = self._clock.monotonic() + REFUSING_SECONDS
            log.warning("too many wrong API keys", extra={"address": address})
            raise TooManyAttempts(ends_at - self._clock.now())

    def _refuse_again(self, address: str) -> None:
        if self._refused_until.get(block_of(address), 0.0) > self._clock.monotonic():
            _, ends_at = self._names(address)
            raise TooManyAttempts(ends_at - self._clock.now())

    def _names(self, address: str) -> tuple[tuple[str, str], float]:
        """Of the two allowances, and when their window ends."""
        window = int(self._clock.now() // WINDOW_SECONDS)
        digest = self._vault.digest(block_of(address), "sign-in address")[:32]
        return (f"signin:{window}:{digest}", f"signin:{window}"), float((window + 1) * WINDOW_SECONDS)
