"""Which of the answers that interleave in one stream is the reply. Pure. Source: upstream protocol §4.4 (1).

| known of the stream                    | the chosen one is                                                |
|----------------------------------------|------------------------------------------------------------------|
| a `response.created` of index 0, or without an index | that one                                           |
| frames with ids, and no creation       | the first id                                                     |
| creations of other indexes only        | none yet: their frames are held                                  |
| frames without ids                     | whatever is chosen: they are admitted                            |

Frames of others are held, 64 KiB in all, until it is known that the chosen one has something to say.
"""

from typing import Final

MAX_HELD_BYTES: Final = 64 * 1024
MAX_OTHERS: Final = 8
FIRST_INDEX: Final = "0"


class Candidates:
    """Says of each frame whether it belongs to the reply, and keeps those that may yet."""

    def __init__(self, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self.chosen: str | None = None
        self._max_held_bytes = max_held_bytes
        self._held: dict[str, list[bytes]] = {}
        self._held_bytes = 0
        self._passed_over: set[str] = set()

    @property
    def is_full(self) -> bool:
        return self._held_bytes > self._max_held_bytes

    def create(self, response_id: str, index: str | None) -> list[bytes]:
        """A candidate was announced. What was held of the one that is chosen now is returned, to be read."""
        if self.chosen is None and index in (None, FIRST_INDEX):
            return self._choose(response_id)
        if response_id != self.chosen:
            self._add(response_id)
        return []

    def admits(self, response_id: str | None) -> bool:
        """Whether a frame of this id belongs to the reply. The first id of all is chosen if none was announced."""
        if response_id == self.chosen or response_id is None:
            return True
        if self.chosen is None and not self._held:
            self.chosen = response_id
            return True
        return False

    def knows(self, response_id: str | None) -> bool:
        return response_id in self._held or response_id in self._passed_over

    def hold(self, response_id: str, payload: bytes) -> None:
        self._add(response_id)
        if response_id in self._held:
            self._held[response_id].append(payload)
            self._held_bytes += len(payload)

    def switch(self) -> list[bytes] | None:
        """Choose the next candidate that said something; what was held of it, None when there is none."""
        following = next((response_id for response_id, held in self._held.items() if held), None)
        if following is None:
            return None
        if self.chosen is not None:
            self._passed_over.add(self.chosen)
        return self._choose(following)

    def release(self) -> None:
        """The chosen one has spoken, or what is held is incomplete: nothing of the others is needed any more."""
        self._passed_over.update(self._held)
        self._held.clear()
        self._held_bytes = 0

    def _add(self, response_id: str) -> None:
        if response_id not in self._passed_over and len(self._held) < MAX_OTHERS:
            self._held.setdefault(response_id, [])

    def _choose(self, response_id: str) -> list[bytes]:
        self.chosen = response_id
        held = self._held.pop(response_id, [])
        self._held_bytes -= sum(map(len, held))
        return held
