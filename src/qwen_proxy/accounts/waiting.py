"""Who waits for an account: first come, first served among those with the same wish."""

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from typing import Generic, TypeVar

from msgspec import Struct

from qwen_proxy.accounts.model import Feature


class Want(Struct, frozen=True, kw_only=True):
    """What a request asks of the pool; see `leasing.Leasing.lease`. `deadline` is monotonic seconds."""

    feature: Feature
    deadline: float
    avoid_accounts: Set[str] = frozenset()
    avoid_exits: Set[str] = frozenset()
    only_account: str | None = None
    session: str = ""

    @property
    def wish(self) -> "Wish":
        return (self.feature, self.only_account)


T = TypeVar("T")
Wish = tuple[Feature, str | None]


class Waiter(Generic[T]):
    __slots__ = ("future", "number", "want", "wish")

    def __init__(self, want: Want, number: int) -> None:
        self.want = want
        self.wish = want.wish
        self.number = number
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class WaitingLine(Generic[T]):
    """A queue per wish: a free account looks at the heads of at most two per feature, however many wait."""

    def __init__(self) -> None:
        self._queues: dict[Wish, OrderedDict[int, Waiter[T]]] = {}
        self._deadlines: list[tuple[float, int, Wish]] = []
        self._numbers = itertools.count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def join(self, want: Want) -> Waiter[T]:
        waiter: Waiter[T] = Waiter(want, next(self._numbers))
        self._queues.setdefault(waiter.wish, OrderedDict())[waiter.number] = waiter
        self._length += 1
        if len(self._deadlines) > 2 * self._length + 64:  # those who were served leave theirs behind
            self._deadlines = [each for each in self._deadlines if each[1] in self._queues.get(each[2], ())]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (want.deadline, waiter.number, waiter.wish))
        return waiter

    async def wait(self, waiter: Waiter[T], undo: Callable[[T], object]) -> T:
        """What the waiter is served with. A task cancelled as it was served leaves it to `undo`."""
        future = waiter.future
        try:
            return await future
        except asyncio.CancelledError:
            self.leave(waiter)
            if future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())
            raise

    def leave(self, waiter: Waiter[T]) -> None:
        """Nothing happens when it has left already."""
        queue = self._queues.get(waiter.wish)
        if queue is not None and queue.pop(waiter.number, None) is not None:
            self._length -= 1
            if not queue:
                del self._queues[waiter.wish]

    def heads_for(self, account_id: str) -> list[Waiter[T]]:
        """The first of each wish that this account could serve, longest waiting first."""
        heads = [
            head
            for wish in ((feature, only) for feature in Feature for only in (None, account_id))
            if (head := self._head(wish)) is not None
        ]
        return sorted(heads, key=lambda waiter: waiter.number)

    def heads(self) -> Iterator[Waiter[T]]:
        """The first of each wish, longest waiting first. The line may change while they are gone through."""
        found = [head for wish in list(self._queues) if (head := self._head(wish)) is not None]
        return iter(sorted(found, key=lambda waiter: waiter.number))

    def _head(self, wish: Wish) -> Waiter[T] | None:
        while (queue := self._queues.get(wish)) is not None:
            waiter = next(iter(queue.values()))
            if not waiter.future.done():
                return waiter
            self.leave(waiter)  # its task was cancelled, and has not run since
        return None

    def serve(self, waiter: Waiter[T], thing: T) -> None:
        self.leave(waiter)
        waiter.future.set_result(thing)

    def refuse(self, waiter: Waiter[T], error: Exception) -> None:
        self.leave(waiter)
        waiter.future.set_exception(error)

    def serve_wish(self, wish: Wish, thing: T) -> None:
        """All who wait for this get the same."""
        for waiter in list(self._queues.get(wish, OrderedDict[int, Waiter[T]]()).values()):
            self.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_result(thing)

    def refuse_all(self, error: Callable[[], Exception]) -> None:
        for wish in list(self._queues):
            self.refuse_wish(wish, error)

    def refuse_wish(self, wish: Wish, error: Callable[[], Exception]) -> None:
        """All who wait for this, each with an error of its own."""
        for waiter in list(self._queues.get(wish, OrderedDict[int, Waiter[T]]()).values()):
            self.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(error())

    def overdue(self, monotonic: float) -> list[Waiter[T]]:
        """Those whose deadline has come."""
        found: list[Waiter[T]] = []
        while self._deadlines and self._deadlines[0][0] <= monotonic:
            _, number, wish = heapq.heappop(self._deadlines)
            waiter = self._queues.get(wish, OrderedDict[int, Waiter[T]]()).get(number)
            if waiter is not None and not waiter.future.done():
                found.append(waiter)
        return found

    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None
