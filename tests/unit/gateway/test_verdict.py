"""Every reason to try again, and every reason not to."""

import inspect

import pytest

from qwen_proxy.accounts.model import OutcomeKind
from qwen_proxy.chat.request import AUTO, ToolChoice, ToolChoiceKind
from qwen_proxy.gateway.verdict import (
    MOST_TOLD,
    Past,
    ReplyHeld,
    Verdict,
    hint_of,
    judge,
    least_rest_seconds,
    outcome_of,
    unfit,
)
from qwen_proxy.ground import errors
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.toolcalls.report import InvalidCall, ReadingReport

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
    (errors.ReplyUnfit("call_invalid", "p", "h"), Verdict.ASK_AGAIN, OutcomeKind.SUCCEEDED),
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
    if not isinstance(error, errors.ReplyUnfit):  # has rows of its own
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


# --- replies that are unfit


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        ("call_invalid", [Verdict.ASK_AGAIN, Verdict.OTHER_ACCOUNT, Verdict.GIVE_UP]),
        ("intercepted", [Verdict.ASK_AGAIN, Verdict.OTHER_ACCOUNT, Verdict.GIVE_UP]),
        ("required_call_missing", [Verdict.ASK_AGAIN, Verdict.GIVE_UP, Verdict.GIVE_UP]),
        ("output_invalid", [Verdict.ASK_AGAIN, Verdict.GIVE_UP, Verdict.GIVE_UP]),
    ],
)
def test_an_unfit_reply_is_asked_for_again_and_then_elsewhere(kind: str, verdicts: list[Verdict]) -> None:
    error = errors.ReplyUnfit(kind, "p")
    has_begun = kind != "output_invalid"
    said = [judge(error, Past(tries_left=0, content_sent=has_begun, asked_again=n)) for n in range(3)]
    assert said == verdicts
    assert judge(error, Past(tries_left=5, call_sent=True)) is Verdict.GIVE_UP
    assert judge(error, Past(tries_left=5, may_ask_again=0)) is Verdict.GIVE_UP


def test_json_that_has_begun_to_go_out_is_not_followed_by_another() -> None:
    assert judge(errors.ReplyUnfit("output_invalid", "p"), Past(tries_left=5, content_sent=True)) is Verdict.GIVE_UP


REQUIRED = ToolChoice(ToolChoiceKind.REQUIRED)
BAD_CALL = InvalidCall(name="Read", form="taught", errors=("path: is missing", "limit: no number"))

NAMELESS = InvalidCall(name="", form="x", errors=())


@pytest.mark.parametrize(
    ("report", "choice", "kind", "told"),
    [
        (ReadingReport(), AUTO, None, ""),
        (ReadingReport(committed=1, invalid=[BAD_CALL], intercepted=1, call_in_thinking=True), REQUIRED, None, ""),
        (ReadingReport(intercepted=1, invalid=[BAD_CALL]), AUTO, "intercepted", "was lost"),
        (ReadingReport(invalid=[BAD_CALL]), REQUIRED, "call_invalid", "- Read: path: is missing; limit: no number"),
        (
            ReadingReport(invalid=[InvalidCall(name="", form="x", errors=())]),
            AUTO,
            "call_invalid",
            "- a call: it can not",
        ),
        (ReadingReport(result_invented=True, call_in_thinking=True), AUTO, "result_invented", "not true"),
        (ReadingReport(call_in_thinking=True), AUTO, "call_in_thinking", "in your thinking"),
        (ReadingReport(), REQUIRED, "required_call_missing", "this reply has to"),
    ],
)
def test_what_is_wrong_with_a_reply_has_a_name_and_a_hint(
    report: ReadingReport, choice: ToolChoice, kind: str | None, told: str
) -> None:
    error = unfit(report, choice)
    assert (None if error is None else error.kind) == kind
    assert error is None or told in error.hint


def test_of_many_invalid_calls_some_are_told() -> None:
    error = unfit(ReadingReport(invalid=[BAD_CALL] * 20), AUTO)
    assert error is not None and error.hint.count("- Read") == MOST_TOLD


def test_only_the_models_own_faults_are_told_to_it() -> None:
    assert hint_of(errors.ReplyUnfit("call_invalid", "p", "h")) == "h"
    assert "thinking only" in hint_of(errors.ReplyEmpty("thinking_only"))
    assert hint_of(errors.ReplyEmpty("nothing")) == hint_of(errors.ReplyCut()) == ""


def test_a_held_reply_says_why() -> None:
    assert str(ReplyHeld(errors.ReplyUnfit("k", "it is odd"), [])) == "the model's reply can't be used: it is odd"
