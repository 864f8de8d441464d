"""How an API key is doing: pure rules, without a clock. Source: upstream protocol §8.6.

| outcome | the key |
|---|---|
| CREDENTIAL_REJECTED | retired: not used again until a person tests it, or it is another key |
| OUT_OF_QUOTA | parked for the upstream's word; without one 65 s (maybe a limit per minute), then for the day (UTC) |
| THROTTLED | parked for the upstream's word, or 4 s doubling to 60 s |
| UPSTREAM_FAILED, the fifth in a row and later | comes last for 30 s, doubling to 15 min |
| SUCCEEDED | strikes are forgotten where no rest is running |
| CHALLENGED, EXIT_UNREACHABLE, CLIENT_FAULT, CANCELLED | |

All times are Unix seconds.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.health import (
    DAY,
    FAILING,
    FAILURES_IN_A_ROW,
    NO_REST,
    THROTTLE,
    Rest,
    forgiven,
    rested,
    struck,
)
from qwen_proxy.accounts.model import Outcome, OutcomeKind

FIRST_QUOTA_SECONDS: Final = 65.0


class KeyHealth(Struct, frozen=True, kw_only=True):
    """`retired` is why, empty while it is used."""

    quota: Rest = NO_REST
    throttle: Rest = NO_REST
    failing: Rest = NO_REST
    failures_in_a_row: int = 0
    retired: str = ""
    retired_at: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0


SOUND: Final = KeyHealth()


class KeyState(StrEnum):
    READY = "ready"
    OUT_OF_QUOTA = "out_of_quota"
    THROTTLED = "throttled"
    RETIRED = "retired"


def state_of(health: KeyHealth, now: float) -> KeyState:
    """The longest lasting kind first."""
    if health.retired:
        return KeyState.RETIRED
    if health.quota.until > now:
        return KeyState.OUT_OF_QUOTA
    return KeyState.THROTTLED if health.throttle.until > now else KeyState.READY


def rests_until(health: KeyHealth, now: float) -> float | None:
    """When a parked key is used again; None for one that is not parked."""
    until = max(health.quota.until, health.throttle.until)
    return until if until > now and not health.retired else None


def after_use(health: KeyHealth, outcome: Outcome, now: float) -> KeyHealth:
    """The same object where nothing changes that anybody has to know."""
    kind = outcome.kind
    if kind is OutcomeKind.SUCCEEDED:
        return _succeeded(health, now)
    if kind in (OutcomeKind.CANCELLED, OutcomeKind.CLIENT_FAULT):
        return health
    said = outcome.detail or kind.value
    noted = replace(health, last_error=said, last_error_at=now)
    if kind is OutcomeKind.CREDENTIAL_REJECTED:
        return replace(noted, retired=said, retired_at=now)
    if kind is OutcomeKind.OUT_OF_QUOTA:
        return replace(noted, quota=_out_of_quota(health.quota, outcome, now))
    if kind is OutcomeKind.THROTTLED:
        return replace(noted, throttle=rested(health.throttle, outcome, now, THROTTLE))
    if kind is OutcomeKind.UPSTREAM_FAILED:
        in_a_row = health.failures_in_a_row + 1
        failing = struck(health.failing, now, FAILING, said) if in_a_row >= FAILURES_IN_A_ROW else health.failing
        return replace(noted, failures_in_a_row=in_a_row, failing=failing)
    return noted


def after_test(health: KeyHealth) -> KeyHealth:
    """A person had it tried, and it works, or wants it used again whatever it did before."""
    return replace(SOUND, last_error=health.last_error, last_error_at=health.last_error_at)


def _succeeded(health: KeyHealth, now: float) -> KeyHealth:
    """One that was retired meanwhile stays so: this request may be older."""
    if health is SOUND:
        return health
    changed = replace(
        health,
        quota=forgiven(health.quota, now),
        throttle=forgiven(health.throttle, now),
        failing=NO_REST,
        failures_in_a_row=0,
    )
    return health if changed == health else changed


def _out_of_quota(rest: Rest, outcome: Outcome, now: float) -> Rest:
    if outcome.rest_seconds or rest.until > now:
        return rested(rest, outcome, now, THROTTLE)
    until = now + FIRST_QUOTA_SECONDS
    if rest.strikes:
        until = max(until, (now // DAY + 1) * DAY)
    return Rest(until, rest.strikes + 1, outcome.detail)
