"""Errors as OpenAI's clients know them."""

import msgspec
import pytest

from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsChallenged,
    AccountsOutOfQuota,
    AlreadyExists,
    BodyTooLarge,
    ContentRefused,
    CredentialRejected,
    ExitUnreachable,
    InputRefused,
    InternalError,
    InvalidRequest,
    KeyLimitReached,
    LimitTooSmall,
    MethodNotAllowed,
    ModelNotFound,
    NoAccountUsable,
    NotAllowed,
    NotFound,
    OriginRefused,
    PermissionDenied,
    PromptTooLong,
    ProxyError,
    QuotaExhausted,
    RateLimited,
    ReplyCut,
    ReplyEmpty,
    RequestTooSlow,
    RouteNotFound,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    TooManyAttempts,
    Unauthenticated,
    UnsupportedParameter,
    UpstreamChallenged,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.ground.limits import LimitFacts, LimitName
from qwen_proxy.protocols.openai_chat import OpenAIChat
from qwen_proxy.protocols.openai_errors import TERMS, terms_of

INVALID = "invalid_request_error"
UPSTREAM = "upstream_error"


def limit_reached(resets_at: float | None) -> KeyLimitReached:
    return KeyLimitReached(LimitName.REQUESTS_PER_MINUTE, 3, 3, 1, facts=LimitFacts(at=100.0), resets_at=resets_at)


class Unheard(ProxyError):
    """A class nobody has given terms."""


CASES: list[tuple[ProxyError, int, str, str | None, str | None]] = [
    (InvalidRequest("bad", param="messages[0].role"), 400, INVALID, "messages[0].role", None),
    (UnsupportedParameter("no", param="logprobs"), 400, INVALID, "logprobs", "unsupported_parameter"),
    (Unauthenticated(), 401, INVALID, None, "invalid_api_key"),
    (PermissionDenied("an admin key"), 403, INVALID, None, "permission_denied"),
    (Unauthenticated("this API key was revoked"), 401, INVALID, None, "invalid_api_key"),
    (NotAllowed("endpoint", "chat", ["models"]), 403, INVALID, None, "permission_denied"),
    (limit_reached(130.0), 429, "rate_limit_error", None, "rate_limit_exceeded"),
    (NotFound("key 'key_1'"), 404, INVALID, None, "not_found"),
    (AlreadyExists("this key"), 409, INVALID, None, "already_exists"),
    (OriginRefused("another page sent this"), 403, INVALID, None, "origin_refused"),
    (TooManyAttempts(30), 429, "rate_limit_error", None, "too_many_attempts"),
    (ModelNotFound("qwen9", ["qwen3.7-plus"]), 404, INVALID, "model", "model_not_found"),
    (RouteNotFound("GET", "/x"), 404, INVALID, None, "unknown_url"),
    (MethodNotAllowed("GET", "/x", ["POST"]), 405, INVALID, None, "method_not_supported"),
    (BodyTooLarge(10), 413, INVALID, None, "request_too_large"),
    (RequestTooSlow(60), 408, INVALID, None, "request_timeout"),
    (PromptTooLong(11, 10), 400, INVALID, "messages", "context_length_exceeded"),
    (InputRefused("invalid_input"), 400, INVALID, None, "invalid_input"),
    (InputRefused("too_hot", "At most 2.", param="temperature"), 400, INVALID, "temperature", "too_hot"),
    (ContentRefused("data_inspection_failed"), 400, INVALID, None, "content_policy_violation"),
    (CredentialRejected(), 502, UPSTREAM, None, "upstream_auth"),
    (SignInRefused(SignInReason.BANNED), 502, UPSTREAM, None, "upstream_auth"),
    (QuotaExhausted(), 429, "rate_limit_error", None, "upstream_quota"),
    (RateLimited(), 429, "rate_limit_error", None, "rate_limit_exceeded"),
    (UpstreamChallenged("json"), 503, UPSTREAM, None, "upstream_verification_required"),
    (ExitUnreachable("refused"), 502, UPSTREAM, None, "upstream_unavailable"),
    (UpstreamUnavailable("HTTP 503"), 502, UPSTREAM, None, "upstream_unavailable"),
    (UpstreamOverloaded(), 503, UPSTREAM, None, "upstream_unavailable"),
    (UpstreamTimeout("idle", 240), 504, UPSTREAM, None, "upstream_timeout"),
    (UpstreamProtocolError("x"), 502, UPSTREAM, None, "upstream_unavailable"),
    (UpstreamFailed("internal_error"), 502, UPSTREAM, None, "upstream_unavailable"),
    (ReplyEmpty("nothing"), 502, UPSTREAM, None, "upstream_unavailable"),
    (ReplyCut(), 502, UPSTREAM, None, "upstream_unavailable"),
    (NoAccountUsable("no account is configured"), 503, "server_error", None, "no_account"),
    (AccountsOutOfQuota("all parked", 60), 429, "rate_limit_error", None, "upstream_quota"),
    (AccountsChallenged("all rest", 60), 503, UPSTREAM, None, "upstream_verification_required"),
    (AccountsBusy("all busy"), 503, "server_error", None, "no_account"),
    (ShuttingDown(), 503, "server_error", None, "shutting_down"),
    (InternalError(), 500, "server_error", None, "internal_error"),
    (Unheard("a secret"), 500, "server_error", None, "internal_error"),
]


def classes(root: type[ProxyError]) -> set[type[ProxyError]]:
    return {root}.union(*(classes(kind) for kind in root.__subclasses__()))


@pytest.mark.parametrize(("error", "status", "kind", "param", "code"), CASES, ids=[type(c[0]).__name__ for c in CASES])
def test_each_condition_has_its_terms(error: ProxyError, status: int, kind: str, param: str | None, code: str | None):
    reply = OpenAIChat().error(error, "req-1")
    told = msgspec.json.decode(reply.body)["error"]
    assert (reply.status, told["type"], told["param"], told["code"]) == (status, kind, param, code)
    assert sorted(told) == ["code", "message", "param", "type"]


def test_every_class_of_the_tree_has_terms():
    for kind in classes(ProxyError):
        assert terms_of(kind.__new__(kind)) in TERMS.values()


def test_what_nobody_expected_gives_nothing_away():
    body = OpenAIChat().error(Unheard("a secret"), "req-1").body
    assert b"a secret" not in body
    assert b"req-1" in body


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (InvalidRequest("bad"), {}),
        (ShuttingDown(), {}),
        (limit_reached(130.2), {"Retry-After": "31"}),
        (limit_reached(161.0), {"Retry-After": "61", "x-should-retry": "false"}),
        (limit_reached(None), {"Retry-After": "1"}),
        (LimitTooSmall(LimitName.TOKENS_PER_DAY, 3, 4, facts=LimitFacts(at=0.0)), {"x-should-retry": "false"}),
        (MethodNotAllowed("PUT", "/x", ["GET", "POST"]), {"Allow": "GET, POST"}),
        (ReplyCut(), {"x-should-retry": "false"}),
        (UpstreamChallenged("html"), {"x-should-retry": "false"}),
        (QuotaExhausted(3600), {"Retry-After": "3600", "x-should-retry": "false"}),
        (AccountsBusy("all busy", 1.2), {"Retry-After": "2", "x-should-retry": "false"}),
        (AccountsBusy("all busy", 0), {"Retry-After": "1", "x-should-retry": "false"}),
    ],
)
def test_headers_say_whether_and_when_to_come_again(error: ProxyError, headers: dict[str, str]):
    assert dict(OpenAIChat().error(error, "req-1").headers) == headers
