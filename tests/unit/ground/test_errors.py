"""The tree of errors: whose fault each is, what it knows, and the one sentence it says."""

import pytest

from qwen_proxy.ground.errors import (
    AccountsBusy,
    AlreadyExists,
    Blame,
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


@pytest.mark.parametrize(
    ("error", "blame", "sentence"),
    [
        (InvalidRequest("n is 9", param="n"), Blame.CLIENT, "n is 9"),
        (UnsupportedParameter("no audio"), Blame.CLIENT, "no audio"),
        (Unauthenticated(), Blame.CLIENT, "Authorization: Bearer KEY"),
        (Unauthenticated("this API key was revoked"), Blame.CLIENT, "this API key was revoked"),
        (
            NotAllowed("model", "q9", ["q7", "q8*"]),
            Blame.CLIENT,
            "may not use the model 'q9'; it may use: q7, q8*",
        ),
        (NotAllowed("model", "q", ["m"] * 22), Blame.CLIENT, "m, m, and 2 more"),
        (
            KeyLimitReached(LimitName.TOKENS_PER_DAY, 9, 8, 4, facts=LimitFacts(at=1.0), resets_at=86400.0),
            Blame.CLIENT,
            "on tokens per day (TPD): Limit 9, Used 8, Requested 4. Please try again in 86399s: the limit resets at "
            "1970-01-02T00:00:00Z.",
        ),
        (
            KeyLimitReached(LimitName.CONCURRENT_REQUESTS, 2, 2, 1, facts=LimitFacts(at=1.0), resets_at=None),
            Blame.CLIENT,
            "on concurrent requests: Limit 2, Used 2, Requested 1. Please try again when one of them has ended.",
        ),
        (
            LimitTooSmall(LimitName.TOKENS_PER_MINUTE, 9, 10, facts=LimitFacts(at=1.0)),
            Blame.CLIENT,
            "request too large for this API key on tokens per min (TPM): Limit 9, Requested 10.",
        ),
        (NotFound("key 'key_1'"), Blame.CLIENT, "there is no key 'key_1'"),
        (AlreadyExists("this key"), Blame.CLIENT, "this key exists already"),
        (PermissionDenied("an admin key"), Blame.CLIENT, "it needs an admin key"),
        (OriginRefused("another page sent this"), Blame.CLIENT, "another page sent this"),
        (TooManyAttempts(30), Blame.CLIENT, "too many wrong API keys"),
        (ModelNotFound("q9"), Blame.CLIENT, "unknown model 'q9'; GET /v1/models lists them"),
        (
            ModelNotFound("q9", ["q8", "q7"]),
            Blame.CLIENT,
            "unknown model 'q9'; did you mean 'q8' or 'q7'? GET /v1/models lists them",
        ),
        (RouteNotFound("GET", "/x"), Blame.CLIENT, "there is no GET /x here"),
        (MethodNotAllowed("PUT", "/x", ["GET", "POST"]), Blame.CLIENT, "/x does not take PUT; it takes GET, POST"),
        (BodyTooLarge(10), Blame.CLIENT, "(10 bytes)"),
        (RequestTooSlow(60), Blame.CLIENT, "within 60 seconds"),
        (PromptTooLong(11, 10), Blame.CLIENT, "prompt is too long: 11 tokens > 10 maximum"),
        (PromptTooLong(11, 10, "bytes"), Blame.CLIENT, "prompt is too long: 11 bytes > 10 maximum"),
        (InputRefused("invalid_input"), Blame.CLIENT, "(invalid_input)"),
        (ContentRefused("data_inspection_failed"), Blame.CLIENT, "(data_inspection_failed)"),
        (CredentialRejected(), Blame.ACCOUNT, "rejects the account's token"),
        (SignInRefused(SignInReason.BANNED), Blame.ACCOUNT, "(banned)"),
        (QuotaExhausted(), Blame.ACCOUNT, "quota"),
        (RateLimited(), Blame.ACCOUNT, "how often"),
        (InputRefused("x", "At most 2."), Blame.CLIENT, "(x): At most 2."),
        (UpstreamChallenged("html"), Blame.EXIT, "verification by hand"),
        (ExitUnreachable("refused"), Blame.EXIT, "(refused)"),
        (UpstreamUnavailable("HTTP 503"), Blame.UPSTREAM, "(HTTP 503)"),
        (UpstreamOverloaded(), Blame.UPSTREAM, "overloaded"),
        (UpstreamTimeout("idle", 240.0), Blame.UPSTREAM, "(idle: 240 s)"),
        (UpstreamProtocolError("no choices"), Blame.UPSTREAM, "(no choices)"),
        (UpstreamFailed("internal_error"), Blame.UPSTREAM, "(internal_error)"),
        (ReplyEmpty("nothing"), Blame.UPSTREAM, "reply was empty"),
        (ReplyEmpty("thinking_only"), Blame.UPSTREAM, "reply was empty but for its thinking"),
        (ReplyCut(), Blame.UPSTREAM, "broke off before its end"),
        (NoAccountUsable("no account is configured"), Blame.OURS, "no account is configured"),
        (ShuttingDown(), Blame.OURS, "shutting down"),
        (InternalError(), Blame.OURS, "an internal error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProxyError) else "",
)
def test_each_error_says_whose_fault_it_is_and_what_is_wrong(error: ProxyError, blame: Blame, sentence: str):
    assert error.blame is blame
    assert sentence in str(error)


def test_facts_are_kept():
    assert InvalidRequest("x").param is None
    assert InvalidRequest("x", param="a[0]").param == "a[0]"
    assert (ModelNotFound("q", ["r"]).model, ModelNotFound("q", ["r"]).near) == ("q", ("r",))
    assert MethodNotAllowed("PUT", "/x", ["GET"]).allowed == ("GET",)
    assert BodyTooLarge(10).limit_bytes == 10
    assert RequestTooSlow(60).limit_seconds == 60
    assert (PromptTooLong(11, 10).size, PromptTooLong(11, 10).limit) == (11, 10)
    assert ContentRefused("x").code == "x"
    assert SignInRefused(SignInReason.UNKNOWN).reason is SignInReason.UNKNOWN
    assert UpstreamChallenged("json").form == "json"
    assert UpstreamUnavailable("reset").problem == "reset"
    assert UpstreamTimeout("headers", 1).phase == "headers"
    assert UpstreamProtocolError("x").problem == "x"
    assert UpstreamFailed("x").code == "x"
    assert ReplyEmpty("nothing").kind == "nothing"


def test_a_time_to_come_again_is_given_only_where_it_is_known():
    assert ReplyCut().retry_after_seconds is None
    assert QuotaExhausted().retry_after_seconds is None
    assert QuotaExhausted(60).retry_after_seconds == QuotaExhausted(60).rest_seconds == 60
    assert AccountsBusy("all busy", 2.5).retry_after_seconds == 2.5


def test_a_limit_says_when_to_come_again_unless_that_does_not_help():
    facts = LimitFacts(at=100.0)
    ended = KeyLimitReached(LimitName.REQUESTS_PER_MINUTE, 3, 3, 1, facts=facts, resets_at=120.5)
    assert (ended.retry_after_seconds, ended.facts, ended.name) == (20.5, facts, LimitName.REQUESTS_PER_MINUTE)
    over = KeyLimitReached(LimitName.REQUESTS_PER_MINUTE, 3, 3, 1, facts=facts, resets_at=99.0)
    assert over.retry_after_seconds == 0.0
    places = KeyLimitReached(LimitName.CONCURRENT_REQUESTS, 3, 3, 1, facts=facts, resets_at=None)
    assert places.retry_after_seconds == 1.0
    assert LimitTooSmall(LimitName.TOKENS_PER_DAY, 3, 4, facts=facts).retry_after_seconds is None
