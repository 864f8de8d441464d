"""Identifiers, as something that is handed in."""

import random
import secrets
from typing import Final, Protocol

POOL_BYTES: Final = 2048


class Ids(Protocol):
    """`uuid()` is a lower-case UUIDv4; `token(n)` is n hex digits, unguessable when n >= 32."""

    def uuid(self) -> str: ...
    def token(self, digits: int) -> str: ...


class SystemIds:
    """From the system's source of randomness, which is asked for many identifiers at once: a call to it costs more
    than an identifier."""

    def __init__(self) -> None:
        self._digits = ""
        self._next = 0

    def uuid(self) -> str:
        digits = self.token(32)
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def token(self, digits: int) -> str:
        start, end = self._next, self._next + digits
        if end > len(self._digits):
            self._digits = secrets.token_hex(max(POOL_BYTES, digits))
            start, end = 0, digits
        self._next = end
        return self._digits[start:end]


def system_random() -> random.Random:
    """For jitter: seeded by the system, not for secrets."""
    return random.Random()
