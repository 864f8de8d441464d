"""Every reason to try again, and every reason not to."""

import inspect

import pytest

from qwen_proxy.accounts.model import OutcomeKind
from qwen_proxy.gateway.verdict import Past, Verdict, judge, least_rest_seconds, outcome_of
from qwen_proxy.ground import errors
from qwen_proxy.ground.errors import ProxyError

FRESH = Past(tries_left=1)

ROWS: list[tuple[ProxyError, Verdict, OutcomeKind]] = [
    (errors.CredentialRejected(), Verdict.RENEW, OutcomeKind.CREDENTIAL_REJECTED),
    (
        errors.SignInRefused(errors.SignInReason.BANNED),
        Verdict.OTHER_ACCOUNT,
        OutcomeKind.CREDENTIAL_REJECTED,
    ),
    (errors.QuotaExhausted(3600), Verdict.OTHER_ACCOUNT, OutcomeKind.OUT_OF_QUOTA),
    (errors.RateLimited(7), Verdict.OTHER_ACCOUNT, OutcomeKind.THROTTLED),
    (errors.QuotaElsewhere(), Verdict.OTHER_ACCOUNT, OutcomeKind.OUT_OF_QUOTA),
    (errors.UpstreamChallenged("html"), Verdict.CHALLENGED, OutcomeKind.CHALLENGED),
    (errors.ExitUnreachable("refused"), Verdict.OTHER_EXIT, OutcomeKind.EXIT_UNREACHABLE),
    (errors.UpstreamTimeout("total", 1), Verdict.GIVE_UP, OutcomeKind.UPSTREAM_FAILED),
    (errors.UpstreamTimeout("idle", 1), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.UpstreamUnavailable("HTTP 503"), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.UpstreamOverloaded(), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.UpstreamProtocolError("a list"), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.UpstreamFailed("internal_error"), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.ReplyEmpty("nothing"), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.ReplyCut(), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.ReplyUnfit("intercepted", "the call was taken"), Verdict.PAUSE, OutcomeKind.UPSTREAM_FAILED),
    (errors.InputRefused("invalid_input"), Verdict.GIVE_UP, OutcomeKind.CLIENT_FAULT),
    (errors.ModelNotFound("x"), Verdict.GIVE_UP, OutcomeKind.CLIENT_FAULT),
    (errors.NoAccountUsable("none"), Verdict.GIVE_UP, OutcomeKind.CANCELLED),
    (errors.AccountsOutOfQuota("all", 60), Verdict.GIVE_UP, OutcomeKind.CANCELLED),
    (errors.ShuttingDown(), Verdict.GIVE_UP, OutcomeKind.CANCELLED),
    (errors.InternalError(), Verdict.GIVE_UP, OutcomeKind.CANCELLED),
]


@pytest.mark.parametrize(("error", "verdict", "kind"), ROWS, ids=lambda value: type(value).__name__)
def test_each_failure_has_its_verdict(error: ProxyError, verdict: Verdict, kind: OutcomeKind) -> None:
    assert judge(error, FRESH) is verdict
    assert outcome_of(error).kind is kind


@pytest.mark.parametrize(("error", "verdict", "kind"), ROWS, ids=lambda value: type(value).__name__)
def test_nothing_is_tried_again_behind_sent_content_or_without_tries(
    error: ProxyError, verdict: Verdict, kind: OutcomeKind
) -> None:
    assert judge(error, Past(tries_left=3, content_sent=True)) is Verdict.GIVE_UP
    assert judge(error, Past(tries_left=0)) is Verdict.GIVE_UP


def test_a_token_rejected_after_signing_in_anew_goes_to_another_account() -> None:
    assert judge(errors.CredentialRejected(), Past(tries_left=1, renewed=True)) is Verdict.OTHER_ACCOUNT


def test_a_second_challenge_ends_the_request() -> None:
    assert judge(errors.UpstreamChallenged("json"), Past(tries_left=5, challenged=True)) is Verdict.GIVE_UP


def test_the_upstreams_word_on_how_long_to_rest_is_handed_on() -> None:
    assert outcome_of(errors.QuotaExhausted(7200)).rest_seconds == 7200
    assert outcome_of(errors.QuotaExhausted()).rest_seconds is None


def test_how_long_something_rests_at_the_least_is_known_of_quota_and_challenges_only() -> None:
    assert least_rest_seconds(errors.QuotaExhausted(7200), 60) == 7200
    assert least_rest_seconds(errors.QuotaExhausted(), 60) == 900
    assert least_rest_seconds(errors.RateLimited(7), 60) == 7
    assert least_rest_seconds(errors.RateLimited(), 60) == 4
    assert least_rest_seconds(errors.UpstreamChallenged("json"), 60) == 60
    assert least_rest_seconds(errors.ReplyCut(), 60) is None


def test_every_concrete_error_of_an_account_exit_or_upstream_has_a_row() -> None:
    families = (errors.AccountError, errors.ExitError, errors.UpstreamError)
    concrete = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, families) and kind not in families
    }
    assert concrete <= {type(error) for error, _, _ in ROWS}
