"""The rules of API keys' health."""

import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.health import DAY, NO_REST, Rest
from qwen_proxy.accounts.key_health import SOUND, KeyHealth, KeyState, after_test, after_use, rests_until, state_of
from qwen_proxy.accounts.model import Outcome, OutcomeKind

MIDNIGHT = 20_000 * DAY
NOW = MIDNIGHT + 1000.0


def used(
    health: KeyHealth, kind: OutcomeKind, at: float = NOW, rest: float | None = None, detail: str = ""
) -> KeyHealth:
    return after_use(health, Outcome(kind=kind, rest_seconds=rest, detail=detail), at)


@pytest.mark.parametrize("kind", [OutcomeKind.SUCCEEDED, OutcomeKind.CANCELLED, OutcomeKind.CLIENT_FAULT])
def test_what_is_no_fault_of_the_key_changes_nothing(kind: OutcomeKind) -> None:
    assert used(SOUND, kind) is SOUND


def test_a_rejected_key_is_retired_for_good_and_a_late_success_does_not_bring_it_back() -> None:
    health = used(SOUND, OutcomeKind.CREDENTIAL_REJECTED, detail="invalid_api_key")
    assert (health.retired, health.retired_at) == ("invalid_api_key", NOW)
    assert state_of(health, NOW + 100 * DAY) is KeyState.RETIRED and rests_until(health, NOW) is None
    assert used(health, OutcomeKind.SUCCEEDED).retired
    assert used(SOUND, OutcomeKind.CREDENTIAL_REJECTED).retired == "credential_rejected"


def test_quota_parks_for_65_seconds_once_then_until_the_next_day() -> None:
    first = used(SOUND, OutcomeKind.OUT_OF_QUOTA)
    assert rests_until(first, NOW) == NOW + 65 and state_of(first, NOW) is KeyState.OUT_OF_QUOTA
    assert used(first, OutcomeKind.OUT_OF_QUOTA, NOW + 1).quota == first.quota  # one burst is one event
    again = used(first, OutcomeKind.OUT_OF_QUOTA, NOW + 66)
    assert rests_until(again, NOW + 66) == MIDNIGHT + DAY
    assert rests_until(again, MIDNIGHT + DAY) is None
    late = used(first, OutcomeKind.OUT_OF_QUOTA, MIDNIGHT + DAY - 10)
    assert late.quota.until == MIDNIGHT + DAY + 55


def test_quota_rests_as_long_as_the_upstream_says() -> None:
    assert rests_until(used(SOUND, OutcomeKind.OUT_OF_QUOTA, rest=600), NOW) == NOW + 600


def test_a_success_behind_the_rest_forgets_the_strike() -> None:
    parked = used(SOUND, OutcomeKind.OUT_OF_QUOTA)
    assert used(parked, OutcomeKind.SUCCEEDED, NOW + 1) is parked
    assert used(parked, OutcomeKind.SUCCEEDED, NOW + 66).quota == NO_REST


def test_throttling_parks_for_the_upstreams_word_or_a_moment_that_doubles() -> None:
    assert rests_until(used(SOUND, OutcomeKind.THROTTLED, rest=7), NOW) == NOW + 7
    health, at, rests = SOUND, NOW, list[float]()
    for _ in range(6):
        health = used(health, OutcomeKind.THROTTLED, at)
        rests.append(health.throttle.until - at)
        assert state_of(health, at) is KeyState.THROTTLED
        at = health.throttle.until
    assert rests == [4, 8, 16, 32, 60, 60]


def test_the_fifth_failure_in_a_row_puts_a_key_last_but_keeps_it_ready() -> None:
    health = SOUND
    for _ in range(4):
        health = used(health, OutcomeKind.UPSTREAM_FAILED)
    assert health.failing == NO_REST
    health = used(health, OutcomeKind.UPSTREAM_FAILED, detail="HTTP 500")
    assert health.failing == Rest(NOW + 30, 1, "HTTP 500") and state_of(health, NOW) is KeyState.READY
    assert used(health, OutcomeKind.SUCCEEDED).failing == NO_REST


def test_an_exit_that_is_down_is_only_noted() -> None:
    health = used(SOUND, OutcomeKind.EXIT_UNREACHABLE, detail="refused")
    assert health == replace(SOUND, last_error="refused", last_error_at=NOW)


def test_a_test_makes_a_key_new_but_for_its_history() -> None:
    retired = used(SOUND, OutcomeKind.CREDENTIAL_REJECTED, detail="no")
    assert after_test(retired) == KeyHealth(last_error="no", last_error_at=NOW)
