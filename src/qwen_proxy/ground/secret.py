"""A value that must never be printed."""

import hmac
from typing import Final, NoReturn

MASK: Final = "***"


class Secret:
    """A key, password, token or cookie; every way of printing it gives `***`.

    `reveal()` is the one way to the value, so that a search for it finds every use.
    Comparison takes the same time wherever two values differ.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied to disk")
