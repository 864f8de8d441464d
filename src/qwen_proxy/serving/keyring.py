"""The keys of this installation, as this process knows them now."""

from contextlib import suppress

from qwen_proxy.config.keys import ClientKey, Keys
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.freshness import Freshness


class LiveKeys:
    """Fits `auth.KeyRing`."""

    def __init__(self, keys: Keys, freshness: Freshness, clock: Clock) -> None:
        self._keys = keys
        self._freshness = freshness
        self._clock = clock

    def find(self, presented: str) -> ClientKey | None:
        return self._keys.find(presented)

    def get(self, id: str) -> ClientKey | None:
        return self._keys.get(id)

    def why_useless(self, key: ClientKey) -> str | None:
        return key.why_useless(self._clock.now())

    async def refresh(self) -> None:
        """At most every few hundredths of a second: a flood of wrong keys is no flood for the store."""
        with suppress(StoreUnavailable):  # what is known holds; a key made in this very moment does not work yet
            await self._freshness.read()
