"""What is kept of `/v1/responses`, for all processes: responses, those under way in the background, and their events.

| record | id | holds |
|---|---|---|
| response | the response's | its key, itself as told last, the items of its input |
| response_job | the same, while it is under way | who is at work on it, and the last event written |
| response_events | the same, and the number of the last event in it | events, of one in the background |

Whoever writes events or ends a job writes the job with them, at the version it knows: so there is one hand at a time,
and numbers of events are given once. A job is gone when its response is final.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec import Raw, Struct

from qwen_proxy.ground.errors import InvalidRequest, NotFound, ProxyError, ResponseNotFound
from qwen_proxy.protocols.openai_responses_body import Asked, ItemBody
from qwen_proxy.protocols.openai_responses_kept import (
    UNFINISHED,
    Ended,
    behind,
    bodies,
    broken_off,
    cancelled,
    find_item,
    items_of,
    response_of,
    status_of,
)
from qwen_proxy.protocols.openai_responses_request import Context, references
from qwen_proxy.state.collection import Collection, Entry
from qwen_proxy.state.kinds import RESPONSE, RESPONSE_EVENTS, RESPONSE_JOB
from qwen_proxy.state.store import Change, Conflict, Store
from qwen_proxy.state.vault import Vault

MOST_TURNS: Final = 500  # how long a chain of responses may be
DIGITS: Final = 9  # of a number in an id, so that ids sort as numbers do


class KeptResponse(Struct, frozen=True, kw_only=True):
    """response: JSON. input: a JSON array of items. previous: the id of the response it goes on from, or empty.

    body: the request, of one in the background: what is asked again when its process is gone.
    told: headers of its answers, of one in the background, which say what its request had no effect in.
    """

    key_id: str
    response: bytes
    input: bytes
    previous: str = ""
    body: bytes = b""
    is_background: bool = False
    told: tuple[tuple[str, str], ...] = ()


class ResponseJob(Struct, frozen=True, kw_only=True):
    """owner: the process at work on it. last: the number of the last event written, -1 for none. session: see
    `gateway.sessions`. has_content: whether a client may have seen a part of the reply."""

    owner: str
    last: int = -1
    session: str = ""
    request_id: str = ""
    has_content: bool = False


class KeptEvents(Struct, frozen=True):
    events: bytes
    is_last: bool = False


Job = Entry[ResponseJob]


class Taken(Exception):
    """Another hand is at work on the response now, or it is ended, or deleted."""


class Found(Struct, frozen=True):
    """What a body refers to. raw: the items that references stand for, as they were written."""

    context: Context
    raw: Mapping[str, Raw]


class StoredResponses:
    def __init__(self, store: Store, vault: Vault, lasts_seconds: Callable[[], float]) -> None:
        """lasts_seconds: how long a response is kept from now on."""
        self._store = store
        self._lasts = lasts_seconds
        self._responses = Collection(store, RESPONSE, KeptResponse, vault)
        self._jobs = Collection(store, RESPONSE_JOB, ResponseJob, vault)
        self._events = Collection(store, RESPONSE_EVENTS, KeptEvents, vault)

    # --- reading. All raise StoreUnavailable

    async def find(self, id: str, key_id: str) -> KeptResponse | None:
        """None for another key's, too: nobody learns that there is one."""
        found = await self._responses.get(id) if len(id) < 100 else None
        return found.value if found is not None and found.value.key_id == key_id else None

    async def get(self, id: str, key_id: str) -> KeptResponse:
        """Raises NotFound."""
        kept = await self.find(id, key_id)
        if kept is None:
            raise NotFound(f"response {id[:80]!r}")
        return kept

    async def of_any_key(self, id: str) -> KeptResponse | None:
        found = await self._responses.get(id)
        return None if found is None else found.value

    async def job(self, id: str) -> Job | None:
        return await self._jobs.get(id)

    async def jobs(self) -> list[Job]:
        return await self._jobs.all_readable()

    async def context(self, wanted: Asked, key_id: str) -> Found:
        """Raises ResponseNotFound, and InvalidRequest for a chain that is too long or not at its end."""
        history = await self._history(wanted.body.previous_response_id or "", key_id)
        raw: dict[str, Raw] = {}
        known: dict[str, KeptResponse | None] = {}
        for id in references(wanted.body):
            owner = response_of(id)
            if owner and owner not in known:
                known[owner] = await self.find(owner, key_id)
            kept = known.get(owner)
            item = None if kept is None else find_item(items_of(kept.response), id) or find_item(kept.input, id)
            if item is not None:
                raw[id] = item
        found = {id: msgspec.json.decode(item, type=ItemBody) for id, item in raw.items()}
        return Found(Context(history, found), raw)

    async def _history(self, previous: str, key_id: str) -> list[ItemBody]:
        """The items of all responses up to that one, oldest first."""
        turns: list[list[ItemBody]] = []
        while previous:
            if len(turns) == MOST_TURNS:
                raise InvalidRequest(
                    f"the conversation has more than {MOST_TURNS} responses; send its items as `input` instead",
                    param="previous_response_id",
                )
            kept = await self.find(previous, key_id)
            if kept is None:
                raise ResponseNotFound(previous)
            if status_of(kept.response) in UNFINISHED:
                raise InvalidRequest(
                    f"response {previous!r} is not at its end yet; wait for that to go on from it",
                    param="previous_response_id",
                )
            turns.append(bodies(kept.input) + bodies(items_of(kept.response)))
            previous = kept.previous
        return [item for turn in reversed(turns) for item in turn]

    async def events(self, id: str, after: int) -> list[KeptEvents]:
        """What is written behind that number: pieces in order, of which the first holds none that come before."""
        beginning = _events_id(id, after) if after >= 0 else f"{id}/"
        found = await self._store.find(RESPONSE_EVENTS, after=beginning, limit=200)
        pieces = [self._events.entry(record).value for record in found if record.id.startswith(f"{id}/")]
        if pieces and after >= 0:
            pieces[0] = KeptEvents(behind(pieces[0].events, after), pieces[0].is_last)
        return pieces

    async def _written(self, id: str) -> bytes:
        async with aclosing(self._events.each(f"{id}/")) as pieces:
            return b"".join([piece.value.events async for piece in pieces])

    # --- writing. All raise StoreUnavailable, and those that take a job, Taken

    async def keep(self, id: str, kept: KeptResponse) -> None:
        await self._store.write([self._responses.put(id, kept, lasts_seconds=self._lasts())])

    async def begin(self, id: str, kept: KeptResponse, job: ResponseJob) -> Job:
        lasts = self._lasts()
        changes = [
            self._responses.put(id, kept, expect=0, lasts_seconds=lasts),
            self._jobs.put(id, job, expect=0, lasts_seconds=lasts),
        ]
        written = await self._store.write(changes)
        return Entry(id, written.versions[1], job)

    async def finish(self, id: str, kept: KeptResponse, *, was_begun: bool) -> None:
        """Write what a response stays that this process has streamed, whoever has ended it meanwhile: its client is
        told the same. One that was deleted stays so. was_begun: whether it is known that `begin` has written it."""
        version = 1 if was_begun else None
        while True:
            put = self._responses.put(id, kept, expect=version, lasts_seconds=self._lasts())
            try:
                await self._store.write([put, self._jobs.delete(id)])
                return
            except Conflict:
                found = await self._store.get(RESPONSE, id)
                if found is None:
                    return
                version = found.version

    async def take_over(self, job: Job, owner: str) -> Job:
        return await self._step(job, msgspec.structs.replace(job.value, owner=owner), [])

    async def add(self, job: Job, events: bytes, last: int, *, has_content: bool, response: KeptResponse) -> Job:
        """Write events of a job; `last` is the number of the last one. response: as it is told now."""
        lasts = self._lasts()
        changes: list[Change] = [
            self._events.put(_events_id(job.id, last), KeptEvents(events), expect=0, lasts_seconds=lasts)
        ]
        if job.value.last < 0:
            changes.append(self._responses.put(job.id, response, lasts_seconds=lasts))
        return await self._step(job, msgspec.structs.replace(job.value, last=last, has_content=has_content), changes)

    async def end(self, job: Job, kept: KeptResponse, events: bytes, last: int) -> None:
        """Write the last events of a job, and what its response stays."""
        lasts = self._lasts()
        changes: list[Change] = [
            self._jobs.delete(job.id, expect=job.version),
            self._responses.put(job.id, kept, lasts_seconds=lasts),
        ]
        if kept.is_background:
            pieces = KeptEvents(events, is_last=True)
            changes.append(self._events.put(_events_id(job.id, last), pieces, lasts_seconds=lasts))
        await self._write(changes)

    async def drop(self, job: Job) -> None:
        """Forget a job whose response can't be read any more."""
        await self._write([self._jobs.delete(job.id, expect=job.version)])

    async def cancel(self, id: str, key_id: str) -> KeptResponse:
        """Whoever is at work on it finds out. What is final already stays so. Raises NotFound."""
        while True:
            job = await self._jobs.get(id)
            kept = await self.get(id, key_id)
            if job is None:
                return kept
            ended = cancelled(kept.response, await self._written(id), job.value.last)
            try:
                return await self._end_with(job, kept, ended)
            except Taken:
                continue

    async def break_off(self, job: Job, error: ProxyError) -> None:
        """End it as failed."""
        kept = await self.of_any_key(job.id)
        if kept is None:
            await self.drop(job)
        else:
            value = job.value
            ended = broken_off(kept.response, await self._written(job.id), value.last, error, value.request_id)
            await self._end_with(job, kept, ended)

    async def _end_with(self, job: Job, kept: KeptResponse, ended: Ended) -> KeptResponse:
        final = msgspec.structs.replace(kept, response=ended.response, body=b"")
        await self.end(job, final, ended.events, ended.last)
        return final

    async def delete(self, id: str, key_id: str) -> None:
        """With everything of it. Raises NotFound."""
        await self.get(id, key_id)
        await self._store.write([self._responses.delete(id), self._jobs.delete(id)])
        while found := await self._store.find(RESPONSE_EVENTS, after=f"{id}/", limit=200):
            ours = [record.id for record in found if record.id.startswith(f"{id}/")]
            if ours:
                await self._store.write([self._events.delete(each) for each in ours])
            if len(ours) < len(found):
                return

    async def _step(self, job: Job, value: ResponseJob, changes: Sequence[Change]) -> Job:
        lasts = self._lasts()
        put = self._jobs.put(job.id, value, expect=job.version, lasts_seconds=lasts)
        versions = await self._write([put, *changes])
        return Entry(job.id, versions[0], value)

    async def _write(self, changes: Sequence[Change]) -> tuple[int, ...]:
        try:
            return (await self._store.write(changes)).versions
        except Conflict as error:
            raise Taken from error


def _events_id(id: str, last: int) -> str:
    return f"{id}/{last:0{DIGITS}d}"
