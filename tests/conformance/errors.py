"""One of every error there is."""

from collections.abc import Iterator
from typing import Final

from qwen_proxy.ground.errors import (
    AccountError,
    AccountsBusy,
    AccountsChallenged,
    AccountsOutOfQuota,
    BodyTooLarge,
    ClientError,
    ContentRefused,
    CredentialRejected,
    ExitError,
    ExitUnreachable,
    InputRefused,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NoAccountUsable,
    PermissionDenied,
    PromptTooLong,
    ProxyError,
    QuotaElsewhere,
    QuotaExhausted,
    ReplyCut,
    ReplyEmpty,
    RequestTooSlow,
    RouteNotFound,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    StoreUnavailable,
    Unauthenticated,
    UnsupportedParameter,
    UpstreamChallenged,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

EXAMPLES: Final[tuple[ProxyError, ...]] = (
    ProxyError("p"),
    ClientError("c"),
    InvalidRequest("`messages` is missing", param="messages"),
    UnsupportedParameter("not here", param="logprobs"),
    Unauthenticated(),
    PermissionDenied("the admin key"),
    ModelNotFound('q"\r\n9', ["qwen3.7-plus"]),
    RouteNotFound("GET", "/x"),
    MethodNotAllowed("GET", "/x", ["POST"]),
    BodyTooLarge(10),
    RequestTooSlow(60),
    PromptTooLong(11, 10),
    InputRefused("invalid_input"),
    ContentRefused("data_inspection_failed"),
    AccountError("a"),
    CredentialRejected(),
    SignInRefused(SignInReason.BANNED),
    QuotaExhausted(0.2),
    ExitError("e"),
    UpstreamChallenged("html"),
    ExitUnreachable("HTTP 407"),
    UpstreamError("u"),
    UpstreamUnavailable("HTTP 503"),
    UpstreamOverloaded(),
    UpstreamTimeout("idle", 240),
    UpstreamProtocolError("no list of models"),
    UpstreamFailed("internal_error"),
    ReplyEmpty("thinking_only"),
    ReplyCut(),
    NoAccountUsable("no account is configured", 90),
    AccountsOutOfQuota("every account rests"),
    AccountsChallenged("every exit rests"),
    AccountsBusy("every account is busy"),
    QuotaElsewhere(),
    ShuttingDown(),
    StoreUnavailable("connection refused"),
    InternalError(),
)


def classes(root: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    """Every class of the tree that the program has (tests make some of their own)."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("qwen_proxy."):
            yield from classes(child)
