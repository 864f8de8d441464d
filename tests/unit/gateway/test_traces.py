"""Traces: kept for an hour, found by any process, lost rather than in anybody's way."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence

from msgspec import structs

from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import ChatRequest, ImagePart, Message, Role, TextPart, Tool, ToolCallPart, ToolResultPart
from qwen_proxy.gateway.prompted_tools import ToolReply
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.traces import AT_ONCE, KEPT_SECONDS, MOST_WAITING, PAGE, TraceBook, tools_header
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.request_id import request_id
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.kinds import TRACE
from qwen_proxy.state.store import Change, Kind, Put, Record, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.toolcalls.conversation import tell
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.reading import CallReading, ReadingOptions
from qwen_proxy.toolcalls.report import CallFacts, InvalidCall
from tests.support.clock import FakeClock

VAULT = Vault(new_document())


class FlakyStore(MemoryStore):
    """Counts writes, and can't be reached for a while."""

    is_away = False
    writes = 0
    records_read = 0
    while_writing: Callable[[], object] = staticmethod(lambda: None)

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        found = await super().find(kind, after=after, limit=limit)
        self.records_read += len(found)
        return found

    async def write(self, changes: Sequence[Change]) -> Written:
        self.writes += 1
        self.while_writing()
        if self.is_away:
            raise StoreUnavailable("gone")
        return await super().write(changes)


def book(store: MemoryStore, clock: FakeClock) -> TraceBook:
    return TraceBook(store, VAULT, clock, SystemIds())


async def nothing() -> AsyncGenerator[Batch]:
    for batch in list[Batch]():
        yield batch


def tool_reply(request: ChatRequest) -> ToolReply:
    told = tell(request)
    assert told.compiled is not None
    reading = CallReading(
        told.compiled.toolbox, form=MARKERS, nonce=told.nonce, options=ReadingOptions(), ids=lambda: "call_1"
    )
    return ToolReply(nothing(), reading, request, told, told.compiled, MARKERS.id)


ASKED = ChatRequest(
    model=ModelName("m"), messages=(Message(Role.USER, (TextPart("go"),)),), tools=(Tool("Read", "Reads."),)
)
CALL, IMAGE = ToolCallPart("c", "Read", "{}"), ToolResultPart("c", (ImagePart("data:,"), TextPart("x" * 30_000)))
AGAIN = (Message(Role.ASSISTANT, (CALL,)), Message(Role.USER, (IMAGE,)))


async def test_a_trace_is_found_at_once_here_and_once_it_is_written_elsewhere():
    clock = FakeClock()
    store = MemoryStore(clock)
    here, there = book(store, clock), book(store, clock)
    here.note(Trace("r1", tries=2, failures=["ReplyCut"], verdicts=["call_invalid"]), key_id="k", has_failed=False)
    found = await here.find("r1")
    assert found is not None and (found.key_id, found.tries, found.verdicts) == ("k", 2, ("call_invalid",))
    assert await there.find("r1") is None
    await here.flush()
    assert await there.find("r1") == found == await here.find("r1")
    await clock.advance(KEPT_SECONDS + 1)
    assert await there.find("r1") is None


async def test_many_go_in_few_writes():
    clock = FakeClock()
    store = FlakyStore(clock)
    here = book(store, clock)
    for number in range(AT_ONCE + 1):
        here.note(Trace(f"r{number}"), key_id="k", has_failed=False)
    await here.flush()
    await here.flush()
    assert store.writes == 2
    there = book(store, clock)
    for id in ("r0", f"r{AT_ONCE // 2}", f"r{AT_ONCE}"):
        found = await there.find(id)
        assert found is not None and found.request_id == id
    assert await there.find("r") is None  # the beginning of others


