"""The identity of a request: when it came, then what nobody can guess. Pure.

The time leads to where it is kept: what became of requests is written many at a time, in the order of time.
"""

from typing import Final

PREFIX: Final = "req_"
TIME_DIGITS: Final = 8
RANDOM_DIGITS: Final = 16


def request_id(now: float, random_digits: str) -> str:
    """now: Unix seconds. random_digits: RANDOM_DIGITS of them, hexadecimal."""
    return f"{PREFIX}{int(now):0{TIME_DIGITS}x}{random_digits}"


def came_at(request_id: str) -> float:
    """Unix seconds, rounded down; 0 for what is no identity of ours."""
    digits = request_id.removeprefix(PREFIX)[:TIME_DIGITS]
    try:
        return float(int(digits, 16))
    except ValueError:
        return 0.0
