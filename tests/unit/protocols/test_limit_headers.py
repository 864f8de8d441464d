"""A key's limits in headers, as the APIs' clients read them."""

import pytest

from qwen_proxy.ground.limits import LimitFacts, WindowFacts
from qwen_proxy.protocols.limit_headers import anthropic_headers, duration, openai_headers
from qwen_proxy.protocols.openai_chat import OpenAIChat

AT = 1_800_000_000.0  # 2027-01-15T08:00:00Z
BOTH = LimitFacts(at=AT, requests=WindowFacts(300, 299, AT + 59.2), tokens=WindowFacts(9000, 0, AT + 86400))


def test_openais() -> None:
    headers = {
        "x-ratelimit-limit-requests": "300",
        "x-ratelimit-remaining-requests": "299",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "9000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "24h0m0s",
    }
    assert dict(openai_headers(BOTH)) == headers
    assert OpenAIChat().limit_headers(BOTH) == openai_headers(BOTH)


def test_anthropics() -> None:
    assert dict(anthropic_headers(BOTH)) == {
        "anthropic-ratelimit-requests-limit": "300",
        "anthropic-ratelimit-requests-remaining": "299",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:01:00Z",
        "anthropic-ratelimit-tokens-limit": "9000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2027-01-16T08:00:00Z",
    }


def test_a_limit_that_is_none_has_no_header() -> None:
    assert openai_headers(LimitFacts(at=AT)) == anthropic_headers(LimitFacts(at=AT)) == ()
    only_tokens = openai_headers(LimitFacts(at=AT, tokens=BOTH.tokens))
    assert [name for name, _ in only_tokens if "requests" in name] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0ms"),
        (0.0, "0ms"),
        (0.0201, "21ms"),
        (1.0, "1s"),
        (5.2, "6s"),
        (60.0, "1m0s"),
        (359.5, "6m0s"),
        (3600.0, "1h0m0s"),
        (90061.0, "25h1m1s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
