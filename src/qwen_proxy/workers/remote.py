"""The account pool as a worker sees it: questions to the supervisor, which keeps it."""

import asyncio
import itertools
from collections.abc import Callable, Set
from types import TracebackType

from qwen_proxy.accounts.leasing import PoolStatus
from qwen_proxy.accounts.model import Credential, Feature, Outcome
from qwen_proxy.ground.errors import ShuttingDown
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.workers.messages import (
    FromSupervisor,
    FromWorker,
    LeaseGranted,
    LeaseNotWanted,
    LeaseOver,
    LeaseWanted,
    Refused,
    RenewalWanted,
    Renewed,
    Retire,
    Survey,
    Surveyed,
    SurveyWanted,
)
from qwen_proxy.workers.problems import rebuilt

Answer = LeaseGranted | Renewed | Surveyed


class RemoteLease:
    """Fits `accounts.leasing.Lease`. What is reported is sent as the lease ends: one message for both."""

    __slots__ = ("credential", "number", "outcome")

    def __init__(self, number: int, credential: Credential) -> None:
        self.number = number
        self.credential = credential
        self.outcome: Outcome | None = None

    def report(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome


class _RemoteUse:
    __slots__ = ("_lease", "_leasing", "_wanted")

    def __init__(self, leasing: "RemoteLeasing", wanted: LeaseWanted) -> None:
        self._leasing = leasing
        self._wanted = wanted
        self._lease: RemoteLease  # once entered

    async def __aenter__(self) -> RemoteLease:
        self._lease = lease = await self._leasing.take(self._wanted)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leasing.give_back(self._lease)


class RemoteLeasing:
    """Fits `accounts.leasing.Leasing` and `Overview`. One message and one future for a lease, one message to end it."""

    def __init__(self, send: Callable[[FromWorker], None], clock: Clock, retire: Callable[[float], None]) -> None:
        self._send = send
        self._clock = clock
        self._retire = retire
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._is_alone = False

    def lease(
        self,
        feature: Feature,
        *,
        deadline: float,
        avoid_accounts: Set[str] = frozenset(),
        avoid_exits: Set[str] = frozenset(),
        only_account: str | None = None,
    ) -> _RemoteUse:
        wanted = LeaseWanted(
            next(self._numbers),
            feature,
            deadline - self._clock.monotonic(),
            tuple(avoid_accounts),
            tuple(avoid_exits),
            only_account,
        )
        return _RemoteUse(self, wanted)

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        number = next(self._numbers)
        await self._ask(RenewalWanted(number, stale, deadline - self._clock.monotonic()), number)

    async def survey(self) -> Survey:
        """What the supervisor knows of all processes. Raises ShuttingDown when it is gone."""
        number = next(self._numbers)
        answer = await self._ask(SurveyWanted(number), number)
        assert isinstance(answer, Surveyed)
        return answer.survey

    async def status(self) -> PoolStatus:
        return (await self.survey()).pool

    async def take(self, wanted: LeaseWanted) -> RemoteLease:
        answer = await self._ask(wanted, wanted.number)
        assert isinstance(answer, LeaseGranted)
        return RemoteLease(wanted.number, answer.credential)

    def give_back(self, lease: RemoteLease) -> None:
        self._send(LeaseOver(lease.number, lease.outcome))

    def received(self, message: FromSupervisor) -> None:
        match message:
            case Retire():
                self._retire(message.drain_seconds)
            case Refused():
                if (future := self._asked.get(message.number)) is not None and not future.done():
                    future.set_exception(rebuilt(message))
            case LeaseGranted() | Renewed() | Surveyed():
                # One that nobody waits for any more needs no answer: LeaseNotWanted is on its way.
                if (future := self._asked.get(message.number)) is not None and not future.done():
                    future.set_result(message)

    def lost(self) -> None:
        """The supervisor is gone: nothing more is answered."""
        self._is_alone = True
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ShuttingDown())

    async def _ask(self, question: LeaseWanted | RenewalWanted | SurveyWanted, number: int) -> Answer:
        if self._is_alone:
            raise ShuttingDown
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send(question)
        try:
            return await future
        except asyncio.CancelledError:
            self._send(LeaseNotWanted(number))
            if future.done() and not future.cancelled():
                future.exception()  # fetched, so that nobody warns of it
            raise
        finally:
            del self._asked[number]
