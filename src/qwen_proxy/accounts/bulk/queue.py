"""Which line is next: one at a time through each exit, of the oldest batch first, then by number. Pure.

The lines of one exit stand in a lane of their own, so that thousands behind one proxy hold up nobody else.
"""

import heapq

Place = tuple[str, int]  # the batch, whose id begins with when it was made, and the line


class LineQueue:
    """A line waits, or is under way: then its exit is busy until `free`. Times are monotonic seconds.

    What is dropped stays in the heaps until it comes up there, and is passed over then.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, set[int]] = {}
        self._lanes: dict[str, list[Place]] = {}
        self._heads: list[tuple[Place, str]] = []  # lanes that may have a line to give
        self._later: list[tuple[float, Place, str]] = []
        self._busy: set[str] = set()

    def add(self, batch_id: str, number: int, exit: str, at: float = 0.0) -> None:
        """at: not before; 0 for now."""
        self._waiting.setdefault(batch_id, set()).add(number)
        if at:
            heapq.heappush(self._later, (at, (batch_id, number), exit))
        else:
            self._enter((batch_id, number), exit)

    def drop(self, batch_id: str) -> None:
        """None of its lines waits any more."""
        self._waiting.pop(batch_id, None)

    def waiting(self, batch_id: str) -> int:
        return len(self._waiting.get(batch_id, ()))

    def take(self, now: float) -> tuple[str, int, str] | None:
        """Batch, number and exit of the next line whose exit is idle."""
        while self._later and self._later[0][0] <= now:
            _, place, exit = heapq.heappop(self._later)
            if self._waits(place):
                self._enter(place, exit)
        while self._heads:
            place, exit = heapq.heappop(self._heads)
            lane = self._lane(exit)
            if exit in self._busy or not lane:
                continue
            if lane[0] != place:
                heapq.heappush(self._heads, (lane[0], exit))
                continue
            heapq.heappop(lane)
            self._waiting[place[0]].discard(place[1])
            self._busy.add(exit)
            return *place, exit
        return None

    def free(self, exit: str) -> None:
        self._busy.discard(exit)
        if lane := self._lane(exit):
            heapq.heappush(self._heads, (lane[0], exit))
        else:
            self._lanes.pop(exit, None)

    def next_at(self) -> float | None:
        """When a line comes up that has to wait until then."""
        return self._later[0][0] if self._later else None

    def _waits(self, place: Place) -> bool:
        return place[1] in self._waiting.get(place[0], ())

    def _enter(self, place: Place, exit: str) -> None:
        heapq.heappush(self._lanes.setdefault(exit, []), place)
        if self._lane(exit)[0] == place:
            heapq.heappush(self._heads, (place, exit))

    def _lane(self, exit: str) -> list[Place]:
        """Without what was dropped at its front."""
        lane = self._lanes.get(exit, [])
        while lane and not self._waits(lane[0]):
            heapq.heappop(lane)
        return lane
