"""How each failure is told in Anthropic's words."""

import msgspec
import pytest

from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    BodyTooLarge,
    ContentRefused,
    CredentialRejected,
    InputRefused,
    InternalError,
    InvalidRequest,
    KeyLimitReached,
    MethodNotAllowed,
    ModelNotFound,
    NotAllowed,
    PromptTooLong,
    ProxyError,
    ReplyEmpty,
    ShuttingDown,
    ThreadNotFound,
    Unauthenticated,
    UnsupportedParameter,
    UpstreamChallenged,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.ground.limits import LimitFacts, LimitName
from qwen_proxy.protocols.anthropic_messages import AnthropicMessages


def told(error: ProxyError) -> tuple[int, dict[str, object]]:
    reply = AnthropicMessages().error(error, "req_1")
    body = msgspec.json.decode(reply.body)
    assert (body["type"], body["request_id"]) == ("error", "req_1")
    return reply.status, body["error"]


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (InvalidRequest("wrong", param="system"), 400, "invalid_request_error"),
        (PromptTooLong(11, 10), 400, "invalid_request_error"),
        (ContentRefused("data_inspection_failed"), 400, "invalid_request_error"),
        (Unauthenticated(), 401, "authentication_error"),
        (NotAllowed("model", "qwen9", ["qwen3*"]), 403, "permission_error"),
        (ModelNotFound("qwen9"), 404, "not_found_error"),
        (MethodNotAllowed("GET", "/v1/messages", ["POST"]), 405, "invalid_request_error"),
        (BodyTooLarge(10), 413, "request_too_large"),
        (
            KeyLimitReached(LimitName.REQUESTS_PER_MINUTE, 3, 3, 1, facts=LimitFacts(at=0.0), resets_at=30.0),
            429,
            "rate_limit_error",
        ),
        (AccountsOutOfQuota("every account rests", 60), 429, "rate_limit_error"),
        (CredentialRejected(), 502, "api_error"),
        (UpstreamFailed("internal_error"), 502, "api_error"),
        (UpstreamTimeout("idle", 240), 504, "timeout_error"),
        (UpstreamChallenged("html"), 529, "overloaded_error"),
        (UpstreamUnavailable("HTTP 503"), 529, "overloaded_error"),
        (ReplyEmpty("nothing"), 529, "overloaded_error"),
        (AccountsBusy("every account is busy"), 529, "overloaded_error"),
        (ShuttingDown(), 529, "overloaded_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProxyError) else str(value),
)
def test_statuses_and_types(error: ProxyError, status: int, type: str):
    got, body = told(error)
    assert (got, body["type"]) == (status, type)
    assert str(error) in str(body["message"])
    assert "details" not in body


def test_a_prompt_too_long_has_the_sentence_that_clients_look_for():
    assert told(PromptTooLong(200_001, 200_000))[1]["message"] == "prompt is too long: 200001 tokens > 200000 maximum"


def test_the_sentence_names_the_field():
    assert told(InvalidRequest("must not be empty", param="stop_sequences"))[1]["message"] == (
        "stop_sequences: must not be empty"
    )
    assert told(InvalidRequest("`system` is wrong", param="system"))[1]["message"] == "`system` is wrong"
    refused = InputRefused("invalid_value", "must be less than 2", param="temperature")
    assert str(told(refused)[1]["message"]).startswith("temperature: the upstream refuses")
    assert told(InvalidRequest("no body"))[1]["message"] == "no body"


def test_a_bug_of_ours_gives_nothing_away():
    class Unheard(ProxyError):
        pass

    for error in (InternalError(), Unheard("a secret")):
        status, body = told(error)
        assert (status, body["type"]) == (500, "api_error")
        assert "secret" not in str(body) and "req_1" in str(body["message"])


def test_threads_are_refused_in_the_words_that_the_sdks_read():
    status, body = told(UnsupportedParameter("no threads", param="thread"))
    assert (status, body["details"]) == (400, {"error_code": "thread_unsupported_request", "unsupported": ["thread"]})
    status, body = told(ThreadNotFound("msg_1"))
    assert (status, body["type"], body["details"]) == (404, "not_found_error", {"error_code": "thread_not_found"})
    assert "details" not in told(UnsupportedParameter("no", param="mcp_servers"))[1]


def test_what_was_tried_here_is_not_to_be_tried_again():
    headers = dict(AnthropicMessages().error(AccountsOutOfQuota("every account rests", 59.2), "req_1").headers)
    assert headers == {"Retry-After": "60", "x-should-retry": "false"}
    assert AnthropicMessages().error(Unauthenticated(), "req_1").headers == ()