async def test_a_store_that_is_away_costs_nothing_but_the_oldest():
    clock = FakeClock()
    store = FlakyStore(clock)
    here = book(store, clock)
    store.is_away = True
    for number in range(MOST_WAITING + 1):
        here.note(Trace(f"r{number}"), key_id="k", has_failed=True)
    await here.flush()
    await here.flush()
    assert await here.find("r0") is None and await here.find("r1") is not None
    store.is_away = False
    await here.flush()
    assert await book(store, clock).find(f"r{MOST_WAITING}") is not None


async def test_what_is_noted_while_its_like_is_written_is_written_too():
    clock = FakeClock()
    store = FlakyStore(clock)
    here = book(store, clock)

    def again() -> None:
        if store.writes == 1:
            here.note(Trace("r1", tries=2), key_id="k", has_failed=False)

    store.while_writing = again
    here.note(Trace("r1", tries=1), key_id="k", has_failed=True)
    await here.flush()
    await here.flush()
    assert store.writes == 2


async def test_what_comes_while_others_are_written_waits_for_the_next_second():
    clock = FakeClock()
    store = FlakyStore(clock)
    here = book(store, clock)
    coming = iter(range(1, 1000))
    store.while_writing = lambda: here.note(Trace(f"r{next(coming)}"), key_id="k", has_failed=False)
    here.note(Trace("r0"), key_id="k", has_failed=False)
    await here.flush()
    assert store.writes == 1, "busy as it may be, each second has its own few records"
    await here.flush()
    assert store.writes == 2
    assert await book(store, clock).find("r1") is not None


async def test_they_are_written_each_second_and_when_it_is_left():
    clock = FakeClock()
    store = FlakyStore(clock)
    async with book(store, clock) as here:
        here.note(Trace("r1"), key_id="k", has_failed=False)
        await clock.advance(1)
        assert store.writes == 1
        here.note(Trace("r2"), key_id="k", has_failed=False)
    assert store.writes == 2


async def test_what_another_version_wrote_is_as_if_it_were_not_there():
    clock = FakeClock()
    store = MemoryStore(clock)
    await store.write([Put(kind=TRACE, id="0000000001.a", value=b"of r1, in an odd form")])
    assert await book(store, clock).find("r1") is None


async def test_one_among_many_is_found_by_when_it_came():
    clock = FakeClock()
    store = FlakyStore(clock)
    here, there = book(store, clock), book(store, clock)
    wanted = ""
    for second in range(3 * PAGE):
        id = request_id(clock.now(), "ab" * 8)
        wanted = id if second == 2 * PAGE else wanted
        here.note(Trace(id), key_id="k", has_failed=False)
        await here.flush()
        await clock.advance(1)
    found = await there.find(wanted)
    assert found is not None and found.request_id == wanted
    assert store.records_read <= PAGE
    assert await there.find(request_id(clock.now(), "cd" * 8)) is None
    assert await there.find("x" * 500) is None


async def test_what_the_tools_did_is_told_in_names_and_numbers():
    clock = FakeClock()
    here = book(MemoryStore(clock), clock)
    reply = tool_reply(structs.replace(ASKED, messages=(*ASKED.messages, *AGAIN, *AGAIN)))
    reply.report.calls.append(CallFacts(call_id="call_1", name="Read", form="taught"))
    reply.report.invalid.append(InvalidCall(name="N" * 100, form="taught", errors=("secret",), text="secret"))
    reply.report.repairs.update(Counter(quotes=2))
    here.note(Trace("r1", tools=reply), key_id="k", has_failed=False)
    found = await here.find("r1")
    assert found is not None and found.tools is not None
    assert (found.tools.form, found.tools.tier, found.tools.calls) == ("markers-1", "T0", ("Read",))
    assert (found.tools.forms, found.tools.repairs, found.tools.invalid) == ({"taught": 1}, {"quotes": 2}, ("N" * 64,))
    assert (found.tools.trimmed_results, found.tools.hidden_images, found.tools.repeats_calls) == (2, 2, True)
    assert "secret" not in repr(found)
    assert tools_header(reply) == "T0; bytes=22; trimmed=2; images-hidden=2; repeated"
    assert tools_header(tool_reply(ASKED)) == "T0; bytes=22"
