"""What the recordings do not show of failing answers."""

import pytest

from qwen_proxy.ground.errors import (
    CredentialRejected,
    InputRefused,
    PromptTooLong,
    QuotaExhausted,
    RateLimited,
    UpstreamUnavailable,
)
from qwen_proxy.upstreams.openai_api.errors import MOST_SAID, Told, classify, classify_answer, seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7", 7),
        ("1.5", 1.5),
        (None, None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("0", None),
        ("nan", None),
    ],
)
def test_how_long_to_wait(given: str | None, seconds: float | None) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("kind", [RateLimited, QuotaExhausted])
def test_the_time_to_wait_goes_with_the_error(kind: type[QuotaExhausted]) -> None:
    body = b'{"error":{"code":"insufficient_quota"}}' if kind is QuotaExhausted else b"{}"
    error = classify_answer(429, body, "m", "7")
    assert type(error) is kind and error.retry_after_seconds == 7


def test_a_page_tells_nothing_of_the_key() -> None:
    assert isinstance(classify_answer(403, b"<html>", "m"), UpstreamUnavailable)
    assert isinstance(classify_answer(401, b"<html>", "m"), CredentialRejected)


def test_the_sentence_is_one_short_line_without_a_key() -> None:
    error = classify_answer(400, b'{"error":{"message":"a\\r\\nb sk-live-123456 ' + b"x" * 900 + b'"}}', "m")
    assert isinstance(error, InputRefused)
    assert "sk-live" not in str(error) and "\n" not in str(error) and len(str(error)) < MOST_SAID + 100


def test_a_word_that_is_none_is_not_shown() -> None:
    assert classify(Told(status=422, code="a b", type="<b>"), "m").args == InputRefused("HTTP 422").args


def test_numbers_in_the_wrong_order_are_no_sizes() -> None:
    told = Told(status=400, message="maximum context length is 500, was 40")
    assert not isinstance(classify(told, "m"), PromptTooLong)
