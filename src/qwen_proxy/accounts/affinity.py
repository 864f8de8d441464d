"""Which account a session belongs to: a ring on which every process finds the same one without a word. Pure.

Each account has points on a ring of 64-bit numbers, as many as its weight says; a session belongs to the account of
the first point behind its own. Where that one can't be taken, the next account on the ring serves, and only as long as
that lasts; where an account comes or goes, only the sessions between its points and the ones before them move.
"""

import math
import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from msgspec import Struct

POINTS: Final = 64  # of an account of average weight: loads differ by about an eighth
MOST_POINTS: Final = 1024
_POINTS_A_DIGEST: Final = 8

MOST_SESSIONS: Final = 10_000  # that are remembered, to count them


def session_point(session: str) -> int:
    return int.from_bytes(blake2b(session.encode(), digest_size=8).digest(), "big")


def account_points(account_id: str, count: int) -> list[int]:
    """The first `count` of an endless series that depends on nothing but the id."""
    points: list[int] = []
    for block in range(math.ceil(count / _POINTS_A_DIGEST)):
        digest = blake2b(f"{block}/{account_id}".encode(), digest_size=8 * _POINTS_A_DIGEST).digest()
        points += struct.unpack(">8Q", digest)
    return points[:count]


class Ring:
    """Depends on the accounts and their weights only, not on how they came. `len` is how many there are."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._counts: dict[str, int] = {}  # of the points that stand on the ring
        self._points: list[tuple[int, str]] = []
        self._is_stale = False

    def __len__(self) -> int:
        return len(self._weights)

    def put(self, account_id: str, weight: float) -> None:
        """Add an account, or give it another weight."""
        if self._weights.get(account_id) != weight:
            self._weights[account_id] = weight
            self._is_stale = True

    def remove(self, account_id: str) -> None:
        if self._weights.pop(account_id, None) is not None:
            self._is_stale = True

    def walk(self, point: int) -> Iterator[str]:
        """Accounts in the order in which they are to serve the session of this point, its own first; each once or more.

        The ring must not change meanwhile.
        """
        if self._is_stale:
            self._settle()
        points = self._points
        start = bisect_left(points, (point, ""))
        for index in range(start, start + len(points)):
            yield points[index % len(points)][1]

    def _settle(self) -> None:
        """Many changes cost one sort, of what is almost sorted."""
        unit = _unit(self._weights)
        counts = {id: max(1, min(MOST_POINTS, round(POINTS * w / unit))) for id, w in self._weights.items()}
        changed = {id for id in self._counts.keys() | counts.keys() if self._counts.get(id) != counts.get(id)}
        kept = [each for each in self._points if each[1] not in changed]
        kept += [(point, id) for id in sorted(changed & counts.keys()) for point in account_points(id, counts[id])]
        kept.sort()
        self._points, self._counts, self._is_stale = kept, counts, False


def _unit(weights: dict[str, float]) -> float:
    """The weight that gets POINTS: the power of two next to the average, since whoever comes and goes must not change
    the points of all others."""
    average = sum(weights.values()) / len(weights) if weights else 1.0
    return 2.0 ** round(math.log2(average))


class SessionReport(Struct, frozen=True, kw_only=True):
    """Since the start of this process. hits: uses by a session of its own account; escapes: of another one.

    sessions: different ones among the last; it stops at MOST_SESSIONS.
    """

    hits: int
    escapes: int
    sessions: int


class SessionCounts:
    def __init__(self) -> None:
        self._hits = 0
        self._escapes = 0
        self._seen: OrderedDict[str, None] = OrderedDict()

    def count(self, session: str, *, is_hit: bool) -> None:
        if is_hit:
            self._hits += 1
        else:
            self._escapes += 1
        self._seen[session] = None
        self._seen.move_to_end(session)
        if len(self._seen) > MOST_SESSIONS:
            self._seen.popitem(last=False)

    def report(self) -> SessionReport:
        return SessionReport(hits=self._hits, escapes=self._escapes, sessions=len(self._seen))
