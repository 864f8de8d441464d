"""Numbers that are spent within a window of time, such as a key's requests a minute, exactly over all processes.

The store counts what was *drawn*. This process draws a little more than it needs, spends that in memory, and corrects
later, so that few requests cost a question of their own:

| when | what |
|---|---|
| enough is in hand | it is spent; the store is not asked |
| not enough is | one draw for all who wait, for all their allowances; a little more, the less the less is left |
| too little is left | refused, at once and without a question for the next moment |
| less was spent than reserved | the rest is in hand again |
| more was | what is in hand pays for it, else the store is told: each second, and before the next draw |
| each second | what is in hand goes back, unless this process is alone and in the middle of spending |
| a process is killed | what it had in hand and reserved counts as spent until the window ends |

What the store may have counted without our knowing (its answer was lost) stays counted: limits are never exceeded by
what is reserved. Only what a request spends beyond its reservation can exceed one.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership
from qwen_proxy.state.store import Beat, Charge, Draw, Drawn, Hold, Store
from qwen_proxy.state.windows import Period, window_at

log = logging.getLogger(__name__)

EXTRA_PART: Final = 16  # of what is left, at most so small a part is drawn beyond what is needed
REFUSED_SECONDS: Final = 0.25  # for so long a refusal holds without a question
MOST_WINDOWS: Final = 2  # that a request tries when the store's clock says that a window is over
LAST_WORDS_SECONDS: Final = 2.0


class Allowance(Struct, frozen=True):
    """name: without the window. limit: what may be spent in one."""

    name: str
    period: Period
    limit: int


class Want(Struct, frozen=True):
    """amount: at most the allowance's limit, else it is always refused."""

    allowance: Allowance
    amount: int


class Standing(Struct, frozen=True):
    """Of an allowance's window now, as far as this process knows: others may have drawn since.

    ends_at: Unix seconds.
    """

    limit: int
    remaining: int
    ends_at: float


class AllowanceSpent(Exception):
    """Of this allowance too little is left."""

    def __init__(self, want: Want, standing: Standing) -> None:
        super().__init__(f"{want.allowance.name}: {standing.remaining} left, {want.amount} wanted")
        self.want = want
        self.standing = standing


class Bucket:
    """An allowance's window in this process. in_hand: drawn and not spent. owed: to be told to the store, negative for
    what goes back. used: what all processes have drawn, as the store last said. spent: since the last beat."""

    __slots__ = (
        "ends_at",
        "in_hand",
        "is_over",
        "limit",
        "name",
        "owed",
        "refused_until",
        "spent",
        "spent_before",
        "used",
        "waiters",
    )

    def __init__(self, name: str, ends_at: float, limit: int, spent_before: int) -> None:
        self.name: Final = name
        self.ends_at: Final = ends_at
        self.limit = limit
        self.in_hand = 0
        self.owed = 0
        self.used: int | None = None
        self.spent = 0
        self.spent_before = spent_before
        self.waiters = 0
        self.refused_until = 0.0
        self.is_over = False  # by the store's clock, which counts

    @property
    def left(self) -> int:
        """In the store."""
        return self.limit - (self.used or 0) - self.owed

    def standing(self) -> Standing:
        return Standing(self.limit, max(0, self.left + self.in_hand), self.ends_at)

    def take(self, amount: int) -> None:
        self.in_hand -= amount
        self.spent += amount

    def change_limit(self, limit: int) -> None:
        """What was drawn under another limit goes back."""
        self.limit = limit
        self.owed -= self.in_hand
        self.in_hand = 0
        self.refused_until = 0.0


class Share(Struct):
    """What one request has reserved of one allowance."""

    bucket: Bucket
    amount: int


