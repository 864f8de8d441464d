"""Runs the batches. In one process at a time, the keeper: it alone signs accounts in.

All that matters is in the store, so another process goes on where this one stopped: a line found running is done
anew, unless its account is there already. Two that believe to be the keeper for a moment do no harm: a result is
written once.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from random import Random
from types import TracebackType
from typing import Final, Self

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.book import KEPT_SECONDS, PASSWORD_SECONDS, BatchBook
from qwen_proxy.accounts.bulk.model import Batch, BatchStatus, LineStatus
from qwen_proxy.accounts.bulk.queue import LineQueue
from qwen_proxy.accounts.bulk.work import Enrolment, LineWork
from qwen_proxy.ground.errors import StoreUnavailable, Unreadable
from qwen_proxy.runtime.alarm import Alarm
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.kinds import BATCH
from qwen_proxy.state.store import Record
from qwen_proxy.state.watching import Watch

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 10.0  # for a line under way when its batch is paused or cancelled: a sign-in takes about 4
AGAIN_SECONDS: Final = 5.0  # before a line that got no answer is tried again; twice as long the next time
STORE_RETRY_SECONDS: Final = 0.5
LOOK_AGAIN_SECONDS: Final = 1.0  # at what nobody tells of, such as the setting of the concurrency
CARE_SECONDS: Final = 3600.0


class BatchRunner:
    """To be made before `watch` is loaded, entered, and told by `start` and `stop` of the role. `concurrency` is how
    many lines may be under way; it may change at any time."""

    def __init__(
        self,
        book: BatchBook,
        enrolment: Enrolment,
        watch: Watch,
        clock: Clock,
        random: Random,
        concurrency: Callable[[], int],
    ) -> None:
        self._make = lambda: _Shift(book, enrolment, clock, random, concurrency)
        self._shift: _Shift | None = None
        self._running: asyncio.Task[None] | None = None
        self._tasks = Tasks()
        watch.subscribe(BATCH, self._take)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lines under way stay as they are: the next keeper does them anew."""
        self.stop()
        await self._tasks.__aexit__(None, None, None)

    def start(self) -> None:
        """This process is the keeper now: go on with all that is unfinished."""
        if self._running is None:
            self._shift = self._make()
            self._running = self._tasks.spawn(self._shift.run(), name="batches")

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = self._shift = None

    def _take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        if self._shift is not None:
            self._shift.notice([*(record.id for record in records), *gone])


class _Job:
    """recall_at: when its task is cancelled, monotonic seconds."""

    def __init__(self, work: LineWork, task: asyncio.Task[None]) -> None:
        self.work = work
        self.task = task
        self.recall_at: float | None = None


