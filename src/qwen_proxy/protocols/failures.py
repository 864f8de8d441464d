"""What the failures of several protocols have in common. Pure.

SDKs of OpenAI's and of Anthropic's API try again by themselves, and heed the same two headers.
"""

from math import ceil
from typing import Final

from qwen_proxy.ground.errors import (
    Blame,
    KeyLimitReached,
    MethodNotAllowed,
    NoAccountUsable,
    NotOffered,
    ProxyError,
    QuotaElsewhere,
)

# SDKs wait for no longer when they are told to; they ask again much sooner instead.
MOST_WAIT_SECONDS: Final = 60

_TRIED_HERE: Final = (Blame.UPSTREAM, Blame.EXIT, Blame.ACCOUNT)


def failure_headers(error: ProxyError) -> tuple[tuple[str, str], ...]:
    """`x-should-retry: false` stops an SDK from doing again what was tried here already."""
    headers: list[tuple[str, str]] = []
    if error.retry_after_seconds is not None:
        headers.append(("Retry-After", str(max(1, ceil(error.retry_after_seconds)))))
    if isinstance(error, QuotaElsewhere):
        headers.append(("x-should-retry", "true"))
    elif error.blame in _TRIED_HERE or isinstance(error, NoAccountUsable | NotOffered) or _is_far_off(error):
        headers.append(("x-should-retry", "false"))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", ", ".join(error.allowed)))
    return tuple(headers)


def without_details(request_id: str) -> str:
    """How a bug of ours is told: by a sentence that gives nothing away."""
    return f"something went wrong in this server; its log tells more under request id {request_id}"


def _is_far_off(error: ProxyError) -> bool:
    if not isinstance(error, KeyLimitReached):
        return False
    return error.retry_after_seconds is None or error.retry_after_seconds > MOST_WAIT_SECONDS
