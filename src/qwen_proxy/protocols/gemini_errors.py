"""Errors in Google's vocabulary: `{"error": {code, message, status, details}}`. Pure.

Statuses: google.rpc.Code and its mapping to HTTP (google/rpc/code.proto); details: google/rpc/error_details.proto.
"""

from math import ceil
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
    RequestTooSlow,
    RouteNotFound,
    ShuttingDown,
    StoreUnavailable,
    TooManyAttempts,
    Unauthenticated,
    UpstreamChallenged,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamTimeout,
)
from qwen_proxy.protocols.base import ErrorReply
from qwen_proxy.protocols.failures import failure_headers, without_details


class Terms(Struct, frozen=True):
    """What Google's APIs call a condition. `code` is the HTTP status, in the body too."""

    code: int
    status: str


_INVALID: Final = "INVALID_ARGUMENT"
_EXHAUSTED: Final = Terms(429, "RESOURCE_EXHAUSTED")
_FORBIDDEN: Final = Terms(403, "PERMISSION_DENIED")
_MISSING: Final = Terms(404, "NOT_FOUND")
_UNAVAILABLE: Final = Terms(503, "UNAVAILABLE")
INTERNAL: Final = Terms(500, "INTERNAL")

# Looked up along a class's bases, so a new class is told as its nearest known kind.
TERMS: Final[dict[type[ProxyError], Terms]] = {
    ProxyError: INTERNAL,
    ClientError: Terms(400, _INVALID),
    Unauthenticated: Terms(401, "UNAUTHENTICATED"),
    PermissionDenied: _FORBIDDEN,
    NotAllowed: _FORBIDDEN,
    OriginRefused: _FORBIDDEN,
    KeyLimitReached: _EXHAUSTED,
    TooManyAttempts: _EXHAUSTED,
    NotFound: _MISSING,
    ModelNotFound: _MISSING,
    RouteNotFound: _MISSING,
    AlreadyExists: Terms(409, "ALREADY_EXISTS"),
    MethodNotAllowed: Terms(405, "UNIMPLEMENTED"),
    BodyTooLarge: Terms(413, _INVALID),
    RequestTooSlow: Terms(408, "DEADLINE_EXCEEDED"),
    AccountError: Terms(502, "UNAVAILABLE"),
    QuotaExhausted: _EXHAUSTED,
    ExitError: Terms(502, "UNAVAILABLE"),
    UpstreamChallenged: _UNAVAILABLE,
    UpstreamError: Terms(502, "UNAVAILABLE"),
    UpstreamOverloaded: _UNAVAILABLE,
    UpstreamTimeout: Terms(504, "DEADLINE_EXCEEDED"),
    NoAccountUsable: _UNAVAILABLE,
    AccountsOutOfQuota: _EXHAUSTED,
    NotOffered: Terms(501, "UNIMPLEMENTED"),
    ShuttingDown: _UNAVAILABLE,
    StoreUnavailable: _UNAVAILABLE,
}


def terms_of(error: ProxyError) -> Terms:
    return next(TERMS[kind] for kind in type(error).__mro__ if kind in TERMS)


def error_body(error: ProxyError, request_id: str) -> bytes:
    """A reply's body, and what is in a stream in place of a chunk. What has no terms of its own is a bug of ours."""
    terms = terms_of(error)
    message = without_details(request_id) if terms is INTERNAL else str(error)
    told: dict[str, object] = {"code": terms.code, "message": message, "status": terms.status}
    if details := _details(error):
        told["details"] = details
    return msgspec.json.encode({"error": told})


def error_reply(error: ProxyError, request_id: str) -> ErrorReply:
    """Total over the tree."""
    body = error_body(error, request_id)
    return ErrorReply(status=terms_of(error).code, body=body, headers=failure_headers(error))


def _details(error: ProxyError) -> list[dict[str, object]]:
    """gemini-cli waits for as long as RetryInfo says."""
    details: list[dict[str, object]] = []
    if isinstance(error, Unauthenticated):
        reason: dict[str, object] = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo"} | reason)
    if isinstance(error, InvalidRequest | InputRefused) and error.param is not None:
        violations = [{"field": error.param, "description": str(error)}]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
    if error.retry_after_seconds is not None:
        delay = f"{max(1, ceil(error.retry_after_seconds))}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return details
