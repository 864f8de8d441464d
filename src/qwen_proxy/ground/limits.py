"""The limits of a client's key, as facts for errors and headers. Pure."""

from enum import StrEnum

from msgspec import Struct


class LimitName(StrEnum):
    """As messages call them."""

    REQUESTS_PER_MINUTE = "requests per min (RPM)"
    TOKENS_PER_MINUTE = "tokens per min (TPM)"
    TOKENS_PER_DAY = "tokens per day (TPD)"
    TOKENS_PER_MONTH = "tokens per month"
    API_TOKENS_PER_DAY = "API tokens per day"
    CONCURRENT_REQUESTS = "concurrent requests"


class WindowFacts(Struct, frozen=True):
    """Of a limit's window now. resets_at: Unix seconds, when the next one begins."""

    limit: int
    remaining: int
    resets_at: float


class LimitFacts(Struct, frozen=True, kw_only=True):
    """What a caller is told of its limits with each answer; None: no such limit. at: Unix seconds.

    tokens: of several limits of tokens, the one of which the least remains.
    """

    at: float
    requests: WindowFacts | None = None
    tokens: WindowFacts | None = None