class _Shift:
    """From `start` to `stop`."""

    def __init__(
        self,
        book: BatchBook,
        enrolment: Enrolment,
        clock: Clock,
        random: Random,
        concurrency: Callable[[], int],
    ) -> None:
        self._book = book
        self._enrolment = enrolment
        self._clock = clock
        self._random = random
        self._concurrency = concurrency
        self._tasks = Tasks()
        self._wake = asyncio.Event()
        self._alarm = Alarm(clock, self._tasks, self._wake.set, name="batch times")
        self._queue = LineQueue()
        self._jobs: list[_Job] = []
        self._unseen: set[str] = set()  # batches to be looked at
        self._loaded: set[str] = set()  # batches whose lines are in the queue
        self._care_at = clock.monotonic()

    def notice(self, ids: Sequence[str]) -> None:
        self._unseen.update(ids)
        self._wake.set()

    async def run(self) -> None:
        async with self._tasks:
            is_new = True
            while True:
                self._wake.clear()
                try:
                    if is_new:
                        self._unseen.update(entry.id for entry in await self._book.all())
                        is_new = False
                    await self._step()
                except StoreUnavailable as error:
                    log.warning("batches wait for the store", extra={"reason": str(error)})
                    await self._clock.sleep(STORE_RETRY_SECONDS)
                    continue
                self._set_alarm()
                await self._wake.wait()

    async def _step(self) -> None:
        """May be broken off by StoreUnavailable anywhere, and begun anew."""
        self._recall()
        for job in [job for job in self._jobs if job.task.done()]:
            await self._dismiss(job)
        while self._unseen:
            await self._look(min(self._unseen))
        while len(self._jobs) < self._concurrency() and (place := self._queue.take(self._clock.monotonic())):
            self._begin(*place)
        if self._clock.monotonic() >= self._care_at:
            await self._care()
            self._care_at = self._clock.monotonic() + CARE_SECONDS

    def _set_alarm(self) -> None:
        times = [self._care_at, *(job.recall_at for job in self._jobs if job.recall_at is not None)]
        if len(self._jobs) >= self._concurrency() and any(map(self._queue.waiting, self._loaded)):
            times.append(self._clock.monotonic() + LOOK_AGAIN_SECONDS)
        if (next_at := self._queue.next_at()) is not None:
            times.append(next_at)
        self._alarm.at(min(times))

    # --- lines

    def _begin(self, id: str, number: int, exit: str) -> None:
        work = LineWork(self._book, self._enrolment, self._clock, id, number, exit)
        task = self._tasks.spawn(work.run(), name=f"line {number} of {id}")
        task.add_done_callback(lambda _: self._wake.set())
        self._jobs.append(_Job(work, task))

    def _recall(self) -> None:
        """Cancel those that still sign in when their time is up; one that has signed in writes that down."""
        now = self._clock.monotonic()
        for job in self._jobs:
            if job.recall_at is not None and job.recall_at <= now:
                job.recall_at = now + LOOK_AGAIN_SECONDS
                if job.work.is_signing_in:
                    job.task.cancel()

    async def _dismiss(self, job: _Job) -> None:
        work = job.work
        if not work.has_ended:
            try:
                await work.put_back()
            except Unreadable as error:
                await self._give_up(work.batch_id, str(error))
        self._jobs.remove(job)
        if work.is_unsure:
            self._unload(work.batch_id)
        elif work.is_pending and work.batch_id in self._loaded:
            wait_seconds = AGAIN_SECONDS * 2 ** max(0, work.tries - 1) * (1 + self._random.random())
            self._queue.add(work.batch_id, work.number, work.exit, self._clock.monotonic() + wait_seconds)
        self._queue.free(work.exit)
        self._unseen.add(work.batch_id)

    # --- batches

    async def _look(self, id: str) -> None:
        """Do what the state of a batch asks for."""
        self._unseen.discard(id)  # before it is read: what comes then is news
        try:
            batch = await self._batch(id)
            if batch is not None and batch.wants_retry:
                batch = await self._retry(id)
            if batch is not None and batch.status is BatchStatus.RUNNING:
                await self._go_on(id)
            else:
                self._hold(id)
                if batch is not None and batch.status is BatchStatus.CANCELLED and not self._has_jobs(id):
                    await self._cancel(id)
        except Unreadable as error:
            await self._give_up(id, str(error))
        except StoreUnavailable:
            self._unseen.add(id)
            raise

    async def _batch(self, id: str) -> Batch | None:
        """Begun, if it was to begin."""
        changed = await self._book.change_batch(id, lambda batch: model.start(batch, self._clock.now()))
        if changed is not None and changed[1]:
            log.info("batch begun", extra={"batch": id, "lines": changed[0].good})
        return None if changed is None or changed[0].is_over else changed[0]

    async def _go_on(self, id: str) -> None:
        for job in self._jobs:
            if job.work.batch_id == id:
                job.recall_at = None
        if id not in self._loaded:
            await self._load(id)
        if not self._queue.waiting(id) and not self._has_jobs(id):
            await self._complete(id)

    async def _load(self, id: str) -> None:
        under_way = {job.work.number for job in self._jobs if job.work.batch_id == id}
        async with aclosing(self._book.each_line(id)) as lines:
            async for number, entry in lines:
                if entry.value.status.is_open and number not in under_way:
                    self._queue.add(id, number, entry.value.exit)
        self._loaded.add(id)

    def _hold(self, id: str) -> None:
        """Begin no line of it any more, and give those under way a while to end."""
        self._unload(id)
        for job in self._jobs:
            if job.work.batch_id == id and job.recall_at is None:
                job.recall_at = self._clock.monotonic() + GRACE_SECONDS

    def _unload(self, id: str) -> None:
        self._queue.drop(id)
        self._loaded.discard(id)

    def _has_jobs(self, id: str) -> bool:
        return any(job.work.batch_id == id for job in self._jobs)

    async def _retry(self, id: str) -> Batch | None:
        await self._book.change_each_line(id, lambda line: line.status is LineStatus.FAILED, model.retry_line)
        changed = await self._book.change_batch(id, model.retried)
        self._unload(id)
        return None if changed is None else changed[0]

    async def _cancel(self, id: str) -> None:
        now = self._clock.now()
        await self._book.change_each_line(id, lambda line: line.status.is_open, model.cancel_line(now))
        await self._complete(id)

    async def _complete(self, id: str) -> None:
        changed = await self._book.change_batch(id, lambda batch: model.complete(batch, self._clock.now()))
        self._loaded.discard(id)
        if changed is not None and changed[1]:
            ends = {"succeeded": changed[0].succeeded, "failed": len(changed[0].failed)}
            log.info("batch ended", extra={"batch": id, "status": changed[0].status, **ends})

    async def _give_up(self, id: str, reason: str) -> None:
        self._hold(id)
        log.error("a batch can't be read", extra={"batch": id, "reason": reason})
        now = self._clock.now()
        action = "Add the accounts that are missing in a new batch."
        try:
            await self._book.change_batch(id, lambda batch: model.fail(batch, reason, action, now))
        except Unreadable:
            return  # not even the batch itself: it stays as it is

    # --- care

    async def _care(self) -> None:
        """What is old is forgotten."""
        now = self._clock.now()
        for entry in await self._book.all():
            ended_at = entry.value.finished_at
            if ended_at is None:
                continue
            if now - ended_at >= KEPT_SECONDS:
                await self._book.remove(entry.id)
            elif now - ended_at >= PASSWORD_SECONDS and entry.value.has_passwords:
                await self._book.forget_passwords(entry.id)
        await self._book.remove_orphans(now)
