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
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self

from qwen_proxy.api.background import BackgroundRuns, Run
from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.stored_responses import Job, StoredResponses, Taken
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.sizing import chat_size
from qwen_proxy.ground.errors import ProxyError, ShuttingDown, StoreUnavailable, Unauthenticated, Unreadable
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses, call
from qwen_proxy.protocols.openai_responses_kept import facts_of
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0  # how soon a response without a process is found
GONE: Final = "the process that was at work on this response has ended"
UNWRITTEN: Final = "the end of this response could not be stored"


class ResponseKeeper:
    """Enter it before use. living: the ids of the processes there are. is_keeper: whether this process looks after what
    others left."""

    def __init__(
        self,
        kept: StoredResponses,
        own: OwnJobs,
        runs: BackgroundRuns,
        admission: Admission,
        find_key: Callable[[str], ClientKey | None],
        *,
        living: Callable[[], Awaitable[set[str]]],
        is_keeper: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._own = own
        self._runs = runs
        self._admission = admission
        self._find_key = find_key
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
            if not is_ours and not job.value.has_content and await self._again(job):
                return
            why = UNWRITTEN if is_ours else GONE
            await self._kept.break_off(job, ShuttingDown(why))
            log.warning("response ended as failed", extra={"id": job.id, "reason": why})
        except Unreadable as error:
            log.warning("response given up", extra={"id": job.id, "reason": str(error)})
            await self._kept.drop(job)

    async def _again(self, job: Job) -> bool:
        """Ask again for what nobody has seen anything of. False where it can't be."""
        kept = await self._kept.of_any_key(job.id)
        caller = None if kept is None else self._find_key(kept.key_id)
        if kept is None or not kept.is_background or caller is None:
            return False
        held = AsyncExitStack()
        try:
            if (why := caller.why_useless(self._clock.now())) is not None:
                raise Unauthenticated(why)
            incoming = Incoming(path="/v1/responses", query={}, headers={}, body=kept.body)
            wanted = OpenAIResponses().read(incoming, ParseOptions())
            meant = call(wanted, (await self._kept.context(wanted, kept.key_id)).context)
            permit = await held.enter_async_context(self._admission.admit(caller, lambda: chat_size(meant.request, 1)))
            job = await self._kept.take_over(job, self._own.owner)
        except (StoreUnavailable, Taken, Unreadable):
            await held.aclose()
            raise
        except ProxyError as error:
            await held.aclose()
            await self._kept.break_off(job, error)
            return True
        created_at, model = facts_of(kept.response)
        facts = ReplyFacts(
            reply_id=job.id.removeprefix("resp_"),
            request_id=job.value.request_id,
            created_at=created_at,
            model=model,
        )
        run = Run(id=job.id, call=meant, facts=facts, kept=kept, caller=caller, permit=permit, held=held)
        self._runs.take_up(run, job)
        log.warning("background response taken over: its process is gone", extra={"id": job.id})
        return True
