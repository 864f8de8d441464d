import pytest

from qwen_proxy.ground.errors import (
    AccountsBusy,
    ContentRefused,
    CredentialRejected,
    ExitUnreachable,
    ProxyError,
    QuotaExhausted,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamTimeout,
)
from qwen_proxy.operations.advice import (
    ADVICE,
    AccountFacts,
    Check,
    DriftFacts,
    ExitFacts,
    Trouble,
    Verdict,
    duration,
    judge_account,
    judge_clock,
    judge_drift,
    judge_exit,
    judge_sign_in,
    overall,
    passed,
    skipped,
    warned,
)

NOW = 1_800_000_000.0


def account(**facts: object) -> Check:
    return judge_account(AccountFacts(account="alice@x.example", **facts), NOW)  # pyright: ignore[reportArgumentType]


def test_every_trouble_has_advice_of_its_own():
    assert set(ADVICE) == set(Trouble)
    assert len(set(ADVICE.values())) == len(Trouble)


def test_six_faults_give_six_pieces_of_advice():
    checks = [
        account(state="sign_in_refused", reason="wrong_password", sign_in_reason="wrong_password"),
        judge_exit(ExitFacts(exit="direct", state="challenged", until=NOW + 60), NOW),
        judge_exit(ExitFacts(exit="http://127.0.0.1:1", state="unreachable"), NOW),
        account(state="out_of_quota", reason="RateLimited", until=NOW + 6 * 3600),
        judge_clock(-7200),
        judge_drift([DriftFacts(kind="phase", name="musing", count=2)]),
    ]
    assert [check.trouble for check in checks] == [
        Trouble.WRONG_PASSWORD,
        Trouble.EXIT_CHALLENGED,
        Trouble.PROXY_DEAD,
        Trouble.OUT_OF_QUOTA,
        Trouble.WRONG_CLOCK,
        Trouble.DRIFT,
    ]
    assert len({check.advice for check in checks}) == 6


def test_account_in_order_is_told_with_its_time_left():
    check = account(state="ready", has_token=True, token_expires_at=NOW + 29.5 * 86400)
    assert check == passed("account al***@x.example", "signed in for another 30 days, through direct")
    assert account(state="busy", has_token=True).says == "signed in, through direct"
    assert account(state="ready").verdict is Verdict.OK


def test_fresh_token_that_is_over_shows_a_wrong_clock():
    check = account(state="ready", has_token=True, token_expires_at=NOW - 3600)
    assert (check.verdict, check.trouble) == (Verdict.FAIL, Trouble.WRONG_CLOCK)


@pytest.mark.parametrize(
    ("state", "trouble"),
    [
        ("challenged", Trouble.ACCOUNT_CHALLENGED),
        ("exit_challenged", Trouble.EXIT_CHALLENGED),
        ("sign_ins_rest", Trouble.EXIT_CHALLENGED),
        ("exit_unreachable", Trouble.PROXY_DEAD),
        ("sign_in_failed", Trouble.SIGN_IN_FAILED),
        ("disabled", Trouble.DISABLED),
        ("a state of a later version", Trouble.SIGN_IN_FAILED),
    ],
)
def test_account_states(state: str, trouble: Trouble):
    check = account(state=state, reason="a fact", until=NOW + 90)
    assert (check.verdict, check.trouble, check.advice) == (Verdict.FAIL, trouble, ADVICE[trouble])
    assert "a fact" in check.says and "90 s" in check.says


@pytest.mark.parametrize("reason", list(SignInReason))
def test_refused_sign_in_is_told_alike_from_the_pool_and_from_a_check(reason: SignInReason):
    from_pool = account(state="sign_in_refused", reason=reason.value)
    from_check = judge_sign_in("alice@x.example", SignInRefused(reason))
    assert from_pool.trouble is from_check.trouble
    assert from_pool.name == from_check.name == "account al***@x.example"


def test_account_still_to_be_signed_in_is_no_failure():
    assert account(state="signing_in").verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (UpstreamChallenged("html"), Trouble.EXIT_CHALLENGED),
        (ExitUnreachable("refused"), Trouble.PROXY_DEAD),
        (QuotaExhausted(60), Trouble.OUT_OF_QUOTA),
        (UpstreamTimeout("connect", 30), Trouble.UPSTREAM_DOWN),
        (CredentialRejected(), Trouble.SIGN_IN_FAILED),
        (AccountsBusy("busy"), Trouble.CHAT_FAILED),
        (ContentRefused("data_inspection_failed"), Trouble.CHAT_FAILED),
    ],
)
def test_failed_calls(error: ProxyError, trouble: Trouble):
    assert judge_sign_in("alice@x.example", error).trouble is trouble


def test_open_exit_is_well():
    assert judge_exit(ExitFacts(exit="direct"), NOW).verdict is Verdict.OK
    half_open = judge_exit(ExitFacts(exit="direct", state="half_open", reason="html"), NOW)
    assert half_open.says == "half open (html)"


@pytest.mark.parametrize("offset", [0.0, 59.0, -59.0])
def test_clock_within_a_minute_is_right(offset: float):
    assert judge_clock(offset).verdict is Verdict.OK


@pytest.mark.parametrize(("offset", "way"), [(61.0, "behind"), (-7200.0, "ahead of")])
def test_clock_beyond_a_minute_is_wrong(offset: float, way: str):
    check = judge_clock(offset)
    assert check.verdict is Verdict.FAIL and way in check.says


def test_clock_that_was_not_heard_of_is_skipped():
    assert judge_clock(None).verdict is Verdict.SKIPPED


def test_drift_names_the_first_and_counts_the_rest():
    assert judge_drift([]).verdict is Verdict.OK
    check = judge_drift([DriftFacts(kind="code", name=f"c{number}") for number in range(10)])
    assert check.verdict is Verdict.WARN
    assert "'c7'" in check.says and "'c8'" not in check.says and "2 more" in check.says


def test_the_worst_decides():
    well, odd = passed("a", ""), warned("b", Trouble.DRIFT, "")
    assert overall([well, skipped("c", "")]) is Verdict.OK
    assert overall([well, odd]) is Verdict.WARN
    assert overall([well, odd, judge_clock(3600)]) is Verdict.FAIL


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.2, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172800, "2 days")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
