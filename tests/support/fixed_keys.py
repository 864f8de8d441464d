"""Keys that are there from the start and never change, without a store."""

import hashlib
from collections.abc import Sequence

from qwen_proxy.config.keys import ClientKey, Role
from qwen_proxy.ground.secret import Secret
from tests.support.keys import client_key


class FixedKeys:
    """Fits `serving.auth.KeyRing`; the first is the admin's."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._known = {
            hashlib.sha256(key.reveal().encode()).digest(): client_key(
                f"key-{number}", role=Role.ADMIN if number == 1 else Role.USER
            )
            for number, key in enumerate(keys, 1)
        }
        self.useless: dict[str, str] = {}
        self.later: list[Secret] = []
        self.refreshes = 0

    def find(self, presented: str) -> ClientKey | None:
        return self._known.get(hashlib.sha256(presented.encode(errors="replace")).digest())

    def get(self, id: str) -> ClientKey | None:
        return next((key for key in self._known.values() if key.id == id), None)

    def why_useless(self, key: ClientKey) -> str | None:
        return self.useless.get(key.id)

    async def refresh(self) -> None:
        """Keys of `later` become known now, as if another process had made them a moment ago."""
        self.refreshes += 1
        while self.later:
            key = self.later.pop().reveal()
            self._known[hashlib.sha256(key.encode()).digest()] = client_key(f"key-{len(self._known) + 1}")
