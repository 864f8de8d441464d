"""When each account is to be signed in next: at once, after a failure, or before its token ends.

There is no refresh endpoint: to refresh is to sign in again (upstream protocol §1.4).
"""

import heapq
from collections.abc import Callable
from typing import Final

from qwen_proxy.accounts.health import SignInHealth, SignInState
from qwen_proxy.accounts.model import Credential
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

LOOK_AGAIN_SECONDS: Final = 3600.0  # a machine that slept, or whose clock was set, is found out this soon


def next_sign_in_at(
    sign_in: SignInHealth, credential: Credential | None, *, before_seconds: float, jitter_seconds: float
) -> float | None:
    """Unix seconds; 0 for at once; None for not by itself.

    A token is renewed `before_seconds` (and some jitter) before its own claim ends, but at the earliest half-way
    through its life. One that claims to have ended as it was issued (our clock may be wrong) is used until it is
    rejected, and not renewed before.
    """
    has_failed = sign_in.state in (SignInState.FAILED, SignInState.REFUSED)
    if credential is None:
        return sign_in.retry_at if has_failed else 0.0
    if credential.expires_at is None or (has_failed and sign_in.retry_at is None):
        return None
    life_seconds = credential.expires_at - sign_in.succeeded_at
    if life_seconds <= 0:
        return None
    due_at = credential.expires_at - min(before_seconds + jitter_seconds, life_seconds / 2)
    return max(due_at, sign_in.retry_at or 0.0) if has_failed else due_at


class Schedule:
    """Calls `due(key)` when a key's time has come, once for each time it was planned."""

    def __init__(self, clock: Clock, tasks: Tasks, due: Callable[[str], None]) -> None:
        self._clock = clock
        self._due = due
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._alarm = Alarm(clock, tasks, self._ring, name="schedule")

    def plan(self, key: str, at: float | None) -> None:
        """At this Unix time and no other; None for never."""
        if at is None:
            self._times.pop(key, None)
            return
        self._times[key] = at
        heapq.heappush(self._heap, (at, key))
        self._set_alarm()

    def clear(self) -> None:
        self._times.clear()
        self._heap.clear()

    def _set_alarm(self) -> None:
        if self._heap:
            ahead_seconds = self._heap[0][0] - self._clock.now()
            self._alarm.at(self._clock.monotonic() + min(ahead_seconds, LOOK_AGAIN_SECONDS))

    def _ring(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._times.get(key) == at:  # else it was planned anew
                del self._times[key]
                self._due(key)
        self._set_alarm()
