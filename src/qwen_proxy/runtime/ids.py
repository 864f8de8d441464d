"""Identifiers, as something that is handed in."""

import random
import secrets
import uuid
from typing import Protocol


class Ids(Protocol):
    """`uuid()` is a lower-case UUIDv4; `token(n)` is n hex digits, unguessable when n >= 32."""

    def uuid(self) -> str: ...
    def token(self, digits: int) -> str: ...


class SystemIds:
    def uuid(self) -> str:
        return str(uuid.uuid4())

    def token(self, digits: int) -> str:
        return secrets.token_hex((digits + 1) // 2)[:digits]


def system_random() -> random.Random:
    """For jitter: seeded by the system, not for secrets."""
    return random.Random()
