"""This process among the others of an installation: its heartbeat, what it holds, and the roles it has.

| state | from | granting |
|---|---|---|
| valid | a join or beat that was answered, for PROCESS_SECONDS from when it was asked, less a margin | yes |
| lapsed | no beat was answered for that long: for the others this process is gone, or will be any moment | no |

Coming back from a lapse, what is in use is taken again even beyond the capacity (it runs, whatever the count says);
what was held idle is given up.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import PROCESS_SECONDS, Beat, Hold, ProcessRow, SlotsTaken, SlotsWanted, Store

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
MARGIN_SECONDS: Final = 0.5


class Holder(Protocol):
    """Who holds slots in this process."""

    @property
    def is_hungry(self) -> bool:
        """Whether it wants slots and finds none."""
        ...

    def held(self) -> Iterable[Hold]:
        """Everything, in use or idle."""
        ...

    def forget_idle(self) -> None:
        """What is not in use is not ours any more."""
        ...

    async def after_beat(self, beat: Beat) -> None:
        """Each second: the time to give back what is idle. May raise StoreUnavailable."""
        ...


class Role:
    """What one process does for all, such as signing accounts in. `began` and `ended` are called by turns."""

    def __init__(self, name: str, began: Callable[[], None], ended: Callable[[], None]) -> None:
        self.name: Final = name
        self.is_held = False
        self._began = began
        self._ended = ended

    def hold(self, is_held: bool) -> None:
        if is_held != self.is_held:
            self.is_held = is_held
            log.info("role taken" if is_held else "role given up", extra={"role": self.name})
            (self._began if is_held else self._ended)()


class ProcessStatus(Struct, frozen=True, kw_only=True):
    """What a process tells the others of itself. in_use: replies at a time, by account."""

    label: str = ""
    in_use: dict[str, int] = {}
    waiting: int = 0
    roles: tuple[str, ...] = ()


class Membership:
    """`id` is unique to this process and never used again. Enter it before use; leaving it frees what it holds.

    takes_roles False: of a process that is there for a moment only, and leaves what is done for all to others.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        id: str,
        host: str = "",
        pid: int = 0,
        takes_roles: bool = True,
    ) -> None:
        self.id: Final = id
        self.processes = 1
        self._store = store
        self._clock = clock
        self._host = host
        self._pid = pid
        self._takes_roles = takes_roles
        self._status: Callable[[], ProcessStatus] = ProcessStatus
        self._holders: list[Holder] = []
        self._roles: list[Role] = []
        self._valid_until = 0.0
        self._trading = asyncio.Lock()  # a join tells the store all that is held: no trade may be under way meanwhile
        self._is_in_doubt = False  # the store may count more as ours than we do: an answer was lost
        self._tasks = Tasks()
        self._started_at = clock.now()

    def add(self, holder: Holder) -> None:
        self._holders.append(holder)

    def describe(self, status: Callable[[], ProcessStatus]) -> None:
        """What the others are told of this process with each beat."""
        self._status = status

    def compete(self, role: Role) -> None:
        """Take this role whenever no other process has it."""
        self._roles.append(role)

    @property
    def is_valid(self) -> bool:
        return self._clock.monotonic() < self._valid_until

    def require(self) -> None:
        """Before anything is granted from what this process holds. Raises StoreUnavailable in a lapse."""
        if not self._clock.monotonic() < self._valid_until:
            raise StoreUnavailable("this process has lost touch with the store that limits are kept in")

    async def __aenter__(self) -> "Membership":
        await self._join()
        await self._take_roles()
        self._tasks.spawn(self._run(), name="heartbeat")
        self._tasks.spawn(self._give_up_roles_in_time(), name="roles in a lapse")
        return self

    async def stop(self) -> None:
        """Beat no more, and say nothing of it."""
        await self._tasks.__aexit__(None, None, None)

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()
        for role in self._roles:
            role.hold(False)
        self._valid_until = 0.0
        try:
            await self._store.leave(self.id)
        except StoreUnavailable:
            log.warning("left without a word: the store does not answer")

    async def beat(self) -> Beat:
        """One heartbeat, now. Raises StoreUnavailable."""
        asked_at = self._clock.monotonic()
        hungry = any(holder.is_hungry for holder in self._holders)
        beat = await self._store.beat(self.id, is_hungry=hungry, status=self._packed_status())
        if not beat.is_known:
            log.warning("this process counted as gone; it begins anew")
            self._lapse()
            await self._join()
        elif self._is_in_doubt:
            await self._join()
        else:
            self._live_from(asked_at)
        self.processes = max(1, beat.processes)
        for holder in self._holders:
            await holder.after_beat(beat)
        await self._take_roles()
        return beat

    def doubt(self) -> None:
        """The store does not know what this process holds: the next beat tells it all."""
        self._is_in_doubt = True

    async def take(self, wanted: SlotsWanted) -> SlotsTaken:
        """Slots for this process. Do not cancel it: run it in a task of its own. Raises StoreUnavailable."""
        async with self._trading:
            self.require()
            try:
                return await self._store.take(self.id, wanted)
            except (StoreUnavailable, asyncio.CancelledError):
                self._is_in_doubt = True
                raise

    async def give(self, holds: Sequence[Hold]) -> None:
        """Slots back, which the holder counts as its own no more. A store that can't be reached learns it later."""
        async with self._trading:
            try:
                await self._store.give(self.id, holds)
            except (StoreUnavailable, asyncio.CancelledError) as error:
                self._is_in_doubt = True
                if not isinstance(error, StoreUnavailable):
                    raise

    async def _join(self) -> None:
        async with self._trading:
            holds = [hold for holder in self._holders for hold in holder.held()]
            holds += [Hold(_slot(role), 1) for role in self._roles if role.is_held]
            asked_at = self._clock.monotonic()
            row = ProcessRow(
                id=self.id,
                host=self._host,
                pid=self._pid,
                started_at=self._started_at,
                beat_at=0.0,
                is_hungry=False,
                status=self._packed_status(),
            )
            self._is_in_doubt = False  # unless something is given up while the store is being told
            try:
                await self._store.join(row, holds)
            except BaseException:
                self._is_in_doubt = True
                raise
            self._live_from(asked_at)

    def _live_from(self, asked_at: float) -> None:
        self._valid_until = asked_at + PROCESS_SECONDS - MARGIN_SECONDS

    def _lapse(self) -> None:
        self._give_up_roles()
        for holder in self._holders:
            holder.forget_idle()

    async def _take_roles(self) -> None:
        for role in self._roles if self._takes_roles else ():
            if not role.is_held and self.is_valid:
                taken = await self.take(SlotsWanted(names=(_slot(role),), capacity=1, need=1))
                if taken.holds and self.is_valid:
                    role.hold(True)
                elif taken.holds:
                    self._is_in_doubt = True  # too late to be sure of it

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(BEAT_SECONDS if self.is_valid else RETRY_SECONDS)
            try:
                await self.beat()
            except StoreUnavailable as error:
                log.warning("no heartbeat", extra={"reason": str(error)})
                await self._clock.sleep(RETRY_SECONDS)

    async def _give_up_roles_in_time(self) -> None:
        """A store that hangs must not leave a role with two: another process takes it once we count as gone."""
        while True:
            await self._clock.sleep(max(MARGIN_SECONDS / 2, self._valid_until - self._clock.monotonic()))
            if not self.is_valid:
                self._give_up_roles()

    def _give_up_roles(self) -> None:
        for role in self._roles:
            if role.is_held:
                self._is_in_doubt = True  # there it may still be ours
                role.hold(False)

    def _packed_status(self) -> bytes:
        held = tuple(role.name for role in self._roles if role.is_held)
        return msgspec.msgpack.encode(msgspec.structs.replace(self._status(), roles=held))


def _slot(role: Role) -> str:
    return f"role:{role.name}"


def statuses(rows: Sequence[ProcessRow]) -> list[tuple[ProcessRow, ProcessStatus]]:
    """What each process tells of itself; of one of another version, nothing."""
    found: list[tuple[ProcessRow, ProcessStatus]] = []
    for row in rows:
        try:
            found.append((row, msgspec.msgpack.decode(row.status, type=ProcessStatus)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            found.append((row, ProcessStatus()))
    return found