class _Waiter:
    def __init__(self, wants: Sequence[Want]) -> None:
        self.wants = wants
        self.buckets: list[Bucket] = []
        self.windows = 0
        self.served: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Allowances:
    """Fits `state.membership.Holder`, and has to be added to the membership. Enter it before use."""

    def __init__(self, store: Store, membership: Membership, clock: Clock) -> None:
        self._store = store
        self._membership = membership
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._waiting: list[_Waiter] = []
        self._is_drawing = False
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nobody may wait any more; what is in hand goes back."""
        await self._tasks.settle(LAST_WORDS_SECONDS)
        await self._tasks.__aexit__(kind, error, trace)
        await self._settle_accounts(self._buckets.values(), give_all=True)

    async def reserve(self, wants: Sequence[Want]) -> list[Share]:
        """All of them or, with AllowanceSpent, none. Raises StoreUnavailable."""
        self._membership.require()
        buckets = [self._bucket(want.allowance) for want in wants]
        if any(bucket.waiters for bucket in buckets) or not _covered(wants, buckets):
            self._refuse_what_was_refused(wants, buckets)
            buckets = await self._wait(wants, buckets)
        else:
            _take(wants, buckets)
        return [Share(bucket, want.amount) for bucket, want in zip(buckets, wants, strict=True)]

    def correct(self, share: Share, spent: int) -> None:
        """So much was spent in fact. Of a window that has ended nothing is corrected any more."""
        bucket, more = share.bucket, spent - share.amount
        share.amount = spent
        paid = min(more, bucket.in_hand)  # of a negative amount, all: it goes into the hand
        bucket.in_hand -= paid
        bucket.owed += more - paid

    def standing(self, allowance: Allowance) -> Standing:
        return self._bucket(allowance).standing()

    # --- the membership's side

    @property
    def is_hungry(self) -> bool:
        return False  # what others have in hand comes back each second by itself

    def held(self) -> Iterable[Hold]:
        return ()  # what is drawn ends with its window, not with a process

    def forget_idle(self) -> None:
        pass

    async def after_beat(self, beat: Beat) -> None:
        now = self._clock.now()
        for key, bucket in list(self._buckets.items()):
            if now >= bucket.ends_at and not bucket.waiters:
                del self._buckets[key]
        await self._settle_accounts(self._buckets.values(), give_all=beat.processes > 1)
        for bucket in self._buckets.values():
            bucket.spent_before, bucket.spent = bucket.spent, 0

    # --- inside

    def _bucket(self, allowance: Allowance) -> Bucket:
        """Of the window now."""
        bucket = self._buckets.get(allowance.name)
        now = self._clock.now()
        if bucket is None or bucket.is_over or now >= bucket.ends_at:
            if bucket is not None and bucket.is_over:
                now = max(now, bucket.ends_at)
            start, end = window_at(allowance.period, now)
            pace = 0 if bucket is None else max(bucket.spent, bucket.spent_before)
            bucket = Bucket(f"{allowance.name}:{start}", end, allowance.limit, pace)
            self._buckets[allowance.name] = bucket
        elif bucket.limit != allowance.limit:
            bucket.change_limit(allowance.limit)
        return bucket

    def _refuse_what_was_refused(self, wants: Sequence[Want], buckets: Sequence[Bucket]) -> None:
        """A moment ago there was too little; a flood of requests beyond a limit is no flood of questions."""
        now = self._clock.monotonic()
        for want, bucket in zip(wants, buckets, strict=True):
            if now < bucket.refused_until and want.amount - bucket.in_hand > bucket.left:
                raise AllowanceSpent(want, bucket.standing())

    async def _wait(self, wants: Sequence[Want], buckets: list[Bucket]) -> list[Bucket]:
        waiter = _Waiter(wants)
        self._queue(waiter, buckets)
        if not self._is_drawing:
            self._is_drawing = True
            self._tasks.spawn(self._draw_for_all(), name="draw allowances")
        try:
            await waiter.served
        except asyncio.CancelledError:
            if waiter.served.done() and not waiter.served.cancelled() and waiter.served.exception() is None:
                for bucket, want in zip(waiter.buckets, wants, strict=True):
                    bucket.in_hand += want.amount
            raise
        return waiter.buckets

    def _queue(self, waiter: _Waiter, buckets: list[Bucket]) -> None:
        waiter.buckets = buckets
        for bucket in buckets:
            bucket.waiters += 1
        self._waiting.append(waiter)

    async def _draw_for_all(self) -> None:
        """In rounds: in each, the first who waits for an allowance is served or refused, and most others with him."""
        waiting: list[_Waiter] = []
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                failure: StoreUnavailable | None = None
                try:
                    await self._draw([waiter for waiter in waiting if not waiter.served.done()])
                except StoreUnavailable as error:
                    failure = error
                for waiter in waiting:
                    for bucket in waiter.buckets:
                        bucket.waiters -= 1
                for waiter in waiting:
                    if failure is not None:
                        _fail(waiter, failure)
                    else:
                        self._serve(waiter)
        finally:
            self._is_drawing = False
            for waiter in (*waiting, *self._waiting):
                waiter.served.cancel()  # of one that was served, no effect

    async def _draw(self, waiting: Sequence[_Waiter]) -> None:
        demands: dict[str, tuple[Bucket, list[int]]] = {}
        for waiter in waiting:
            for bucket, want in zip(waiter.buckets, waiter.wants, strict=True):
                demands.setdefault(bucket.name, (bucket, []))[1].append(want.amount)
        buckets = [bucket for bucket, _ in demands.values()]
        if any(bucket.owed for bucket in buckets):
            await self._settle_accounts(buckets, give_all=False, raises=True)
        draws: list[tuple[Bucket, Draw]] = []
        for bucket, amounts in demands.values():
            if (draw := _draw_of(bucket, amounts)) is not None:
                draws.append((bucket, draw))
        if draws:
            drawn = await self._store.draw([draw for _, draw in draws])
            until = self._clock.monotonic() + REFUSED_SECONDS
            for (bucket, draw), answer in zip(draws, drawn, strict=True):
                _enter(bucket, draw, answer, until)

    def _serve(self, waiter: _Waiter) -> None:
        if waiter.served.done():
            return
        if any(bucket.is_over for bucket in waiter.buckets):
            waiter.windows += 1
            if waiter.windows == MOST_WINDOWS:
                _fail(waiter, StoreUnavailable("its clock is far ahead of this machine's"))
            else:
                self._queue(waiter, [self._bucket(want.allowance) for want in waiter.wants])
            return
        if _covered(waiter.wants, waiter.buckets):
            _take(waiter.wants, waiter.buckets)
            waiter.served.set_result(None)
            return
        for want, bucket in zip(waiter.wants, waiter.buckets, strict=True):
            if want.amount - bucket.in_hand > bucket.left:
                _fail(waiter, AllowanceSpent(want, bucket.standing()))
                return
        self._queue(waiter, waiter.buckets)

    async def _settle_accounts(self, buckets: Iterable[Bucket], *, give_all: bool, raises: bool = False) -> None:
        """Tell the store what was spent beyond what was drawn, and give back what is in hand: all of it, or where
        nothing is being spent."""
        charges: list[Charge] = []
        told: list[Bucket] = []
        for bucket in buckets:
            if bucket.in_hand and not bucket.waiters and (give_all or not (bucket.spent or bucket.spent_before)):
                bucket.owed -= bucket.in_hand
                bucket.in_hand = 0
            if bucket.owed:
                charges.append(Charge(name=bucket.name, ends_at=bucket.ends_at, amount=bucket.owed))
                told.append(bucket)
                bucket.used = (bucket.used or 0) + bucket.owed
                bucket.owed = 0
        if not charges:
            return
        is_told = False
        try:
            await self._store.charge(charges)
            is_told = True
        except StoreUnavailable as error:
            if raises:
                raise
            log.warning("allowances not settled", extra={"reason": str(error)})
        finally:
            if not is_told:
                # It may have been done or not. To tell again what was spent can only count it twice; to give back
                # again what was not spent would let it be spent twice.
                for bucket, charge in zip(told, charges, strict=True):
                    bucket.used = (bucket.used or 0) - charge.amount
                    bucket.owed += max(0, charge.amount)


def _covered(wants: Sequence[Want], buckets: Sequence[Bucket]) -> bool:
    return all(bucket.in_hand >= want.amount for want, bucket in zip(wants, buckets, strict=True))


def _take(wants: Sequence[Want], buckets: Sequence[Bucket]) -> None:
    for want, bucket in zip(wants, buckets, strict=True):
        bucket.take(want.amount)


def _fail(waiter: _Waiter, error: Exception) -> None:
    if not waiter.served.done():
        waiter.served.set_exception(error)


def _draw_of(bucket: Bucket, amounts: Sequence[int]) -> Draw | None:
    """What to ask of the store for those who wait, in order; None when what is in hand does for all of them.

    All that is missing where there is plenty; else what the first one misses, and the rest only out of what is free.
    """
    missing = sum(amounts) - bucket.in_hand
    if missing <= 0:
        return None
    need = missing
    if bucket.used is not None and missing * 2 > bucket.left:
        need = -bucket.in_hand
        for amount in amounts:
            need += amount
            if need > 0:
                break
    extra = missing - need
    if bucket.used is not None:
        extra += max(0, min(bucket.left // EXTRA_PART, max(bucket.spent, bucket.spent_before)))
    return Draw(name=bucket.name, ends_at=bucket.ends_at, limit=bucket.limit, need=need, extra=extra)


def _enter(bucket: Bucket, draw: Draw, drawn: Drawn, refused_until: float) -> None:
    bucket.used = drawn.used
    bucket.in_hand += drawn.granted
    if not drawn.granted:
        if draw.limit - drawn.used >= draw.need:
            bucket.is_over = True
        else:
            bucket.refused_until = refused_until
