"""Where reality differs from the protocol page: counted, and told once each by shape, never by content."""

import logging
from collections.abc import Callable
from typing import Final

from msgspec import Struct

log = logging.getLogger(__name__)

MAX_NAMES: Final = 256
MAX_NAME_CHARACTERS: Final = 64
OVERFLOW: Final = "(more)"
LOOKS_AT_FIRST: Final = 8
LOOK_EVERY: Final = 64
MAX_SHAPES: Final = 1024


class DriftNote(Struct, frozen=True):
    """`kind` is what differs: phase, status, code, delta_key, frame_key, shape, header, ending, media_host, …"""

    kind: str
    name: str
    count: int
    first_at: float


class Drift:
    """Counts what was seen and is not on the page. At most 256 names are kept; later ones count as `(more)`.

    `now` gives Unix seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._notes: dict[tuple[str, str], DriftNote] = {}
        self._looked: dict[object, int] = {}

    def seen(self, kind: str, name: str) -> None:
        """`name` is a key, an enum's value or a shape, as the upstream wrote it: cut to 64 printable characters."""
        key = (kind, printable(name))
        if key not in self._notes and len(self._notes) >= MAX_NAMES:
            key = (kind, OVERFLOW)
        old = self._notes.get(key)
        if old is None:
            self._notes[key] = DriftNote(*key, 1, self._now())
            log.warning("upstream differs from the protocol page", extra={"drift_kind": key[0], "drift_name": key[1]})
        else:
            self._notes[key] = DriftNote(*key, old.count + 1, old.first_at)

    def is_worth_a_look(self, shape: object) -> bool:
        """Whether to look at something of this known shape for what is unknown in it: the first few times over all
        replies, then every 64th, since a look costs more than the decoding."""
        count = self._looked.get(shape, 0) + 1
        if count > 1 or len(self._looked) < MAX_SHAPES:
            self._looked[shape] = count
        return count <= LOOKS_AT_FIRST or not count % LOOK_EVERY

    def snapshot(self) -> list[DriftNote]:
        """Every note, oldest first."""
        return list(self._notes.values())


def printable(name: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in name[:MAX_NAME_CHARACTERS])
