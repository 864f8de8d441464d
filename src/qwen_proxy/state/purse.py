"""Places at a time, such as a key's requests under way, borrowed from those there are over all processes.

| when | what |
|---|---|
| a borrowed place is idle | it is taken; the store is not asked |
| none is | one question for all who want places of this name; a few more out of plenty, while the pace is high |
| not enough are free | who can't be served is refused, at once and without a question for the next moment |
| each second | idle places go back, unless this process is alone and uses this name |
| the process is killed | its places are free once its heartbeat is missed |
"""

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.store import Beat, Hold, SlotsWanted

EXTRA_PART: Final = 8  # of a limit, at most so small a part is borrowed beyond what is needed
FULL_SECONDS: Final = 0.1  # for so long a refusal holds without a question
LAST_WORDS_SECONDS: Final = 2.0


class NoPlace(Exception):
    """All places of this name are taken."""


class _Places:
    """Of one name. held: borrowed. taken: since the last beat."""

    __slots__ = ("full_until", "held", "in_use", "is_asking", "limit", "taken", "waiting")

    def __init__(self) -> None:
        self.limit = 0
        self.held = 0
        self.in_use = 0
        self.taken = 0
        self.full_until = 0.0
        self.is_asking = False
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def idle(self) -> int:
        return min(self.held, self.limit) - self.in_use

    def take(self) -> None:
        self.in_use += 1
        self.taken += 1


class Purse:
    """Fits `state.membership.Holder`, and has to be added to the membership. Enter it before use."""

    def __init__(self, membership: Membership, clock: Clock) -> None:
        self._membership = membership
        self._clock = clock
        self._places: dict[str, _Places] = {}
        self._lapses = 0
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nobody may wait any more. What is held is free once the membership is left."""
        await self._tasks.settle(LAST_WORDS_SECONDS)
        await self._tasks.__aexit__(kind, error, trace)

    async def take(self, name: str, limit: int) -> None:
        """A place, until `give_back`; `limit`: how many there are. Raises NoPlace, StoreUnavailable."""
        self._membership.require()
        places = self._places.get(name)
        if places is None:
            places = self._places[name] = _Places()
        places.limit = limit
        if places.idle > 0 and not places.waiting:
            places.take()
        elif places.in_use >= limit or self._clock.monotonic() < places.full_until:
            raise NoPlace
        else:
            await self._wait(name, places)

    def give_back(self, name: str) -> None:
        places = self._places[name]
        places.in_use -= 1
        if places.held > places.limit:  # it was lowered meanwhile
            self._give(name, places, 1)

    def in_use(self, name: str) -> int:
        """By this process."""
        places = self._places.get(name)
        return 0 if places is None else places.in_use

    # --- the membership's side

    @property
    def is_hungry(self) -> bool:
        return False  # what others hold idle comes back each second by itself

    def held(self) -> Iterator[Hold]:
        for name, places in self._places.items():
            if places.held:
                yield Hold(name, places.held)

    def forget_idle(self) -> None:
        self._lapses += 1
        for places in self._places.values():
            places.held = places.in_use

    async def after_beat(self, beat: Beat) -> None:
        back: list[Hold] = []
        for name, places in list(self._places.items()):
            idle = places.held - places.in_use
            if idle > 0 and not places.is_asking and (beat.processes > 1 or not places.taken):
                places.held -= idle
                back.append(Hold(name, idle))
            if not (places.held or places.is_asking or places.taken):
                del self._places[name]
            places.taken = 0
        if back:
            await self._membership.give(back)

    # --- inside

    async def _wait(self, name: str, places: _Places) -> None:
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        places.waiting.append(served)
        if not places.is_asking:
            places.is_asking = True
            self._tasks.spawn(self._ask(name, places), name="borrow places")
        try:
            await served
        except asyncio.CancelledError:
            if served.done() and not served.cancelled() and served.exception() is None:
                self.give_back(name)
            raise

    async def _ask(self, name: str, places: _Places) -> None:
        """One question for all who wait; those who come meanwhile have the next one."""
        try:
            while places.waiting:
                count = len(places.waiting)
                failure: StoreUnavailable | None = None
                try:
                    await self._borrow(name, places, sum(not each.done() for each in places.waiting))
                    self._membership.require()  # the answer may have come too late
                except StoreUnavailable as error:
                    failure = error
                asked, places.waiting = places.waiting[:count], places.waiting[count:]
                for waiting in asked:
                    self._serve(places, waiting, failure)
        finally:
            places.is_asking = False
            for waiting in places.waiting:
                waiting.cancel()

    async def _borrow(self, name: str, places: _Places, count: int) -> None:
        need = count - places.idle
        if need > 0:
            extra = min(places.taken, places.limit // EXTRA_PART)
            lapses = self._lapses
            wanted = SlotsWanted(names=(name,), capacity=places.limit, need=need, extra=extra)
            taken = await self._membership.take(wanted)
            if lapses == self._lapses:  # else what was granted is lost: it is not told when the membership joins anew
                places.held += sum(hold.count for hold in taken.holds)

    def _serve(self, places: _Places, waiting: asyncio.Future[None], failure: StoreUnavailable | None) -> None:
        if waiting.done():
            return
        if failure is not None:
            waiting.set_exception(failure)
        elif places.idle > 0:
            places.take()
            waiting.set_result(None)
        else:
            places.full_until = self._clock.monotonic() + FULL_SECONDS
            waiting.set_exception(NoPlace())

    def _give(self, name: str, places: _Places, count: int) -> None:
        places.held -= count
        self._tasks.spawn(self._membership.give([Hold(name, count)]), name="give back places")
