"""What is kept of responses, over a store of which other processes write too, and that may not answer."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from qwen_proxy.api.spool import MOST_HELD_BYTES, Spool
from qwen_proxy.api.stored_responses import KeptResponse, ResponseJob, StoredResponses, Taken
from qwen_proxy.chat.events import Batch, Finish, FinishReason, ReplyStart, TextDelta, Usage
from qwen_proxy.ground.errors import NotFound, ShuttingDown, StoreUnavailable
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_kept import frames, status_of
from qwen_proxy.state.store import Change, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

ID = "resp_" + "ab" * 16
END: Batch = [Usage(prompt_tokens=1, completion_tokens=1), Finish(FinishReason.STOP)]


class Quick(FakeClock):
    """Sleeping takes no time."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Shaky(MemoryStore):
    """`losing` writes are done and their answers lost; `refusing` are not done."""

    losing = 0
    refusing = 0

    async def write(self, changes: Sequence[Change]) -> Written:
        if self.refusing:
            self.refusing -= 1
            raise StoreUnavailable("refused")
        written = await super().write(changes)
        if self.losing:
            self.losing -= 1
            raise StoreUnavailable("lost")
        return written


class Bench:
    """A store, and a response that has just begun."""

    def __init__(self) -> None:
        self.clock = Quick()
        self.store = Shaky(self.clock)
        self.kept = StoredResponses(self.store, Vault(new_document()), lambda: 3600.0)
        incoming = Incoming(path="", query={}, headers={}, body=b'{"input":"hello"}')
        call = OpenAIResponses().parse(incoming, ParseOptions())
        facts = ReplyFacts(reply_id="ab" * 16, request_id="req_1", created_at=1, model="m")
        self.encoder = ResponseEncoder(facts, call.wishes, call.toolbox, is_queued=True)
        queued = msgspec.json.encode({"id": ID, "created_at": 1, "model": "m", "status": "queued", "output": []})
        self.document = KeptResponse(key_id="key", response=queued, input=b"[]", is_background=True)

    async def spool(self) -> Spool:
        job = await self.kept.begin(ID, self.document, ResponseJob(owner="p1"))
        spool = Spool(self.kept, job, self.document, self.clock, lambda: None)
        spool.open(self.encoder)
        return spool

    async def add(self, spool: Spool, *events: object) -> None:
        batch: Batch = list(events)  # pyright: ignore[reportAssignmentType] events they are
        await spool.add(self.encoder.encode(batch), self.encoder, has_content=True)

    async def numbers(self, after: int = -1) -> list[int]:
        return [number for piece in await self.kept.events(ID, after) for number, _ in frames(piece.events)]


async def test_events_are_written_once_each_though_answers_are_lost() -> None:
    bench = Bench()
    spool = await bench.spool()
    bench.store.losing = 1
    await bench.add(spool, ReplyStart(), TextDelta("x" * MOST_HELD_BYTES))  # waits until it is written
    await bench.add(spool, TextDelta("y"), *END)
    bench.store.refusing = 2
    await spool.end(bench.encoder)
    assert await bench.numbers() == list(range(bench.encoder.last_number + 1))
    assert await bench.numbers(4) == list(range(5, bench.encoder.last_number + 1))
    assert await bench.kept.job(ID) is None
    assert status_of((await bench.kept.get(ID, "key")).response) == "completed"


async def test_who_is_not_at_work_on_it_any_more_writes_nothing() -> None:
    bench = Bench()
    spool = await bench.spool()
    await bench.kept.cancel(ID, "key")
    told = await bench.numbers()
    await bench.add(spool, ReplyStart(), TextDelta("late"), *END)
    await spool.end(bench.encoder)
    assert await bench.numbers() == told == [0, 1]
    assert status_of((await bench.kept.get(ID, "key")).response) == "cancelled"


async def test_a_job_has_one_hand_at_a_time() -> None:
    bench = Bench()
    await bench.spool()
    job = await bench.kept.job(ID)
    assert job is not None
    taken = await bench.kept.take_over(job, "p2")
    for late in (bench.kept.take_over(job, "p3"), bench.kept.break_off(job, ShuttingDown())):
        with pytest.raises(Taken):
            await late
    await bench.kept.break_off(taken, ShuttingDown("gone"))
    assert status_of((await bench.kept.cancel(ID, "key")).response) == "failed"  # it stays what it was


async def test_what_is_deleted_leaves_nothing_and_another_key_finds_nothing() -> None:
    bench = Bench()
    spool = await bench.spool()
    await bench.add(spool, ReplyStart(), TextDelta("x"), *END)
    await spool.end(bench.encoder)
    for refused in (bench.kept.get(ID, "other"), bench.kept.delete(ID, "other"), bench.kept.cancel(ID, "other")):
        with pytest.raises(NotFound):
            await refused
    await bench.kept.delete(ID, "key")
    assert await bench.kept.find(ID, "key") is None and await bench.numbers() == []
