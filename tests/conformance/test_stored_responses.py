"""What is kept of responses, over every store: others write there too, and it may not answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from qwen_proxy.api.spool import MOST_HELD_BYTES, Spool
from qwen_proxy.api.stored_responses import Job, KeptResponse, ResponseJob, StoredResponses, Taken
from qwen_proxy.chat.events import Batch, Finish, FinishReason, ReplyStart, TextDelta, Usage
from qwen_proxy.ground.errors import InvalidRequest, NotFound, ResponseNotFound, ShuttingDown, StoreUnavailable
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_responses import OpenAIResponses
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_kept import frames, status_of
from qwen_proxy.state.kinds import RESPONSE, RESPONSE_EVENTS, RESPONSE_JOB
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault, new_document
from tests.conformance.stores import Place
from tests.support.clock import FakeClock
from tests.support.passing import PassingStore

T = TypeVar("T")
ID = "resp_" + "ab" * 16
LASTS_SECONDS = 3600.0
END: Batch = [Usage(prompt_tokens=1, completion_tokens=1), Finish(FinishReason.STOP)]


class Quick(FakeClock):
    """Sleeping takes no time."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Shaky(PassingStore):
    """`losing` writes are done and their answers lost; `refusing` are not done."""

    losing = 0
    refusing = 0

    async def _through(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        if name == "write" and self.refusing:
            self.refusing -= 1
            call.close()
            raise StoreUnavailable("refused")
        answer = await call
        if name == "write" and self.losing:
            self.losing -= 1
            raise StoreUnavailable("lost")
        return answer


class Bench:
    """A store as two processes have it, and a response that has just begun in the first."""

    def __init__(self, store: Store, other: Store) -> None:
        self.clock = Quick()
        self.store = Shaky(store)
        vault = Vault(new_document())
        self.kept = StoredResponses(self.store, vault, lambda: LASTS_SECONDS)
        self.others = StoredResponses(other, vault, lambda: LASTS_SECONDS)
        queued = msgspec.json.encode({"id": ID, "created_at": 1, "model": "m", "status": "queued", "output": []})
        self.encoder = self.new_encoder()
        self.document = KeptResponse(key_id="key", response=queued, input=b"[]", is_background=True)
        self.streamed = KeptResponse(key_id="key", response=queued.replace(b"queued", b"in_progress"), input=b"[]")

    def new_encoder(self) -> ResponseEncoder:
        incoming = Incoming(path="", query={}, headers={}, body=b'{"input":"hello"}')
        call = OpenAIResponses().parse(incoming, ParseOptions())
        facts = ReplyFacts(reply_id="ab" * 16, request_id="req_1", created_at=1, model="m")
        return ResponseEncoder(facts, call.wishes, call.toolbox, is_queued=True)

    async def spool(self) -> Spool:
        job = await self.kept.begin(ID, self.document, ResponseJob(owner="p1"))
        return self.spool_of(self.kept, job, self.encoder)

    def spool_of(self, kept: StoredResponses, job: Job, encoder: ResponseEncoder) -> Spool:
        spool = Spool(kept, job, self.document, self.clock, lambda: None)
        spool.open(encoder)
        return spool

    async def add(self, spool: Spool, *events: object) -> None:
        batch: Batch = list(events)  # pyright: ignore[reportAssignmentType] events they are
        await spool.add(self.encoder.encode(batch), self.encoder, has_content=True)

    async def numbers(self, after: int = -1) -> list[int]:
        """As the other process reads them."""
        return [number for piece in await self.others.events(ID, after) for number, _ in frames(piece.events)]

    async def status(self) -> str:
        return status_of((await self.others.get(ID, "key")).response)

    def ended(self, status: str) -> KeptResponse:
        response = self.streamed.response.replace(b"in_progress", status.encode())
        return KeptResponse(key_id="key", response=response, input=b"[]")


@pytest.fixture
def bench(store: Store, other: Store) -> Bench:
    return Bench(store, other)


# --- in the background


async def test_events_are_written_once_each_though_answers_are_lost(bench: Bench) -> None:
    spool = await bench.spool()
    bench.store.losing = 1
    await bench.add(spool, ReplyStart(), TextDelta("x" * MOST_HELD_BYTES))  # waits until it is written
    await bench.add(spool, TextDelta("y"), *END)
    bench.store.refusing = 2
    assert await spool.end(bench.encoder)
    assert await bench.numbers() == list(range(bench.encoder.last_number + 1))
    assert await bench.numbers(4) == list(range(5, bench.encoder.last_number + 1))
    assert await bench.kept.job(ID) is None
    assert await bench.status() == "completed"


async def test_who_is_not_at_work_on_it_any_more_writes_nothing(bench: Bench) -> None:
    spool = await bench.spool()
    await bench.others.cancel(ID, "key")
    told = await bench.numbers()
    await bench.add(spool, ReplyStart(), TextDelta("late"), *END)
    assert await spool.end(bench.encoder)
    assert await bench.numbers() == told == [0, 1]
    assert await bench.status() == "cancelled"


async def test_a_job_has_one_hand_at_a_time(bench: Bench) -> None:
    await bench.spool()
    (job,) = await bench.others.jobs()
    taken = await bench.others.take_over(job, "p2")
    for late in (bench.kept.take_over(job, "p3"), bench.kept.break_off(job, ShuttingDown())):
        with pytest.raises(Taken):
            await late
    await bench.others.break_off(taken, ShuttingDown("gone"))
    assert status_of((await bench.kept.cancel(ID, "key")).response) == "failed"  # it stays what it was


async def test_another_process_goes_on_with_the_numbers_where_the_first_was_killed(bench: Bench) -> None:
    job = await bench.kept.begin(ID, bench.document, ResponseJob(owner="p1"))
    opening = bench.new_encoder().start()
    await bench.kept.add(job, opening, 2, has_content=False, response=bench.document)
    (left,) = await bench.others.jobs()
    spool = bench.spool_of(bench.others, await bench.others.take_over(left, "p2"), bench.encoder)
    await bench.add(spool, ReplyStart(), TextDelta("again"), *END)
    assert await spool.end(bench.encoder)
    pieces = await bench.kept.events(ID, -1)
    numbers = [number for piece in pieces for number, _ in frames(piece.events)]
    assert numbers == list(range(bench.encoder.last_number + 1))
    assert pieces[0].events == opening and pieces[-1].is_last


async def test_the_end_that_a_store_does_not_take_is_said_to_be_unknown(bench: Bench) -> None:
    spool = await bench.spool()
    await bench.add(spool, ReplyStart(), TextDelta("x"), *END)
    bench.store.refusing = 1000
    assert not await spool.end(bench.encoder)


# --- streamed to a client that waits


async def test_a_stream_that_ends_is_written_over_its_beginning(bench: Bench) -> None:
    await bench.kept.begin(ID, bench.streamed, ResponseJob(owner="p1"))
    assert await bench.status() == "in_progress"
    await bench.kept.finish(ID, bench.ended("completed"), was_begun=True)
    assert await bench.status() == "completed"
    assert await bench.others.jobs() == []


async def test_a_stream_whose_process_is_gone_fails_without_events(bench: Bench) -> None:
    await bench.kept.begin(ID, bench.streamed, ResponseJob(owner="p1"))
    (job,) = await bench.others.jobs()
    await bench.others.break_off(job, ShuttingDown("its process has ended"))
    kept = await bench.kept.get(ID, "key")
    assert status_of(kept.response) == "failed" and b"its process has ended" in kept.response
    assert await bench.numbers() == [] and await bench.kept.jobs() == []


async def test_what_a_client_was_told_counts_more_than_what_others_took_it_for(bench: Bench) -> None:
    """A process that lost touch with the store for a while counts as gone, and streams on."""
    job = await bench.kept.begin(ID, bench.streamed, ResponseJob(owner="p1"))
    await bench.others.break_off(job, ShuttingDown("gone"))
    await bench.kept.finish(ID, bench.ended("completed"), was_begun=True)
    assert await bench.status() == "completed"


async def test_a_stream_that_is_deleted_stays_so(bench: Bench) -> None:
    await bench.kept.begin(ID, bench.streamed, ResponseJob(owner="p1"))
    await bench.others.delete(ID, "key")
    await bench.kept.finish(ID, bench.ended("completed"), was_begun=True)
    assert await bench.others.find(ID, "key") is None and await bench.others.jobs() == []


@pytest.mark.parametrize("failure", ["losing", "refusing"])
async def test_a_stream_whose_beginning_may_not_be_written_is_written_whole(bench: Bench, failure: str) -> None:
    setattr(bench.store, failure, 1)
    with pytest.raises(StoreUnavailable):
        await bench.kept.begin(ID, bench.streamed, ResponseJob(owner="p1"))
    await bench.kept.finish(ID, bench.ended("completed"), was_begun=False)
    assert await bench.status() == "completed"
    assert await bench.others.jobs() == []


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_nothing_goes_on_from_a_response_before_its_end(bench: Bench, status: str) -> None:
    await bench.kept.begin(ID, bench.ended(status), ResponseJob(owner="p1"))
    body = msgspec.json.encode({"input": "go on", "previous_response_id": ID})
    wanted = OpenAIResponses().read(Incoming(path="", query={}, headers={}, body=body), ParseOptions())
    with pytest.raises(InvalidRequest, match="not at its end") as refused:
        await bench.others.context(wanted, "key")
    assert refused.value.param == "previous_response_id"
    with pytest.raises(ResponseNotFound):
        await bench.others.context(wanted, "another")
    await bench.kept.finish(ID, bench.ended("completed"), was_begun=True)
    assert (await bench.others.context(wanted, "key")).raw == {}


# --- how long, and for whom


async def test_what_is_deleted_leaves_nothing_and_another_key_finds_nothing(bench: Bench) -> None:
    spool = await bench.spool()
    await bench.add(spool, ReplyStart(), TextDelta("x"), *END)
    await spool.end(bench.encoder)
    for refused in (bench.others.get(ID, "other"), bench.others.delete(ID, "other"), bench.others.cancel(ID, "other")):
        with pytest.raises(NotFound):
            await refused
    await bench.others.delete(ID, "key")
    assert await bench.kept.find(ID, "key") is None and await bench.numbers() == []


async def test_all_of_a_response_has_its_time(place: Place, bench: Bench, other: Store) -> None:
    spool = await bench.spool()
    await bench.add(spool, ReplyStart(), TextDelta("x" * MOST_HELD_BYTES))
    for kind in (RESPONSE, RESPONSE_JOB, RESPONSE_EVENTS):
        (record,) = await other.find(kind)
        assert record.expires_at == pytest.approx(place.now() + LASTS_SECONDS)
    await place.pass_time(LASTS_SECONDS - 1)
    assert await bench.status() == "in_progress" and await bench.numbers()
    await place.pass_time(2)
    assert await bench.others.find(ID, "key") is None
    assert await bench.others.jobs() == [] and await bench.numbers() == []
    assert await spool.end(bench.encoder)  # too late: it is there no more
