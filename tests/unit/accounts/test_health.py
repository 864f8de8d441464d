"""The rules of rest and choice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.health import (
    CHALLENGE,
    FAILING,
    HEALTHY,
    HEALTHY_EXIT,
    LONGEST_WORD_SECONDS,
    QUOTA,
    UNREACHABLE,
    AccountHealth,
    ExitHealth,
    Growth,
    Hindrance,
    Obstacle,
    Rest,
    SignInHealth,
    SignInState,
    after_failed_sign_in,
    after_outcome,
    after_rejection,
    after_sign_in,
    choose,
    hindrance,
    token_hindrance,
)
from qwen_proxy.accounts.model import Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    ProxyError,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret

NOW = 1_800_000_000.0
CHAT = Feature.CHAT


class Way(Struct, frozen=True):
    health: ExitHealth = HEALTHY_EXIT
    trial_until: float = 0.0


class Someone(Struct, frozen=True):
    account: Account = Account(id="a", email="a")
    credential: Credential | None = Credential(account_id="a", token=Secret("t"))
    health: AccountHealth = HEALTHY
    exit: Way = Way()
    in_use: int = 0
    held: int = 2


def after(
    kind: OutcomeKind,
    health: AccountHealth = HEALTHY,
    exit: ExitHealth = HEALTHY_EXIT,
    *,
    at: float = NOW,
    who: str = "a",
    rest_seconds: float | None = None,
) -> tuple[AccountHealth, ExitHealth]:
    return after_outcome(health, exit, Outcome(kind=kind, rest_seconds=rest_seconds, detail="why"), who, at)


@pytest.mark.parametrize("kind", [OutcomeKind.CANCELLED, OutcomeKind.CLIENT_FAULT])
def test_what_is_nobodys_fault_changes_only_the_last_use(kind: OutcomeKind) -> None:
    assert after(kind) == (replace(HEALTHY, last_used_at=NOW), HEALTHY_EXIT)


def test_quota_parks_for_as_long_as_the_upstream_says() -> None:
    health, exit = after(OutcomeKind.OUT_OF_QUOTA, rest_seconds=6 * 3600)
    assert health.parked == {CHAT: Rest(NOW + 6 * 3600, 0, "why")}
    assert (exit, health.last_error, health.last_error_at, health.failed) == (HEALTHY_EXIT, "why", NOW, 1)


def test_a_shorter_word_does_not_end_a_longer_rest_and_none_lasts_for_ever() -> None:
    health, _ = after(OutcomeKind.OUT_OF_QUOTA, rest_seconds=1e12)
    assert health.parked[CHAT].until == NOW + LONGEST_WORD_SECONDS
    health, _ = after(OutcomeKind.OUT_OF_QUOTA, health, rest_seconds=5)
    assert health.parked[CHAT].until == NOW + LONGEST_WORD_SECONDS


def test_being_asked_too_often_parks_for_a_moment() -> None:
    health, _ = after(OutcomeKind.THROTTLED, rest_seconds=7)
    assert health.parked[Feature.CHAT].until == NOW + 7
    health, _ = after(OutcomeKind.THROTTLED)
    assert health.parked[Feature.CHAT].until == NOW + 4


@pytest.mark.parametrize("word", [None, 0, -3])
def test_quota_without_a_word_parks_for_a_quarter_of_an_hour_doubling_to_a_day(word: float | None) -> None:
    health, at, lengths = HEALTHY, NOW, list[float]()
    for _ in range(9):
        health, _ = after(OutcomeKind.OUT_OF_QUOTA, health, at=at, rest_seconds=word)
        lengths.append((health.parked[CHAT].until - at) / 60)
        at = health.parked[CHAT].until
    assert lengths == [15, 30, 60, 120, 240, 480, 960, 1440, 1440]


CASES = [
    (OutcomeKind.OUT_OF_QUOTA, QUOTA),
    (OutcomeKind.CHALLENGED, CHALLENGE),
    (OutcomeKind.EXIT_UNREACHABLE, UNREACHABLE),
]


@pytest.mark.parametrize(("kind", "growth"), CASES)
def test_a_burst_is_one_strike_and_a_success_after_the_rest_forgives(kind: OutcomeKind, growth: Growth) -> None:
    health, exit = after(kind)
    once = (health, exit)
    for _ in range(5):
        health, exit = after(kind, health, exit)
    assert (health.parked, health.challenge) == (once[0].parked, once[0].challenge)
    assert exit == once[1]
    during = after(OutcomeKind.SUCCEEDED, health, exit)
    assert (during[0].parked, during[0].challenge) == (health.parked, health.challenge)
    assert during[1] == exit
    later = after(OutcomeKind.SUCCEEDED, health, exit, at=NOW + growth.first_seconds)
    assert (later[0].parked, later[0].challenge) == ({}, Rest())
    assert (later[1].challenge, later[1].unreachable) == (Rest(), Rest())


def test_a_success_forgives_the_strikes_of_its_own_feature_only() -> None:
    parked = {CHAT: Rest(NOW, 3), Feature.VIDEO: Rest(NOW, 2)}
    health, _ = after(OutcomeKind.SUCCEEDED, AccountHealth(parked=parked))
    assert health.parked == {Feature.VIDEO: Rest(NOW, 2)}
    assert health.succeeded == 1


def test_the_first_challenge_rests_the_account() -> None:
    health, exit = after(OutcomeKind.CHALLENGED)
    assert health.challenge == Rest(NOW + 60, 1, "why")
    assert exit == ExitHealth(challenged_account="a", challenged_at=NOW)


def test_the_same_account_challenged_again_rests_for_longer() -> None:
    health, exit = after(OutcomeKind.CHALLENGED)
    health, exit = after(OutcomeKind.CHALLENGED, health, exit, at=NOW + 60)
    assert health.challenge == Rest(NOW + 60 + 120, 2, "why")
    assert exit.challenge == Rest()


def test_another_account_challenged_within_a_minute_shows_that_it_is_the_exit() -> None:
    _, exit = after(OutcomeKind.CHALLENGED)
    health, exit = after(OutcomeKind.CHALLENGED, HEALTHY, exit, at=NOW + 60, who="b")
    assert health.challenge == Rest()
    assert exit.challenge == Rest(NOW + 120, 1, "why")
    assert not exit.is_half_open(NOW + 119)
    assert exit.is_half_open(NOW + 120)


def test_another_account_challenged_later_rests_by_itself() -> None:
    _, exit = after(OutcomeKind.CHALLENGED)
    health, exit = after(OutcomeKind.CHALLENGED, HEALTHY, exit, at=NOW + 61, who="b")
    assert health.challenge.strikes == 1
    assert exit.challenge == Rest()


def test_a_challenge_on_trial_rests_the_exit_whoever_it_was_up_to_an_hour() -> None:
    exit, at, lengths = ExitHealth(challenge=Rest(NOW, 1)), NOW, list[float]()
    for _ in range(7):
        health, exit = after(OutcomeKind.CHALLENGED, HEALTHY, exit, at=at)
        assert health.challenge == Rest()
        lengths.append(exit.challenge.until - at)
        at = exit.challenge.until
    assert lengths == [120, 240, 480, 960, 1920, 3600, 3600]


def test_a_dead_proxy_rests_its_exit_shortly() -> None:
    exit, at, lengths = HEALTHY_EXIT, NOW, list[float]()
    for _ in range(5):
        _, exit = after(OutcomeKind.EXIT_UNREACHABLE, HEALTHY, exit, at=at)
        lengths.append(exit.unreachable.until - at)
        at = exit.unreachable.until
    assert lengths == [5, 10, 20, 40, 60]


def test_five_failures_in_a_row_make_an_account_the_last_choice() -> None:
    health = HEALTHY
    for _ in range(4):
        health, _ = after(OutcomeKind.UPSTREAM_FAILED, health)
    assert health.failing == Rest()
    health, _ = after(OutcomeKind.UPSTREAM_FAILED, health)
    assert health.failing == Rest(NOW + FAILING.first_seconds, 1, "why")
    health, _ = after(OutcomeKind.UPSTREAM_FAILED, health, at=NOW + 30)
    assert health.failing == Rest(NOW + 90, 2, "why")
    health, _ = after(OutcomeKind.SUCCEEDED, health, at=NOW + 31)
    assert (health.failing, health.failures_in_a_row) == (Rest(), 0)


def test_an_outcome_without_detail_tells_its_kind() -> None:
    health, _ = after_outcome(HEALTHY, HEALTHY_EXIT, Outcome(kind=OutcomeKind.CREDENTIAL_REJECTED), "a", NOW)
    assert health.last_error == "credential_rejected"


# --- sign-in -----------------------------------------------------------------------------------------------


def test_a_token_that_worked_and_is_rejected_is_renewed_at_once() -> None:
    health, _ = after_sign_in(HEALTHY, HEALTHY_EXIT, NOW)
    health, _ = after(OutcomeKind.SUCCEEDED, health)
    health = after_rejection(health, NOW + 5)
    assert token_hindrance(Someone(health=health), NOW + 5).obstacle is Obstacle.SIGNING_IN


def test_a_fresh_token_that_never_worked_backs_off_more_each_time() -> None:
    health, at, lengths = HEALTHY, NOW, list[float]()
    for _ in range(3):
        health, _ = after_sign_in(health, HEALTHY_EXIT, at)
        health = after_rejection(health, at)
        assert (health.sign_in.state, health.sign_in.reason) == (SignInState.REFUSED, "token_rejected_after_sign_in")
        assert health.sign_in.retry_at is not None
        lengths.append(health.sign_in.retry_at - at)
        at = health.sign_in.retry_at
    assert lengths == [30, 60, 120]


def test_an_old_token_that_was_never_used_is_renewed_at_once() -> None:
    health, _ = after_sign_in(HEALTHY, HEALTHY_EXIT, NOW)
    health = after_rejection(health, NOW + 601)
    assert health.sign_in.state is SignInState.SUCCEEDED


def failed(error: ProxyError, strikes: int = 0) -> tuple[SignInHealth, ExitHealth]:
    before = AccountHealth(sign_in=SignInHealth(strikes=strikes, succeeded_at=7))
    health, exit = after_failed_sign_in(before, HEALTHY_EXIT, error, NOW)
    assert (health.last_error, health.last_error_at, health.sign_in.attempted_at) == (str(error), NOW, NOW)
    assert health.sign_in.succeeded_at == 7
    return health.sign_in, exit


@pytest.mark.parametrize("reason", [SignInReason.WRONG_PASSWORD, SignInReason.NOT_REGISTERED, SignInReason.NO_PASSWORD])
def test_what_asking_again_cant_change_is_not_asked_again(reason: SignInReason) -> None:
    sign_in, _ = failed(SignInRefused(reason))
    assert (sign_in.state, sign_in.reason, sign_in.retry_at) == (SignInState.REFUSED, reason.value, None)


@pytest.mark.parametrize("reason", [SignInReason.NOT_ACTIVATED, SignInReason.BANNED, SignInReason.UNKNOWN])
def test_other_refusals_are_tried_again_after_hours(reason: SignInReason) -> None:
    assert failed(SignInRefused(reason))[0].retry_at == NOW + 3600
    assert failed(SignInRefused(reason), strikes=9)[0].retry_at == NOW + 24 * 3600


def test_an_outage_at_sign_in_is_tried_again_soon_then_less_often() -> None:
    error = UpstreamUnavailable("HTTP 503")
    delays = [failed(error, strikes)[0].retry_at for strikes in range(7)]
    assert [at - NOW for at in delays if at] == [30, 60, 120, 240, 480, 900, 900]


def test_a_challenge_at_sign_in_rests_the_exits_sign_ins() -> None:
    sign_in, exit = failed(UpstreamChallenged("html"))
    assert (sign_in.retry_at, sign_in.strikes, exit.sign_in.until) == (NOW + 60, 0, NOW + 60)
    assert exit.challenge == Rest()


def test_a_dead_proxy_at_sign_in_rests_the_exit() -> None:
    sign_in, exit = failed(ExitUnreachable("refused"))
    assert (sign_in.retry_at, sign_in.strikes, exit.unreachable.until) == (NOW + 5, 0, NOW + 5)


# --- hindrance and choice ----------------------------------------------------------------------------------

SOON = NOW + 30
HINDERED = [
    (Someone(), None),
    (Someone(in_use=1), None),
    (Someone(in_use=2), Hindrance(Obstacle.BUSY)),
    (Someone(account=Account(id="a", email="a", enabled=False)), Hindrance(Obstacle.DISABLED)),
    (Someone(health=AccountHealth(parked={CHAT: Rest(SOON)})), Hindrance(Obstacle.OUT_OF_QUOTA, SOON)),
    (Someone(health=AccountHealth(parked={CHAT: Rest(NOW)})), None),
    (Someone(health=AccountHealth(parked={Feature.IMAGE: Rest(SOON)})), None),
    (Someone(health=AccountHealth(challenge=Rest(SOON))), Hindrance(Obstacle.CHALLENGED, SOON)),
    (Someone(exit=Way(ExitHealth(challenge=Rest(SOON, 1)))), Hindrance(Obstacle.EXIT_CHALLENGED, SOON)),
    (Someone(exit=Way(ExitHealth(unreachable=Rest(SOON)))), Hindrance(Obstacle.EXIT_UNREACHABLE, SOON)),
    (Someone(exit=Way(ExitHealth(challenge=Rest(NOW, 1)), SOON)), Hindrance(Obstacle.EXIT_ON_TRIAL)),
    (Someone(exit=Way(ExitHealth(challenge=Rest(NOW, 1)), NOW)), None),
    (Someone(exit=Way(ExitHealth(challenged_account="b"), SOON)), None),
    (Someone(exit=Way(ExitHealth(sign_in=Rest(SOON)))), None),
]

TOKENLESS = [
    (SignInHealth(), HEALTHY_EXIT, Hindrance(Obstacle.SIGNING_IN)),
    (SignInHealth(), ExitHealth(sign_in=Rest(SOON)), Hindrance(Obstacle.SIGN_INS_REST, SOON)),
    (
        SignInHealth(state=SignInState.FAILED, retry_at=SOON),
        HEALTHY_EXIT,
        Hindrance(Obstacle.SIGN_IN_FAILED, SOON),
    ),
    (
        SignInHealth(state=SignInState.FAILED, retry_at=SOON),
        ExitHealth(sign_in=Rest(SOON)),
        Hindrance(Obstacle.SIGN_INS_REST, SOON),
    ),
    (
        SignInHealth(state=SignInState.REFUSED, retry_at=None),
        ExitHealth(sign_in=Rest(SOON)),
        Hindrance(Obstacle.SIGN_IN_REFUSED),
    ),
]


@pytest.mark.parametrize(("someone", "expected"), HINDERED)
def test_what_keeps_an_account_from_being_taken(someone: Someone, expected: Hindrance | None) -> None:
    assert hindrance(someone, CHAT, NOW, 2) == expected


@pytest.mark.parametrize(("sign_in", "exit", "expected"), TOKENLESS)
def test_what_keeps_an_account_without_a_token(sign_in: SignInHealth, exit: ExitHealth, expected: Hindrance) -> None:
    someone = Someone(credential=None, health=AccountHealth(sign_in=sign_in), exit=Way(exit))
    assert hindrance(someone, CHAT, NOW, 2) == expected


def named(name: str, *, failing: bool = False, in_use: int = 0, exit: str = "") -> Someone:
    health = AccountHealth(failing=Rest(SOON)) if failing else HEALTHY
    return Someone(account=Account(id=name, email=name, exit=exit), health=health, in_use=in_use)


def test_the_first_usable_is_chosen() -> None:
    found = choose([named("a", in_use=2), named("b"), named("c")], CHAT, NOW, 2)
    assert found is not None and found.account.id == "b"
    assert choose([named("a", in_use=2)], CHAT, NOW, 2) is None


def test_avoided_ones_come_before_failing_ones_and_both_before_none() -> None:
    avoided, failing = named("a"), named("f", failing=True)
    both = named("b", failing=True, exit="x")
    assert choose([both, failing, avoided], CHAT, NOW, 2, {"a"}, {"x"}) is avoided
    assert choose([both, failing], CHAT, NOW, 2, {"a"}, {"x"}) is failing
    assert choose([both, named("b", failing=True, exit="x")], CHAT, NOW, 2, {"a"}, {"x"}) is both


STEPS = st.tuples(st.sampled_from(OutcomeKind), st.sampled_from("ab"), st.floats(0, 4000), st.sampled_from([None, 9.0]))


@given(st.lists(STEPS, max_size=40))
def test_rests_never_outgrow_their_caps(steps: list[tuple[OutcomeKind, str, float, float | None]]) -> None:
    at, exit = NOW, HEALTHY_EXIT
    accounts = {"a": HEALTHY, "b": HEALTHY}
    for kind, who, seconds, rest_seconds in steps:
        at += seconds
        accounts[who], exit = after(kind, accounts[who], exit, at=at, who=who, rest_seconds=rest_seconds)
        for health in accounts.values():
            assert all(rest.until - at <= QUOTA.cap_seconds for rest in health.parked.values())
            assert health.challenge.until - at <= CHALLENGE.cap_seconds
            assert health.failing.until - at <= FAILING.cap_seconds
        assert exit.challenge.until - at <= CHALLENGE.cap_seconds
        assert exit.unreachable.until - at <= UNREACHABLE.cap_seconds
