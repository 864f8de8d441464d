"""A key's limits in the headers that clients of OpenAI's and of Anthropic's API read. Pure.

Sources: OpenAI's and Anthropic's guides on rate limits, both under "headers".
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import ceil

from qwen_proxy.ground.limits import LimitFacts, WindowFacts

Headers = tuple[tuple[str, str], ...]


def openai_headers(facts: LimitFacts) -> Headers:
    """`x-ratelimit-...`; the time until a reset is written as Go writes durations."""
    return tuple(
        (f"x-ratelimit-{word}-{kind}", value)
        for kind, window in _windows(facts)
        for word, value in (
            ("limit", str(window.limit)),
            ("remaining", str(window.remaining)),
            ("reset", duration(window.resets_at - facts.at)),
        )
    )


def anthropic_headers(facts: LimitFacts) -> Headers:
    """`anthropic-ratelimit-...`; the time of a reset is written as RFC 3339 has it."""
    return tuple(
        (f"anthropic-ratelimit-{kind}-{word}", value)
        for kind, window in _windows(facts)
        for word, value in (
            ("limit", str(window.limit)),
            ("remaining", str(window.remaining)),
            ("reset", timestamp(window.resets_at)),
        )
    )


def duration(seconds: float) -> str:
    """Whole seconds, rounded up, such as `6m0s`; less than one in milliseconds."""
    if seconds < 1:
        return f"{max(0, ceil(seconds * 1000))}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def timestamp(at: float) -> str:
    return datetime.fromtimestamp(ceil(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _windows(facts: LimitFacts) -> Iterator[tuple[str, WindowFacts]]:
    if facts.requests is not None:
        yield "requests", facts.requests
    if facts.tokens is not None:
        yield "tokens", facts.tokens
