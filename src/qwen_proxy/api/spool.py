"""The events of a response in the background, on their way to the store: written some at a time, each once."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import structs

from qwen_proxy.api.stored_responses import Job, KeptResponse, StoredResponses, Taken
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_kept import behind
from qwen_proxy.runtime.clock import Clock

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 0.15  # between two writes of events: what a reader is behind at most, besides its own pause
LOOK_SECONDS: Final = 1.0  # how soon a response without events finds out that it was cancelled
MOST_HELD_BYTES: Final = 1 << 20  # of events that are not written yet
LAST_TRIES: Final = 60  # to write the end, a second apart, when the store does not answer


class Spool:
    """A response's events on their way to the store, some at a time.

    lost: called when another hand is at work on it.
    """

    def __init__(
        self, kept: StoredResponses, job: Job, document: KeptResponse, clock: Clock, lost: Callable[[], object]
    ) -> None:
        self._kept = kept
        self._job = job
        self._document = document
        self._clock = clock
        self._lost = lost
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._last = job.value.last
        self._has_content = job.value.has_content
        self._writing = asyncio.Lock()
        self._is_over = False
        self.is_lost = False

    def open(self, encoder: ResponseEncoder) -> None:
        """The opening events; those that are written already, by a process that is gone, are not written again."""
        self._pieces.append(behind(encoder.start(), self._last))
        self._note(encoder)

    async def add(self, piece: bytes, encoder: ResponseEncoder, *, has_content: bool) -> None:
        self._pieces.append(piece)
        self._size_bytes += len(piece)
        self._has_content = self._has_content or has_content
        self._note(encoder)
        if encoder.is_over:
            self._is_over = True  # the last events are written with the end, not before
        elif self._size_bytes > MOST_HELD_BYTES:
            await self._flush_at_last()

    async def run(self) -> None:
        """Write what has come, now and then, until it is over."""
        since_look = 0.0
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            since_look += FLUSH_SECONDS
            try:
                async with self._writing:
                    if self._is_over:
                        return
                    if any(self._pieces):
                        await self._flush()
                        since_look = 0.0
                    elif since_look >= LOOK_SECONDS:
                        since_look = 0.0
                        await self._look()
            except StoreUnavailable as error:
                log.warning("events of a response not written yet", extra={"reason": str(error)})
            except Taken:
                self.is_lost = True
                self._lost()
                return

    async def end(self, encoder: ResponseEncoder) -> bool:
        """Write what is left, and the response as it stays. False when the store does not answer for long: whether it
        is written is not known then."""
        final = structs.replace(self._document, response=encoder.last, body=b"")
        async with self._writing:
            self._is_over = True
            for _ in range(LAST_TRIES):
                try:
                    await self._kept.end(self._job, final, b"".join(self._pieces), encoder.last_number)
                    return True
                except StoreUnavailable as error:
                    log.warning("the end of a response not written yet", extra={"reason": str(error)})
                    await self._clock.sleep(1.0)
                except Taken:
                    return True
        return False

    def _note(self, encoder: ResponseEncoder) -> None:
        self._last = encoder.last_number
        self._document = structs.replace(self._document, response=encoder.last)

    async def _flush_at_last(self) -> None:
        """However long it takes: what comes from upstream waits."""
        while not self.is_lost:
            try:
                async with self._writing:
                    await self._flush()
                return
            except StoreUnavailable:
                await self._clock.sleep(FLUSH_SECONDS)
            except Taken:
                self.is_lost = True
                raise asyncio.CancelledError from None

    async def _flush(self) -> None:
        events, last = b"".join(self._pieces), self._last
        if not events:
            return
        count = len(self._pieces)
        has_content, document = self._has_content, self._document
        wanted = structs.replace(self._job.value, last=last, has_content=has_content)
        try:
            self._job = await self._kept.add(self._job, events, last, has_content=has_content, response=document)
        except Taken:
            job = await self._kept.job(self._job.id)
            if job is None or job.value != wanted:
                raise
            self._job = job  # an earlier try of this very write had come through
        del self._pieces[:count]
        self._size_bytes = sum(map(len, self._pieces))

    async def _look(self) -> None:
        job = await self._kept.job(self._job.id)
        if job is None or job.version != self._job.version:
            raise Taken
