"""What others change, told to those who keep copies: nothing is missed, whatever fails on the way."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import TRACE_SECONDS, Delete, Kind, Put, Record
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.stores import ShakyStore

ONE = Kind(name="one", is_watched=True)
TWO = Kind(name="two", is_watched=True)


class Copy:
    """Of one kind: id -> value. `tellings` counts how often it was told something."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.tellings = 0

    def take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        self.tellings += 1
        for id in gone:
            self.values.pop(id, None)
        self.values.update({record.id: record.value for record in records})


class Watched:
    """A store, a reader of it, and a copy of each kind."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.others = MemoryStore(self.clock)  # as another process has it
        self.store = ShakyStore(self.others)
        self.watch = Watch(self.store, self.clock)
        self.one, self.two = Copy(), Copy()
        self.watch.subscribe(ONE, self.one.take)
        self.watch.subscribe(TWO, self.two.take)

    async def put(self, id: str, value: bytes = b"v", kind: Kind = ONE) -> None:
        await self.others.write([Put(kind=kind, id=id, value=value)])

    async def delete(self, id: str, kind: Kind = ONE) -> None:
        await self.others.write([Delete(kind=kind, id=id)])


async def test_loading_tells_everything_there_is() -> None:
    watched = Watched()
    await watched.store.write([Put(kind=ONE, id=f"{n}", value=b"%d" % n) for n in range(2500)])
    await watched.put("a", kind=TWO)
    await watched.watch.load()
    assert watched.one.values == {f"{n}": b"%d" % n for n in range(2500)}
    assert watched.two.values == {"a": b"v"}


async def test_catching_up_tells_what_has_changed_and_nothing_else() -> None:
    watched = Watched()
    await watched.put("kept")
    await watched.put("old")
    await watched.watch.load()
    told = watched.two.tellings
    await watched.put("kept", b"2")
    await watched.put("new")
    await watched.delete("old")
    await watched.put("a", kind=Kind(name="three", is_watched=True))  # which nobody has subscribed
    await watched.watch.catch_up()
    assert watched.one.values == {"kept": b"2", "new": b"v"}
    assert watched.two.tellings == told
    before = watched.one.tellings
    await watched.watch.catch_up()
    assert watched.one.tellings == before


async def test_each_subscriber_is_told() -> None:
    watched = Watched()
    another = Copy()
    watched.watch.subscribe(ONE, another.take)
    await watched.watch.load()
    await watched.put("a")
    await watched.watch.catch_up()
    assert watched.one.values == another.values == {"a": b"v"}


async def test_a_subscriber_that_fails_keeps_nobody_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    def fail(records: Sequence[Record], gone: Sequence[str]) -> None:
        raise ValueError("canary")

    another = Copy()
    watched.watch.subscribe(ONE, fail)
    watched.watch.subscribe(ONE, another.take)
    with caplog.at_level(logging.ERROR):
        await watched.watch.load()
        await watched.put("a")
        await watched.put("b", kind=TWO)
        await watched.watch.catch_up()
    assert watched.one.values == another.values == {"a": b"v"}
    assert watched.two.values == {"b": b"v"}
    assert "a change could not be taken" in caplog.text


async def test_what_is_too_long_ago_is_read_anew_and_what_is_gone_is_told() -> None:
    watched = Watched()
    await watched.put("kept")
    await watched.put("old")
    await watched.watch.load()
    await watched.delete("old")
    await watched.put("new")
    await watched.clock.advance(TRACE_SECONDS + 1)
    await watched.store.sweep()
    await watched.watch.catch_up()
    assert watched.one.values == {"kept": b"v", "new": b"v"}
    await watched.store.erase()
    await watched.put("last", kind=TWO)
    await watched.watch.catch_up()
    assert (watched.one.values, watched.two.values) == ({}, {"last": b"v"})


async def test_a_reading_anew_that_fails_half_way_is_done_again() -> None:
    watched = Watched()
    await watched.put("old")
    await watched.watch.load()
    await watched.store.erase()
    await watched.put("new", kind=TWO)

    def fall(records: Sequence[Record], gone: Sequence[str]) -> None:
        watched.store.is_down = bool(gone)  # once: as soon as the first kind was told

    watched.watch.subscribe(ONE, fall)
    with pytest.raises(StoreUnavailable):
        await watched.watch.catch_up()
    assert watched.two.values == {}
    watched.store.is_down = False
    await watched.watch.catch_up()
    assert watched.two.values == {"new": b"v"}


async def test_a_first_loading_that_fails_may_be_done_again() -> None:
    watched = Watched()
    await watched.put("a")
    watched.store.is_down = True
    with pytest.raises(StoreUnavailable):
        await watched.watch.load()
    watched.store.is_down = False
    await watched.watch.load()
    assert watched.one.values == {"a": b"v"}


# --- many who ask ------------------------------------------------------------------------------------------


async def test_who_asks_while_another_reads_is_told_what_was_written_meanwhile() -> None:
    watched = Watched()
    await watched.watch.load()
    watched.store.hang()
    async with Tasks() as tasks:
        tasks.spawn(watched.watch.catch_up(), name="the first: it reads before the write")
        await watched.clock.settle()
        await watched.put("a")
        second = tasks.spawn(watched.watch.catch_up(), name="the second")
        await watched.clock.settle()
        watched.store.go_on()
        await second
    assert watched.one.values == {"a": b"v"}


async def test_many_who_ask_at_a_time_share_a_reading() -> None:
    watched = Watched()
    await watched.watch.load()
    watched.store.hang()
    watched.store.asked.clear()
    async with Tasks() as tasks:
        asking = [tasks.spawn(watched.watch.catch_up(), name="asking") for _ in range(50)]
        await watched.clock.settle()
        watched.store.go_on()
        await asyncio.gather(*asking)
    assert watched.store.asked == ["changes", "changes"]  # that of the first, and one for all who came while it ran


async def test_who_waits_behind_a_reading_that_failed_reads_itself() -> None:
    watched = Watched()
    await watched.watch.load()
    watched.store.hang()
    watched.store.loses_answers = True
    outcomes: list[object] = []

    async def ask() -> None:
        try:
            await watched.watch.catch_up()
        except StoreUnavailable as error:
            outcomes.append(error)
        else:
            outcomes.append(dict(watched.one.values))
        watched.store.loses_answers = False

    async with Tasks() as tasks:
        asking = [tasks.spawn(ask(), name="asking") for _ in range(3)]
        await watched.clock.settle()
        await watched.put("a")
        watched.store.go_on()
        await asyncio.gather(*asking)
    assert isinstance(outcomes[0], StoreUnavailable)
    assert outcomes[1:] == [{"a": b"v"}] * 2


async def test_who_is_cancelled_while_it_reads_keeps_nobody_waiting() -> None:
    watched = Watched()
    await watched.watch.load()
    watched.store.hang()
    async with Tasks() as tasks:
        task = tasks.spawn(watched.watch.catch_up(), name="reading")
        await watched.clock.settle()
        await watched.put("a")
        task.cancel()
        await watched.clock.settle()
        watched.store.go_on()
        async with asyncio.timeout(5):
            await watched.watch.catch_up()
    assert watched.one.values == {"a": b"v"}


# --- the reader --------------------------------------------------------------------------------------------


async def test_running_it_tells_each_change_soon() -> None:
    watched = Watched()
    await watched.watch.load()
    async with Tasks() as tasks:
        tasks.spawn(watched.watch.run(), name="watch")
        for number in range(5):
            await watched.put("a", b"%d" % number)
            await watched.clock.advance(0.25)
            assert watched.one.values == {"a": b"%d" % number}
        await watched.clock.advance(60)  # several times of waiting in vain
        await watched.delete("a")
        await watched.clock.advance(0.25)
        assert watched.one.values == {}


async def test_it_goes_on_behind_an_outage_and_misses_nothing() -> None:
    watched = Watched()
    await watched.put("old")
    await watched.watch.load()
    async with Tasks() as tasks:
        tasks.spawn(watched.watch.run(), name="watch")
        await watched.clock.advance(1)
        watched.store.is_down = True
        await watched.put("a")
        await watched.clock.advance(30)
        assert watched.one.values == {"old": b"v"}
        await watched.delete("old")
        watched.store.is_down = False
        await watched.clock.advance(1)
        assert watched.one.values == {"a": b"v"}
