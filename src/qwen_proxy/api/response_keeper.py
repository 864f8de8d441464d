"""What processes that are gone have left: jobs of responses that nobody is at work on any more.

| what is left | what becomes of it |
|---|---|
| in the background, and nothing of the reply was written | it is asked again; the opening events stay |
| in the background, of which a client may have seen a part | it ends as failed |
| streamed to a client, whose connection went with the process | it ends as failed |

One process, the keeper, looks after what others left; each looks after what it left itself, as when the store did not
answer for long.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.stored_responses import Job, StoredResponses, Taken
from qwen_proxy.ground.errors import ShuttingDown, StoreUnavailable, Unreadable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0  # how soon a response without a process is found
GONE: Final = "the process that was at work on this response has ended"
UNWRITTEN: Final = "the end of this response could not be stored"


class ResponseKeeper:
    """Enter it before use. ask_again: see `BackgroundRuns`. living: the ids of the processes there are. is_keeper:
    whether this process looks after what others left."""

    def __init__(
        self,
        kept: StoredResponses,
        own: OwnJobs,
        ask_again: Callable[[Job], Awaitable[bool]],
        *,
        living: Callable[[], Awaitable[set[str]]],
        is_keeper: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._own = own
        self._ask_again = ask_again
        self._living = living
        self._is_keeper = is_keeper
        self._clock = clock
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._tasks.spawn(self._look_after(), name="responses that were left")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)

    async def _look_after(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("responses not looked after", extra={"reason": str(error)})

    async def look(self) -> None:
        """Take care of the jobs that nobody is at work on. Raises StoreUnavailable."""
        left = tuple(self._own.left)
        jobs = [job for job in await self._jobs(left) if job.id not in self._own.running]
        living: set[str] = set()
        if any(job.value.owner != self._own.owner for job in jobs):
            living = await self._living()
        for job in jobs:
            is_ours = job.value.owner == self._own.owner
            if is_ours or job.value.owner not in living:
                with suppress(Taken):
                    await self._take_care(job, is_ours=is_ours)
        self._own.left.difference_update(left)

    async def _jobs(self, left: Sequence[str]) -> list[Job]:
        """All there are, for the keeper; else those that this process has left."""
        if self._is_keeper():
            return await self._kept.jobs()
        return [job for id in left if (job := await self._kept.job(id)) is not None]

    async def _take_care(self, job: Job, *, is_ours: bool) -> None:
        """Raises Taken and StoreUnavailable."""
        try:
            if not is_ours and not job.value.has_content and await self._ask_again(job):
                return
            why = UNWRITTEN if is_ours else GONE
            await self._kept.break_off(job, ShuttingDown(why))
            log.warning("response ended as failed", extra={"id": job.id, "reason": why})
        except Unreadable as error:
            log.warning("response given up", extra={"id": job.id, "reason": str(error)})
            await self._kept.drop(job)
