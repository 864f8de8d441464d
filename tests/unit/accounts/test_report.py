"""What operators and clients are told."""

import pytest
from msgspec import Struct

from qwen_proxy.accounts.health import (
    HEALTHY,
    HEALTHY_EXIT,
    AccountHealth,
    ExitHealth,
    Rest,
    SignInHealth,
    SignInState,
)
from qwen_proxy.accounts.model import Account, Credential, Feature
from qwen_proxy.accounts.report import account_report, clock_time, exit_name, exit_report, shortage
from qwen_proxy.ground.errors import AccountsBusy, AccountsChallenged, AccountsOutOfQuota, NoAccountUsable
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.secret import Secret

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
LATER = NOW + 6 * 3600
CREDENTIAL = Credential(account_id="a", token=Secret("t"), expires_at=NOW + 9)


class Way(Struct, frozen=True):
    health: ExitHealth = HEALTHY_EXIT
    trial_until: float = 0.0


class Someone(Struct, frozen=True):
    account: Account = Account(id="a", email="a", exit="http://u:pw@h:1")
    credential: Credential | None = CREDENTIAL
    health: AccountHealth = HEALTHY
    exit: Way = Way()
    in_use: int = 0
    held: int = 2


QUOTA = Someone(health=AccountHealth(parked={Feature.CHAT: Rest(LATER, 1, "quota")}))
CHALLENGED = Someone(health=AccountHealth(challenge=Rest(NOW + 600, 1, "challenge")))
WRONG = Someone(
    credential=None,
    health=AccountHealth(sign_in=SignInHealth(state=SignInState.REFUSED, reason="wrong_password", retry_at=None)),
)
ODD = Someone(
    credential=None,
    health=AccountHealth(sign_in=SignInHealth(state=SignInState.REFUSED, reason="unknown", retry_at=LATER)),
)
OUTAGE = Someone(
    credential=None,
    health=AccountHealth(sign_in=SignInHealth(state=SignInState.FAILED, reason="HTTP 503", retry_at=NOW + 30)),
)
DISABLED = Someone(account=Account(id="a", email="a", enabled=False))
NEW = Someone(credential=None)
BUSY = Someone(in_use=2)
TRIAL = Someone(exit=Way(ExitHealth(challenge=Rest(NOW, 1, "exit challenge")), NOW + 5))
EXIT_CHALLENGED = Someone(exit=Way(ExitHealth(challenge=Rest(NOW + 90, 1, "exit challenge"))))
DEAD_PROXY = Someone(exit=Way(ExitHealth(unreachable=Rest(NOW + 5, 1, "refused"))))
SIGN_INS_REST = Someone(credential=None, exit=Way(ExitHealth(sign_in=Rest(NOW + 60, 1, "html"))))
FAILING = Someone(health=AccountHealth(failing=Rest(NOW + 60, 1, "HTTP 502")))


@pytest.mark.parametrize(
    ("someone", "state", "reason", "action", "until"),
    [
        (Someone(), "ready", "", "", None),
        (FAILING, "ready", "HTTP 502", "", None),
        (BUSY, "busy", "", "", None),
        (NEW, "signing_in", "", "", None),
        (TRIAL, "exit_on_trial", "exit challenge", "", None),
        (QUOTA, "out_of_quota", "quota", "add another account", LATER),
        (CHALLENGED, "challenged", "challenge", "signed in as this account", NOW + 600),
        (EXIT_CHALLENGED, "exit_challenged", "exit challenge", "from this exit", NOW + 90),
        (DEAD_PROXY, "exit_unreachable", "refused", "outbound proxy", NOW + 5),
        (SIGN_INS_REST, "sign_ins_rest", "html", "sign-ins go on", NOW + 60),
        (OUTAGE, "sign_in_failed", "HTTP 503", "tried again by itself", NOW + 30),
        (WRONG, "sign_in_refused", "wrong_password", "Correct the account's password.", None),
        (ODD, "sign_in_refused", "unknown", "by hand to see", LATER),
        (DISABLED, "disabled", "", "Enable", None),
    ],
)
def test_an_account_is_told_of_with_state_reason_and_advice(
    someone: Someone, state: str, reason: str, action: str, until: float | None
) -> None:
    report = account_report(someone, NOW, 2)
    assert (report.state, report.reason, report.until) == (state, reason, until)
    assert action in report.next_action
    assert bool(action) == bool(report.next_action)
    assert (report.has_token, report.token_expires_at) == ((True, NOW + 9) if someone.credential else (False, None))
    assert "pw" not in repr(report)


