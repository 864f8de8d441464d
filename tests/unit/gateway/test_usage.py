"""Usage: gathered, flushed, summed, exported."""

import asyncio
import csv
import io
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.events import Usage
from qwen_proxy.gateway import usage as recording
from qwen_proxy.gateway.usage import UsageRecorder
from qwen_proxy.gateway.usage_report import Axis, UsageLine, as_csv, summed
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.state.store import DAY_SECONDS, HOUR_SECONDS, UsageCounts, UsageKey
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.line import Line

USAGE = Usage(prompt_tokens=10, completion_tokens=7, reasoning_tokens=2)


class Away(MemoryStore):
    is_away = False

    async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        await super().add_usage(counts)


def note(recorder: UsageRecorder, key: str = "k", *, usage: Usage | None = USAGE, has_failed: bool = False) -> None:
    recorder.note(key_id=key, account_id="a", model="m", feature="chat", usage=usage, has_failed=has_failed)


async def test_requests_are_added_up_by_hour_and_day() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    recorder = UsageRecorder(store, clock)
    async with recorder:
        note(recorder)
        note(recorder, usage=None, has_failed=True)
        await clock.advance(1.5)
        await clock.advance(HOUR_SECONDS)
        note(recorder)
        await clock.advance(1.5)
    hours = await store.usage(0, clock.now() + 1)
    assert list(hours.values()) == [
        UsageCounts(requests=2, failures=1, prompt_tokens=10, completion_tokens=7, reasoning_tokens=2),
        UsageCounts(requests=1, prompt_tokens=10, completion_tokens=7, reasoning_tokens=2),
    ]
    days = await store.usage(0, clock.now() + 1, by_day=True)
    assert sum(counts.requests for counts in days.values()) == 3
    assert all(row.starts_at % DAY_SECONDS == 0 for row in days)


async def test_a_store_that_was_away_gets_it_later() -> None:
    clock = FakeClock()
    store = Away(clock)
    recorder = UsageRecorder(store, clock)
    store.is_away = True
    note(recorder)
    await recorder.flush()
    await recorder.flush()
    note(recorder)
    store.is_away = False
    await recorder.flush()
    await recorder.flush()
    (counts,) = (await store.usage(0, clock.now() + 1)).values()
    assert counts.requests == 2


async def test_what_is_gathered_at_the_end_is_added_then() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    async with UsageRecorder(store, clock) as recorder:
        note(recorder)
    (counts,) = (await store.usage(0, clock.now() + 1)).values()
    assert counts.requests == 1


async def test_what_is_being_added_at_the_end_is_added_once() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    line = Line(store)
    recorder = UsageRecorder(line, clock)
    await recorder.__aenter__()
    note(recorder)
    line.opened.clear()
    await clock.advance(1.0)
    note(recorder)
    leaving = asyncio.gather(recorder.__aexit__(None, None, None))
    await clock.settle()
    line.opened.set()
    await leaving
    (counts,) = (await store.usage(0, clock.now() + 1)).values()
    assert counts.requests == 2


async def test_what_waits_for_a_store_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    store = Away(clock)
    recorder = UsageRecorder(store, clock)
    for number in range(recording.MOST_ROWS):
        note(recorder, f"k{number}", usage=None)
    note(recorder, "one more")
    note(recorder, "k7", usage=None)
    await recorder.flush()
    assert caplog.text.count("usage lost") == 1
    rows = await store.usage(0, clock.now() + 1)
    assert sum(counts.requests for counts in rows.values()) == recording.MOST_ROWS + 1


async def test_what_comes_back_from_a_store_has_to_find_room_too(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()

    class Busy(Away):
        """As many others come as may wait, while it is asked."""

        async def add_usage(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
            if self.is_away:
                for number in range(recording.MOST_ROWS):
                    note(recorder, f"k{number}")
            await super().add_usage(counts)

    store = Busy(clock)
    recorder = UsageRecorder(store, clock)
    store.is_away = True
    note(recorder, "one more")
    note(recorder, "k0")
    await recorder.flush()
    assert [record.__dict__["requests"] for record in caplog.records if "usage lost" in record.message] == [1]
    store.is_away = False
    await recorder.flush()
    rows = await store.usage(0, clock.now() + 1)
    assert sum(counts.requests for counts in rows.values()) == recording.MOST_ROWS + 1


def row(starts_at: int = 0, key: str = "k1", account: str = "a", model: str = "m") -> UsageKey:
    return UsageKey(starts_at=starts_at, key=key, account=account, model=model, feature="chat")


ONE = UsageCounts(requests=1, prompt_tokens=2, completion_tokens=3)


def test_sums_along_some_axes() -> None:
    rows = {row(): ONE, row(3600): ONE, row(key="k2"): ONE, row(key="k2", account="b"): ONE}
    assert summed(rows, ()) == [UsageLine(counts=ONE + ONE + ONE + ONE)]
    assert [(line.key, line.counts.requests) for line in summed(rows, (Axis.KEY,))] == [("k1", 2), ("k2", 2)]
    both = summed(rows, (Axis.ACCOUNT, Axis.KEY))
    assert [(line.account, line.key, line.counts.requests) for line in both] == [
        ("a", "k1", 2),
        ("a", "k2", 1),
        ("b", "k2", 1),
    ]
    assert [line.starts_at for line in summed(rows, (Axis.TIME, Axis.MODEL, Axis.FEATURE))] == [0, 3600]


def test_a_csv_file_names_times_and_keys() -> None:
    lines = summed({row(3600): ONE}, tuple(Axis))
    assert as_csv(lines, tuple(Axis), {"k1": "Ada, of course"}) == (
        "time,key,key_name,account,model,feature,"
        "requests,failures,prompt_tokens,completion_tokens,reasoning_tokens,total_tokens\n"
        '1970-01-01T01:00:00Z,k1,"Ada, of course",a,m,chat,1,0,2,3,0,5\n'
    )


@given(st.text())
def test_no_cell_is_a_formula_and_every_cell_is_read_as_it_was(name: str) -> None:
    text = as_csv(summed({row(model=name): ONE}, (Axis.MODEL,)), (Axis.MODEL,), {})
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[1][0].removeprefix("'") == name.removeprefix("'") or "\r" in name or "\n" in name or "\0" in name
    assert read[1][0][:1] not in ("=", "+", "-", "@")
