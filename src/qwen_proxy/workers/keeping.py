"""The supervisor's answers to one worker: its leases of the one pool, and what it asks of the whole."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from qwen_proxy.accounts.model import Credential, Outcome
from qwen_proxy.accounts.waiting import Want
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.workers.messages import (
    DriftCount,
    DriftSeen,
    FromSupervisor,
    FromWorker,
    LeaseGranted,
    LeaseNotWanted,
    LeaseOver,
    LeaseWanted,
    Ready,
    RenewalWanted,
    Renewed,
    Survey,
    Surveyed,
    SurveyWanted,
)
from qwen_proxy.workers.problems import told


class KeptLease(Protocol):
    @property
    def credential(self) -> Credential: ...
    def report(self, outcome: Outcome) -> None: ...
    def end(self) -> None: ...


class KeptPool(Protocol):
    """What `accounts.pool.AccountPool` gives the supervisor."""

    def try_take(self, want: Want) -> KeptLease | None: ...
    async def take(self, want: Want) -> KeptLease: ...
    async def renew(self, stale: Credential, *, deadline: float) -> None: ...


class Desk:
    """One worker's. `close()` when the worker is gone: all it held goes back at once, and who waited stops waiting."""

    def __init__(
        self,
        pool: KeptPool,
        clock: Clock,
        tasks: Tasks,
        send: Callable[[FromSupervisor], None],
        ready: Callable[[], None],
        survey: Callable[[], Awaitable[Survey]],
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._tasks = tasks
        self._send = send
        self._ready = ready
        self._survey = survey
        self._leases: dict[int, KeptLease] = {}
        self._waiting: dict[int, Callable[[], object]] = {}
        self._is_closed = False
        self.drift: Sequence[DriftCount] = ()

    @property
    def leases(self) -> int:
        return len(self._leases)

    def received(self, message: FromWorker) -> None:
        match message:
            case LeaseWanted():
                self._lease(message)
            case LeaseOver():
                self._over(message.number, message.outcome)
            case LeaseNotWanted():
                self._not_wanted(message.number)
            case RenewalWanted():
                self._answer(message.number, lambda: self._renew(message))
            case SurveyWanted():
                self._answer(message.number, lambda: self._tell(message))
            case DriftSeen():
                self.drift = message.counts
            case Ready():
                self._ready()

    def close(self) -> None:
        self._is_closed = True
        for cancel in list(self._waiting.values()):
            cancel()
        for number in list(self._leases):
            self._over(number, None)

    def _lease(self, message: LeaseWanted) -> None:
        want = Want(
            feature=message.feature,
            deadline=self._clock.monotonic() + message.wait_seconds,
            avoid_accounts=frozenset(message.avoid_accounts),
            avoid_exits=frozenset(message.avoid_exits),
            only_account=message.only_account,
        )
        lease = self._pool.try_take(want)
        if lease is not None:
            self._granted(message.number, lease)
        else:
            self._answer(message.number, lambda: self._wait(message.number, want))

    async def _wait(self, number: int, want: Want) -> None:
        self._granted(number, await self._pool.take(want))

    def _granted(self, number: int, lease: KeptLease) -> None:
        if self._is_closed:
            lease.end()
            return
        self._leases[number] = lease
        self._send(LeaseGranted(number, lease.credential))

    def _over(self, number: int, outcome: Outcome | None) -> None:
        lease = self._leases.pop(number, None)
        if lease is not None:
            if outcome is not None:
                lease.report(outcome)
            lease.end()

    def _not_wanted(self, number: int) -> None:
        if (cancel := self._waiting.get(number)) is not None:
            cancel()
        self._over(number, None)

    async def _renew(self, message: RenewalWanted) -> None:
        await self._pool.renew(message.stale, deadline=self._clock.monotonic() + message.wait_seconds)
        self._send(Renewed(message.number))

    async def _tell(self, message: SurveyWanted) -> None:
        self._send(Surveyed(message.number, await self._survey()))

    def _answer(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        task = self._tasks.spawn(self._guarded(number, work), name="answer to a worker")
        self._waiting[number] = task.cancel
        task.add_done_callback(lambda _: self._waiting.pop(number, None))

    async def _guarded(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ProxyError as error:
            self._send(told(number, error))
