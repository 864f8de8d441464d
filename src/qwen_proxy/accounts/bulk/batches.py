"""What an operator does with batches, in any process: make, look at, follow, pause, resume, cancel, try again, remove.

What is asked for here is written into the batch; the keeper hears of it through the watch and acts.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.book import BatchBook, batch_id
from qwen_proxy.accounts.bulk.model import Batch, BatchLine, BatchStatus, LineStatus, PauseCause
from qwen_proxy.accounts.bulk.report import (
    BatchProgress,
    LineReport,
    TaskSnapshot,
    batch_progress,
    line_report,
    task_snapshot,
)
from qwen_proxy.accounts.lines import PastedLines
from qwen_proxy.ground.errors import InvalidRequest, NotFound, StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.state.collection import Entry
from qwen_proxy.state.kinds import BATCH
from qwen_proxy.state.store import Append, Record
from qwen_proxy.state.watching import Watch

MOST_LINES: Final = 50_000
MOST_FAILED_KNOWN: Final = 50_000
MOST_TOLD_CHARS: Final = 40  # of an id that is none
GATHER_SECONDS: Final = 0.2
AFTER_FAILURE_SECONDS: Final = 1.0


class LinesPage(Struct, frozen=True, kw_only=True):
    """next_after: the number behind which the next page begins; None at the end."""

    lines: tuple[LineReport, ...]
    next_after: int | None


class Batches:
    """Every method raises StoreUnavailable, and NotFound for a batch that there is not.

    To be made before `watch` is loaded. `also` is written in the same step: the audit log's line.
    """

    def __init__(self, book: BatchBook, watch: Watch, clock: Clock, ids: Ids, concurrency: Callable[[], int]) -> None:
        self._book = book
        self._clock = clock
        self._ids = ids
        self._concurrency = concurrency
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._failed_emails: dict[tuple[str, int], str] = {}
        watch.subscribe(BATCH, self._take)

    async def create(
        self, pasted: PastedLines, *also: Append, labels: Sequence[str] = (), by: str = ""
    ) -> BatchProgress:
        """by: who, as the audit log names keys. Raises InvalidRequest when there is no line at all, or too many."""
        if not pasted.good and not pasted.repeated:
            first = f"; {pasted.bad[0].sentence}" if pasted.bad else ""
            raise InvalidRequest(f"there is no line of the form email:password or email:password|proxy{first}")
        if pasted.total > MOST_LINES:
            raise InvalidRequest(f"a batch has at most {MOST_LINES} lines, and this is {pasted.total}; split it")
        now = self._clock.now()
        batch = Batch(
            created_at=now,
            created_by=by,
            labels=tuple(labels),
            concurrency=self._concurrency(),
            total=pasted.total,
            good=len(pasted.good),
            repeated=len(pasted.repeated),
            invalid=len(pasted.bad),
        )
        entry = await self._book.create(batch_id(now, self._ids.token(8)), batch, pasted, *also)
        return self._told(entry.id, batch, {})

    # --- looking

    async def all(self) -> list[BatchProgress]:
        """Newest first, without their lines."""
        return [self._told(entry.id, entry.value, {}) for entry in reversed(await self._book.all())]

    async def progress(self, id: str) -> BatchProgress:
        return await self._looked_at(id, (await self._entry(id)).value)

    async def _entry(self, id: str) -> Entry[Batch]:
        if (entry := await self._book.get(id)) is None:
            raise _unknown(id)
        return entry

    async def _looked_at(self, id: str, batch: Batch) -> BatchProgress:
        return self._told(id, batch, await self._book.some_lines(id, (*batch.active, *batch.recent)))

    def _told(self, id: str, batch: Batch, lines: Mapping[int, BatchLine]) -> BatchProgress:
        """With the setting of this moment for one that is not over."""
        batch = batch if batch.is_over else replace(batch, concurrency=self._concurrency())
        return batch_progress(id, batch, lines)

    async def lines(self, id: str, *, after: int = 0, limit: int = 100, status: LineStatus | None = None) -> LinesPage:
        """By number; status: only those."""
        await self._entry(id)
        found: list[LineReport] = []
        async with aclosing(self._book.each_line(id, after)) as lines:
            async for number, entry in lines:
                if status is None or entry.value.status is status:
                    if len(found) == limit:
                        return LinesPage(lines=tuple(found), next_after=found[-1].number)
                    found.append(line_report(number, entry.value))
        return LinesPage(lines=tuple(found), next_after=None)

    async def task(self, id: str) -> TaskSnapshot:
        """In the shape of the original."""
        batch = (await self._entry(id)).value
        return task_snapshot(await self._looked_at(id, batch), await self._emails(id, batch.failed))

    async def _emails(self, id: str, numbers: Sequence[int]) -> list[str]:
        """Remembered: the original's page asks every 0.8 seconds, for all that have failed so far."""
        if len(self._failed_emails) > MOST_FAILED_KNOWN:
            self._failed_emails.clear()
        unknown = [number for number in numbers if (id, number) not in self._failed_emails]
        for number, line in (await self._book.some_lines(id, unknown)).items():
            self._failed_emails[id, number] = line.email
        return [self._failed_emails[id, number] for number in numbers if (id, number) in self._failed_emails]

    # --- following

    @asynccontextmanager
    async def follow(self, id: str) -> AsyncGenerator[AsyncIterator[BatchProgress]]:
        """How it stands now and after each change, until it is over or gone; several changes may come as one."""
        await self._entry(id)
        changed = asyncio.Event()
        self._followers.setdefault(id, set()).add(changed)
        try:
            async with aclosing(self._follow(id, changed)) as progress:
                yield progress
        finally:
            followers = self._followers[id]
            followers.discard(changed)
            if not followers:
                del self._followers[id]

    async def _follow(self, id: str, changed: asyncio.Event) -> AsyncGenerator[BatchProgress]:
        last: BatchProgress | None = None
        while True:
            changed.clear()
            try:
                progress = await self.progress(id)
            except StoreUnavailable:
                await self._clock.sleep(AFTER_FAILURE_SECONDS)
                continue
            except NotFound:
                return
            if progress != last:
                yield progress
            if progress.is_over:
                return
            last = progress
            await changed.wait()
            await self._clock.sleep(GATHER_SECONDS)

    async def settled(self, id: str) -> BatchProgress:
        """When it is over, or waits for an operator."""
        async with self.follow(id) as changes:
            async for progress in changes:
                if progress.is_over or progress.status is BatchStatus.PAUSED:
                    return progress
        raise _unknown(id)

    def _take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for id in (*(record.id for record in records), *gone):
            for changed in self._followers.get(id, ()):
                changed.set()

    # --- acting

    async def pause(self, id: str, *also: Append) -> BatchProgress:
        """No line is begun any more; those under way come to their end or are put back. Raises InvalidRequest."""
        return await self._act(id, lambda batch: model.pause(batch, PauseCause.OPERATOR), also, "paused")

    async def resume(self, id: str, *also: Append) -> BatchProgress:
        """After whatever it was paused by. Raises InvalidRequest."""
        return await self._act(id, model.resume, also, "resumed")

    async def cancel(self, id: str, *also: Append) -> BatchProgress:
        """What was added stays. Raises InvalidRequest."""
        return await self._act(id, model.cancel, also, "cancelled")

    async def retry_failed(self, id: str, *also: Append) -> BatchProgress:
        """Raises InvalidRequest, also when the passwords of its failed lines are forgotten."""
        return await self._act(id, model.retry, also, "tried again")

    async def remove(self, id: str, *also: Append) -> None:
        """Forget one that is over. Raises InvalidRequest."""
        batch = (await self._entry(id)).value
        if not batch.is_over:
            raise InvalidRequest(f"the batch is {batch.status} and can't be removed; cancel it first")
        await self._book.remove(id, *also)

    async def _act(
        self, id: str, change: Callable[[Batch], Batch | None], also: Sequence[Append], done: str
    ) -> BatchProgress:
        changed = await self._book.change_batch(id, change, *also)
        if changed is None:
            raise _unknown(id)
        batch, was_allowed = changed
        if not was_allowed:
            failed = f" with {len(batch.failed)} failed lines" if done == "tried again" else ""
            raise InvalidRequest(f"the batch is {batch.status}{failed} and can't be {done}")
        return await self._looked_at(id, batch)


def _unknown(id: str) -> NotFound:
    return NotFound(f"batch {id[:MOST_TOLD_CHARS]!r}")
