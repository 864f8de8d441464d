"""When an account is signed in next."""

import pytest

from qwen_proxy.accounts.health import SignInHealth, SignInState
from qwen_proxy.accounts.model import Credential
from qwen_proxy.accounts.refresh import Schedule, next_sign_in_at
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.tasks import Tasks
from tests.support.clock import FakeClock

NOW = 1_800_000_000.0
DAY = 24 * 3600.0


def token(life_seconds: float | None) -> Credential:
    return Credential(
        account_id="a", token=Secret("t"), expires_at=None if life_seconds is None else NOW + life_seconds
    )


def signed_in(state: SignInState = SignInState.SUCCEEDED, retry_at: float | None = 0.0) -> SignInHealth:
    return SignInHealth(state=state, succeeded_at=NOW, retry_at=retry_at)


@pytest.mark.parametrize(
    ("sign_in", "credential", "at"),
    [
        (SignInHealth(), None, 0.0),
        (signed_in(), None, 0.0),
        (signed_in(SignInState.FAILED, NOW + 9), None, NOW + 9),
        (signed_in(SignInState.REFUSED, None), None, None),
        (signed_in(), token(None), None),
        (signed_in(), token(30 * DAY), NOW + 29 * DAY - 5),
        (signed_in(), token(60), NOW + 30),
        (signed_in(), token(-DAY), None),
        (signed_in(SignInState.FAILED, NOW + 29 * DAY + 30), token(30 * DAY), NOW + 29 * DAY + 30),
        (signed_in(SignInState.FAILED, NOW + 1), token(30 * DAY), NOW + 29 * DAY - 5),
        (signed_in(SignInState.REFUSED, None), token(30 * DAY), None),
    ],
)
def test_the_next_sign_in(sign_in: SignInHealth, credential: Credential | None, at: float | None) -> None:
    assert next_sign_in_at(sign_in, credential, before_seconds=DAY, jitter_seconds=5) == at


async def test_only_the_last_plan_of_a_key_holds() -> None:
    clock, due = FakeClock(), list[tuple[str, float]]()
    async with Tasks() as tasks:
        schedule = Schedule(clock, tasks, lambda key: due.append((key, clock.now() - NOW)))
        schedule.plan("a", NOW + 10)
        schedule.plan("a", NOW + 20)
        schedule.plan("b", NOW + 15)
        schedule.plan("c", NOW + 15)
        schedule.plan("c", None)
        await clock.advance(30)
        assert due == [("b", 15), ("a", 20)]
        assert clock.sleepers == 0


async def test_a_wall_clock_that_is_set_is_noticed_within_the_hour() -> None:
    clock, due = FakeClock(), list[str]()
    async with Tasks() as tasks:
        Schedule(clock, tasks, due.append).plan("a", NOW + 30 * DAY)
        await clock.advance(10)
        clock.set_wall_clock(NOW + 30 * DAY)
        await clock.advance(3600)
        assert due == ["a"]