def test_parked_features_are_named_while_they_are() -> None:
    parked = {Feature.IMAGE: Rest(LATER), Feature.VIDEO: Rest(NOW)}
    report = account_report(Someone(health=AccountHealth(parked=parked)), NOW, 2)
    assert (report.state, report.parked) == ("ready", {Feature.IMAGE: LATER})


@pytest.mark.parametrize(
    ("health", "state", "until"),
    [
        (HEALTHY_EXIT, "open", None),
        (TRIAL.exit.health, "half_open", None),
        (EXIT_CHALLENGED.exit.health, "challenged", NOW + 90),
        (DEAD_PROXY.exit.health, "unreachable", NOW + 5),
        (SIGN_INS_REST.exit.health, "sign_ins_rest", NOW + 60),
    ],
)
def test_an_exit_is_told_of(health: ExitHealth, state: str, until: float | None) -> None:
    report = exit_report("socks5://u:pw@h:1", health, 3, NOW)
    assert (report.state, report.until, report.exit, report.accounts) == (state, until, "socks5://h:1", 3)
    assert bool(report.next_action) == (until is not None)


def test_the_sentence_counts_and_says_until_when() -> None:
    error = shortage([QUOTA, WRONG], Feature.CHAT, NOW, 2)
    assert type(error) is AccountsOutOfQuota
    assert error.retry_after_seconds == 6 * 3600
    assert str(error) == (
        "no account can be used for chat now: 2 accounts: 1 out of quota until 14:00 UTC, "
        "1 refused at sign-in (wrong_password)"
    )


@pytest.mark.parametrize(
    ("members", "kind", "seconds"),
    [
        ([QUOTA, CHALLENGED], AccountsChallenged, 600),
        ([QUOTA, OUTAGE], NoAccountUsable, 30),
        ([QUOTA, QUOTA, DISABLED], AccountsOutOfQuota, 6 * 3600),
        ([EXIT_CHALLENGED, CHALLENGED], AccountsChallenged, 90),
        ([SIGN_INS_REST], AccountsChallenged, 60),
        ([DEAD_PROXY], NoAccountUsable, 5),
        ([WRONG, DISABLED], NoAccountUsable, None),
        ([WRONG, ODD], NoAccountUsable, 6 * 3600),
        ([QUOTA, BUSY], AccountsBusy, 5),
        ([TRIAL], AccountsBusy, 5),
        ([NEW, WRONG], AccountsBusy, 5),
        ([Someone()], AccountsBusy, 5),
        ([], NoAccountUsable, None),
    ],
)
def test_the_kind_follows_who_comes_back_first(
    members: list[Someone], kind: type[NoAccountUsable], seconds: float | None
) -> None:
    error = shortage(members, Feature.CHAT, NOW, 2)
    assert (type(error), error.retry_after_seconds) == (kind, seconds)


def test_the_earliest_of_several_is_named() -> None:
    soon = Someone(health=AccountHealth(parked={Feature.CHAT: Rest(NOW + 600)}))
    assert "2 out of quota until 08:10 UTC" in str(shortage([QUOTA, soon], Feature.CHAT, NOW, 2))


def test_times_are_short() -> None:
    assert clock_time(NOW + 42.2, NOW) == "08:00:43 UTC"
    assert clock_time(NOW + 601, NOW) == "08:11 UTC"
    assert clock_time(NOW + 86400, NOW) == "2027-01-16 08:00 UTC"


def test_names_without_secrets() -> None:
    assert exit_name("") == "direct"
    assert exit_name("socks5://user:p%40ss@[::1]:1080") == "socks5://[::1]:1080"
    assert masked_email("alice@example.com") == "al***@example.com"
    assert masked_email("alice") == "al***"
