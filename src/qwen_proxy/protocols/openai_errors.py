"""Errors in OpenAI's vocabulary, for every route that speaks it. Pure.

Which condition gets which status, `type` and `code`: upstream protocol §12.2.
"""

from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.ground.errors import (
    AccountError,
    AccountsChallenged,
    AccountsOutOfQuota,
    AlreadyExists,
    BodyTooLarge,
    ClientError,
    ContentRefused,
    ExitError,
    InputRefused,
    InvalidRequest,
    KeyLimitReached,
    MethodNotAllowed,
    ModelNotFound,
    NoAccountUsable,
    NotAllowed,
    NotFound,
    NotOffered,
    OriginRefused,
    PermissionDenied,
    PromptTooLong,
    ProxyError,
    QuotaExhausted,
    RateLimited,
    RequestTooSlow,
    ResponseNotFound,
    RouteNotFound,
    ShuttingDown,
    StoreUnavailable,
    TooManyAttempts,
    Unauthenticated,
    Unreadable,
    UnsupportedParameter,
    UpstreamChallenged,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamTimeout,
)
from qwen_proxy.protocols.base import ErrorReply
from qwen_proxy.protocols.failures import failure_headers, without_details


class Terms(Struct, frozen=True):
    """What OpenAI's API calls a condition."""

    status: int
    type: str
    code: str | None


_INVALID: Final = "invalid_request_error"
INTERNAL: Final = Terms(500, "server_error", "internal_error")

# Looked up along a class's bases, so a new class is told as its nearest known kind.
TERMS: Final[dict[type[ProxyError], Terms]] = {
    ProxyError: INTERNAL,
    ClientError: Terms(400, _INVALID, None),
    UnsupportedParameter: Terms(400, _INVALID, "unsupported_parameter"),
    Unauthenticated: Terms(401, _INVALID, "invalid_api_key"),
    PermissionDenied: Terms(403, _INVALID, "permission_denied"),
    NotAllowed: Terms(403, _INVALID, "permission_denied"),
    KeyLimitReached: Terms(429, "rate_limit_error", "rate_limit_exceeded"),
    NotFound: Terms(404, _INVALID, "not_found"),
    ResponseNotFound: Terms(404, _INVALID, "previous_response_not_found"),
    AlreadyExists: Terms(409, _INVALID, "already_exists"),
    OriginRefused: Terms(403, _INVALID, "origin_refused"),
    TooManyAttempts: Terms(429, "rate_limit_error", "too_many_attempts"),
    ModelNotFound: Terms(404, _INVALID, "model_not_found"),
    RouteNotFound: Terms(404, _INVALID, "unknown_url"),
    MethodNotAllowed: Terms(405, _INVALID, "method_not_supported"),
    BodyTooLarge: Terms(413, _INVALID, "request_too_large"),
    RequestTooSlow: Terms(408, _INVALID, "request_timeout"),
    PromptTooLong: Terms(400, _INVALID, "context_length_exceeded"),
    ContentRefused: Terms(400, _INVALID, "content_policy_violation"),
    AccountError: Terms(502, "upstream_error", "upstream_auth"),
    QuotaExhausted: Terms(429, "rate_limit_error", "upstream_quota"),
    RateLimited: Terms(429, "rate_limit_error", "rate_limit_exceeded"),
    ExitError: Terms(502, "upstream_error", "upstream_unavailable"),
    UpstreamChallenged: Terms(503, "upstream_error", "upstream_verification_required"),
    UpstreamError: Terms(502, "upstream_error", "upstream_unavailable"),
    UpstreamOverloaded: Terms(503, "upstream_error", "upstream_unavailable"),
    UpstreamTimeout: Terms(504, "upstream_error", "upstream_timeout"),
    NoAccountUsable: Terms(503, "server_error", "no_account"),
    AccountsOutOfQuota: Terms(429, "rate_limit_error", "upstream_quota"),
    AccountsChallenged: Terms(503, "upstream_error", "upstream_verification_required"),
    NotOffered: Terms(501, "server_error", "not_offered"),
    ShuttingDown: Terms(503, "server_error", "shutting_down"),
    StoreUnavailable: Terms(503, "server_error", "store_unavailable"),
    Unreadable: Terms(500, "server_error", "data_damaged"),
}


def terms_of(error: ProxyError) -> Terms:
    return next(TERMS[kind] for kind in type(error).__mro__ if kind in TERMS)


def error_body(error: ProxyError, request_id: str) -> bytes:
    """`{"error": {message, type, param, code}}`, the body of a reply and the data of a failure inside a stream.

    What has no terms of its own is a bug of ours.
    """
    terms = terms_of(error)
    message = without_details(request_id) if terms is INTERNAL else str(error)
    code = error.code if isinstance(error, InputRefused) and terms.code is None else terms.code
    told = {"message": message, "type": terms.type, "param": _param(error), "code": code}
    return msgspec.json.encode({"error": told})


def error_reply(error: ProxyError, request_id: str) -> ErrorReply:
    """Total over the tree."""
    body = error_body(error, request_id)
    return ErrorReply(status=terms_of(error).status, body=body, headers=failure_headers(error))


def _param(error: ProxyError) -> str | None:
    if isinstance(error, InvalidRequest | InputRefused):
        return error.param
    if isinstance(error, ModelNotFound):
        return "model"
    if isinstance(error, ResponseNotFound):
        return "previous_response_id"
    return "messages" if isinstance(error, PromptTooLong) else None
