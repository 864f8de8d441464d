"""The responses under way in this process, as those see it that look after what nobody is at work on."""

from typing import Final


class OwnJobs:
    """Those of this process, by ids of responses. owner: what the store calls it. left: which it is not at work on any
    more, and does not know to be ended in the store."""

    def __init__(self, owner: str) -> None:
        self.owner: Final = owner
        self.running: Final[set[str]] = set()
        self.left: Final[set[str]] = set()

    def begin(self, id: str) -> None:
        self.running.add(id)

    def end(self, id: str, *, is_known: bool) -> None:
        self.running.discard(id)
        if not is_known:
            self.left.add(id)
