"""What other processes change, told to those here who keep copies: one reader for the whole process."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import Kind, Record, Store

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 10.0
AFTER_FAILURE_SECONDS: Final = 0.5
PAGE: Final = 1000

Take = Callable[[Sequence[Record], Sequence[str]], None]  # the records that are new or changed, the ids that are gone


class Watch:
    """Subscribe first, then `load`, then `run` until cancelled.

    A subscriber is called with everything there is at `load`, then with each change, its own process's too; it must
    take a record that it knows already.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._subscribers: dict[str, list[Take]] = {}
        self._kinds: dict[str, Kind] = {}
        self._known: dict[str, set[str]] = {}
        self._generation = 0
        self._reading = asyncio.Lock()
        self._begun = 0  # readings, counted
        self._ended = 0  # the number of the last that came to a good end

    def subscribe(self, kind: Kind, take: Take) -> None:
        assert kind.is_watched
        self._kinds[kind.name] = kind
        self._subscribers.setdefault(kind.name, []).append(take)
        self._known.setdefault(kind.name, set())

    async def load(self) -> None:
        """Everything of the subscribed kinds. Raises StoreUnavailable, and then has to be done again."""
        generation = await self._store.generation()  # before what is read: what comes meanwhile is told once more
        for kind in self._kinds.values():
            records: list[Record] = []
            while True:
                page = await self._store.find(kind, after=records[-1].id if records else "", limit=PAGE)
                records += page
                if len(page) < PAGE:
                    break
            gone = self._known[kind.name] - {record.id for record in records}
            self._tell(kind.name, records, sorted(gone))
        self._generation = generation

    async def run(self) -> None:
        while True:
            try:
                if await self._store.wait(self._generation, WAIT_SECONDS) != self._generation:
                    await self.catch_up()
            except StoreUnavailable:
                await self._clock.sleep(AFTER_FAILURE_SECONDS)

    async def catch_up(self) -> None:
        """What was written before this call is known here when it returns; one question for all who ask at a time.

        Raises StoreUnavailable.
        """
        begun = self._begun
        async with self._reading:
            if self._ended <= begun:  # else one that began behind our call has come to its end
                self._begun = number = self._begun + 1
                await self._read()
                self._ended = number

    async def _read(self) -> None:
        changes = await self._store.changes(self._generation)
        if not changes.is_complete:
            await self.load()
        elif changes.generation != self._generation:
            self._generation = changes.generation
            for name in self._kinds:
                records = [record for record in changes.records if record.kind == name]
                gone = [each.id for each in changes.gone if each.kind == name]
                if records or gone:
                    self._tell(name, records, gone)

    def _tell(self, kind: str, records: Sequence[Record], gone: Sequence[str]) -> None:
        self._known[kind].difference_update(gone)
        self._known[kind].update(record.id for record in records)
        for take in self._subscribers[kind]:
            try:
                take(records, gone)
            except Exception:  # one subscriber's document must not keep the others from theirs
                log.exception("a change could not be taken", extra={"kind": kind})
