"""Errors in Anthropic's vocabulary, for every route that speaks it. Pure.

Which condition gets which `type`: upstream protocol §12.2; statuses: Anthropic's page on errors, where 529 is an
`overloaded_error` and 504 a `timeout_error`.
"""

from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.ground.errors import (
    AccountError,
    AccountsOutOfQuota,
    AlreadyExists,
    BodyTooLarge,
    ClientError,
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
    ProxyError,
    QuotaExhausted,
    ReplyCut,
    ReplyEmpty,
    RequestTooSlow,
    RouteNotFound,
    ShuttingDown,
    StoreUnavailable,
    ThreadNotFound,
    TooManyAttempts,
    Unauthenticated,
    UnsupportedParameter,
    UpstreamChallenged,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.protocols.base import ErrorReply
from qwen_proxy.protocols.failures import failure_headers, without_details


class Terms(Struct, frozen=True):
    """What Anthropic's API calls a condition."""

    status: int
    type: str


_INVALID: Final = "invalid_request_error"
_RATE: Final = Terms(429, "rate_limit_error")
_OVERLOADED: Final = Terms(529, "overloaded_error")
_MISSING: Final = Terms(404, "not_found_error")
_FORBIDDEN: Final = Terms(403, "permission_error")
INTERNAL: Final = Terms(500, "api_error")

# Looked up along a class's bases, so a new class is told as its nearest known kind.
TERMS: Final[dict[type[ProxyError], Terms]] = {
    ProxyError: INTERNAL,
    ClientError: Terms(400, _INVALID),
    Unauthenticated: Terms(401, "authentication_error"),
    PermissionDenied: _FORBIDDEN,
    NotAllowed: _FORBIDDEN,
    OriginRefused: _FORBIDDEN,
    KeyLimitReached: _RATE,
    TooManyAttempts: _RATE,
    NotFound: _MISSING,
    ModelNotFound: _MISSING,
    RouteNotFound: _MISSING,
    AlreadyExists: Terms(409, _INVALID),
    MethodNotAllowed: Terms(405, _INVALID),
    BodyTooLarge: Terms(413, "request_too_large"),
    RequestTooSlow: Terms(408, _INVALID),
    AccountError: Terms(502, "api_error"),
    QuotaExhausted: _RATE,
    ExitError: Terms(502, "api_error"),
    UpstreamChallenged: _OVERLOADED,
    UpstreamError: Terms(502, "api_error"),
    UpstreamUnavailable: _OVERLOADED,
    UpstreamOverloaded: _OVERLOADED,
    UpstreamTimeout: Terms(504, "timeout_error"),
    ReplyEmpty: _OVERLOADED,
    ReplyCut: _OVERLOADED,
    NoAccountUsable: _OVERLOADED,
    AccountsOutOfQuota: _RATE,
    NotOffered: Terms(501, "api_error"),
    ShuttingDown: _OVERLOADED,
    StoreUnavailable: Terms(503, "api_error"),
}


def terms_of(error: ProxyError) -> Terms:
    return next(TERMS[kind] for kind in type(error).__mro__ if kind in TERMS)


def error_body(error: ProxyError, request_id: str) -> bytes:
    """`{"type": "error", "error": {type, message}, "request_id"}`, a reply's body and the data of an `error` event.

    What has no terms of its own is a bug of ours.
    """
    terms = terms_of(error)
    message = without_details(request_id) if terms is INTERNAL else _sentence(error)
    told: dict[str, object] = {"type": terms.type, "message": message}
    if (details := _details(error)) is not None:
        told["details"] = details
    return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})


def error_reply(error: ProxyError, request_id: str) -> ErrorReply:
    """Total over the tree."""
    body = error_body(error, request_id)
    return ErrorReply(status=terms_of(error).status, body=body, headers=failure_headers(error))


def _sentence(error: ProxyError) -> str:
    """There is no `param` in Anthropic's errors: the sentence has to name the field."""
    said = str(error)
    param = error.param if isinstance(error, InvalidRequest | InputRefused) else None
    return said if param is None or param in said else f"{param}: {said}"


def _details(error: ProxyError) -> dict[str, object] | None:
    """What the SDKs read before they go on without a message thread."""
    if isinstance(error, ThreadNotFound):
        return {"error_code": "thread_not_found"}
    if isinstance(error, UnsupportedParameter) and error.param == "thread":
        return {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return None
