"""What every store must do with records, the log and usage, and how it tells what has changed."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import (
    DAY_SECONDS,
    HOUR_SECONDS,
    TRACE_SECONDS,
    Append,
    Changes,
    Conflict,
    Delete,
    Gone,
    Kind,
    Put,
    Record,
    Store,
    UsageCounts,
    UsageKey,
)
from tests.conformance.stores import Place

PLAIN = Kind(name="plain")
OTHER = Kind(name="other", is_flushed=False)
WATCHED = Kind(name="watched", is_watched=True)
QUICK = Kind(name="quick", is_watched=True, is_flushed=False)
MOMENT = 0.3  # seconds that a record lasts
LONGER = 0.35


def put(
    id: str, value: bytes = b"v", kind: Kind = PLAIN, expect: int | None = None, lasts_seconds: float | None = None
) -> Put:
    return Put(kind=kind, id=id, value=value, expect=expect, lasts_seconds=lasts_seconds)


def ids(records: Sequence[Record]) -> list[str]:
    return [record.id for record in records]


async def values(store: Store, *ids: str, kind: Kind = PLAIN) -> list[bytes | None]:
    found = [await store.get(kind, id) for id in ids]
    return [None if record is None else record.value for record in found]


# --- records -----------------------------------------------------------------------------------------------


async def test_what_was_written_is_read_by_every_process(store: Store, other: Store) -> None:
    value = bytes(range(256)) * 300
    written = await store.write([put("a", value), put("b", b"")])
    assert written.versions == (1, 1)
    assert await other.get(PLAIN, "a") == Record(kind="plain", id="a", version=1, value=value)
    assert await values(other, "b", "c") == [b"", None]
    assert await other.get(OTHER, "a") is None


async def test_what_was_written_is_there_after_all_have_closed_it(place: Place) -> None:
    async with place.open() as first:
        await first.write([put("a", b"1"), put("w", b"2", WATCHED), Append(topic="t", value=b"line")])
        generation = await first.generation()
    async with place.open() as again:
        assert await values(again, "a") == [b"1"]
        assert await values(again, "w", kind=WATCHED) == [b"2"]
        assert [line.value for line in await again.log("t")] == [b"line"]
        assert await again.generation() == generation


async def test_any_text_is_an_id(store: Store) -> None:
    names = ["a'b\"c", "%_\\", "é", "漢字", "\N{PILE OF POO}", "x" * 512, "a\tb", "a:b/c*?[d]", " "]
    await store.write([put(name, name.encode()) for name in names])
    assert await values(store, *names) == [name.encode() for name in names]
    assert ids(await store.find(PLAIN)) == sorted(names)


async def test_versions_count_up(store: Store, other: Store) -> None:
    assert (await store.write([put("a")])).versions == (1,)
    assert (await other.write([put("a"), put("b")])).versions == (2, 1)
    assert (await store.write([put("b", expect=1), put("a", expect=2)])).versions == (2, 3)


async def test_a_record_that_was_deleted_is_gone(store: Store, other: Store) -> None:
    await store.write([put("a"), put("b")])
    await other.write([Delete(kind=PLAIN, id="a"), Delete(kind=PLAIN, id="never")])
    assert await values(store, "a", "b") == [None, b"v"]
    assert ids(await store.find(PLAIN)) == ["b"]
    assert (await store.write([put("a", expect=0)])).versions == (1,)


@pytest.mark.parametrize(
    ("id", "expect"), [("there", 0), ("there", 1), ("there", 3), ("missing", 1)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("is_delete", [False, True])
async def test_another_version_than_expected_is_a_conflict(store: Store, id: str, expect: int, is_delete: bool) -> None:
    await store.write([put("there", b"1")])
    await store.write([put("there", b"2")])
    change = Delete(kind=PLAIN, id=id, expect=expect) if is_delete else put(id, expect=expect)
    with pytest.raises(Conflict) as raised:
        await store.write([change])
    assert (raised.value.kind, raised.value.id) == ("plain", id)
    assert await values(store, "there", "missing") == [b"2", None]


async def test_nothing_of_a_write_with_a_conflict_is_done(store: Store) -> None:
    before = await store.write([put("a", b"old"), put("gone", b"old"), put("w", b"old", WATCHED)])
    with pytest.raises(Conflict):
        await store.write(
            [
                put("a", b"new"),
                Delete(kind=PLAIN, id="gone"),
                put("fresh", b"new"),
                put("w", b"new", WATCHED),
                Append(topic="t", value=b"line"),
                put("conflict", expect=4),
                put("behind", b"new"),
            ]
        )
    assert await values(store, "a", "gone", "fresh", "behind", "conflict") == [b"old", b"old", None, None, None]
    assert await values(store, "w", kind=WATCHED) == [b"old"]
    assert await store.log("t") == []
    assert await store.generation() == before.generation
    assert (await store.changes(before.generation)).records == ()


async def test_of_many_who_make_a_record_one_wins(store: Store, other: Store) -> None:
    async def make(which: Store, number: int) -> int | None:
        try:
            await which.write([put("a", b"%d" % number, expect=0)])
        except Conflict:
            return None
        return number

    made = await asyncio.gather(*(make(which, number) for number in range(20) for which in (store, other)))
    winners = [number for number in made if number is not None]
    assert len(winners) == 1
    assert await values(other, "a") == [b"%d" % winners[0]]


async def test_no_update_is_lost_among_many(store: Store, other: Store) -> None:
    async def add(which: Store) -> None:
        for _ in range(10):
            while True:
                record = await which.get(OTHER, "sum")
                version, value = (0, 0) if record is None else (record.version, int(record.value))
                try:
                    await which.write([put("sum", b"%d" % (value + 1), OTHER, expect=version)])
                except Conflict:
                    continue
                break

    await asyncio.gather(*(add(which) for _ in range(3) for which in (store, other)))
    record = await store.get(OTHER, "sum")
    assert record is not None
    assert (record.version, record.value) == (60, b"60")


async def test_a_record_lasts_as_long_as_it_was_given(store: Store, place: Place) -> None:
    before = place.now()
    await store.write([put("brief", lasts_seconds=MOMENT), put("long", lasts_seconds=3600.0), put("ever")])
    record = await store.get(PLAIN, "brief")
    assert record is not None and record.expires_at is not None
    assert before + MOMENT - 0.01 <= record.expires_at <= place.now() + MOMENT + 0.01
    assert await store.get(PLAIN, "ever") == Record(kind="plain", id="ever", version=1, value=b"v")
    await place.pass_time(LONGER)
    assert await values(store, "brief", "long", "ever") == [None, b"v", b"v"]
    assert ids(await store.find(PLAIN)) == ["ever", "long"]


async def test_an_expired_record_counts_as_none(store: Store, place: Place) -> None:
    await store.write([put("a", lasts_seconds=MOMENT), put("b", lasts_seconds=MOMENT)])
    await store.write([put("a", lasts_seconds=MOMENT)])
    await place.pass_time(LONGER)
    with pytest.raises(Conflict):
        await store.write([put("a", expect=2)])
    with pytest.raises(Conflict):
        await store.write([Delete(kind=PLAIN, id="b", expect=1)])
    assert (await store.write([put("a", b"anew", expect=0), put("b")])).versions == (1, 1)
    await place.pass_time(LONGER)
    await store.sweep()
    assert await values(store, "a", "b") == [b"anew", b"v"]


async def test_how_long_it_lasts_is_given_with_each_write(store: Store, place: Place) -> None:
    await store.write([put("kept", lasts_seconds=MOMENT), put("brief")])
    await store.write([put("kept"), put("brief", lasts_seconds=MOMENT)])
    await place.pass_time(LONGER)
    assert await values(store, "kept", "brief") == [b"v", None]


async def test_sweep_forgets_what_has_expired_and_nothing_else(store: Store, place: Place) -> None:
    await store.write([put("a", lasts_seconds=MOMENT), put("b"), put("w", kind=WATCHED, lasts_seconds=MOMENT)])
    await place.pass_time(LONGER)
    await store.sweep()
    assert ids(await store.find(PLAIN)) == ["b"]
    assert await store.find(WATCHED) == []
    assert await store.check() is None


async def test_find_goes_by_code_points_in_pages(store: Store) -> None:
    names = ["A", "Z", "a", "aa", "ab", "b", "é", "\uffee", "\N{PILE OF POO}"]
    await store.write([put(name) for name in reversed(names)])
    await store.write([put("c", kind=OTHER)])
    assert ids(await store.find(PLAIN)) == names
    assert ids(await store.find(PLAIN, limit=3)) == names[:3]
    assert ids(await store.find(PLAIN, after="a", limit=2)) == ["aa", "ab"]
    assert ids(await store.find(PLAIN, after="a!")) == names[3:]
    assert await store.find(PLAIN, after=names[-1]) == []
    assert await store.find(Kind(name="none")) == []


async def test_expired_records_take_no_room_on_a_page(store: Store, place: Place) -> None:
    await store.write([put(f"{n:02}", lasts_seconds=MOMENT if n % 2 else None) for n in range(40)])
    await place.pass_time(LONGER)
    assert ids(await store.find(PLAIN, limit=12)) == [f"{n:02}" for n in range(0, 24, 2)]
    assert ids(await store.find(PLAIN, after="22", limit=12)) == [f"{n:02}" for n in range(24, 40, 2)]


async def test_a_write_of_many_records_is_one_step(store: Store, other: Store) -> None:
    written = await store.write([put(f"{n:04}", b"%d" % n, WATCHED) for n in range(2000)])
    assert written.versions == (1,) * 2000
    page = await other.find(WATCHED, after="0999", limit=1000)
    assert (page[0].id, page[-1].id, len(page)) == ("1000", "1999", 1000)
    assert len((await other.changes(written.generation - 1)).records) == 2000


async def test_a_caller_who_is_cancelled_leaves_all_or_nothing_and_a_store_that_works(store: Store) -> None:
    async with Tasks() as tasks:

        async def write(number: int) -> None:
            await store.write([put(f"{number}a"), put(f"{number}b", kind=OTHER)])

        for turns in range(30):
            task = tasks.spawn(write(turns), name="writer")
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    await store.write([put("last")])  # behind all of them
    for number in range(30):
        assert (await store.get(PLAIN, f"{number}a") is None) == (await store.get(OTHER, f"{number}b") is None)
    assert await values(store, "last") == [b"v"]


# --- changes -----------------------------------------------------------------------------------------------


def told(changes: Changes) -> tuple[list[tuple[str, str, bytes]], list[Gone], bool]:
    records = sorted((record.kind, record.id, record.value) for record in changes.records)
    return records, sorted(changes.gone, key=lambda gone: (gone.kind, gone.id)), changes.is_complete


async def test_the_generation_grows_with_writes_of_watched_records_only(store: Store, other: Store) -> None:
    first = await store.generation()
    written = await store.write([put("a"), put("b", kind=OTHER), Append(topic="t", value=b"")])
    assert written.generation == first == await other.generation()
    second = (await store.write([put("a", kind=WATCHED), put("b")])).generation
    assert first < second == await other.generation()
    third = (await other.write([put("a", kind=QUICK)])).generation
    fourth = (await store.write([Delete(kind=WATCHED, id="a")])).generation
    assert second < third < fourth == await store.generation() == await other.generation()


async def test_changes_tell_the_newest_state_of_each_watched_record(store: Store, other: Store) -> None:
    start = await store.generation()
    await store.write([put("a", b"1", WATCHED), put("b", b"1", WATCHED), put("a", b"1", QUICK), put("plain")])
    middle = (await store.write([put("a", b"2", WATCHED)])).generation
    await store.write([put("c", b"1", WATCHED)])
    await other.write([Delete(kind=WATCHED, id="b"), put("d", b"1", WATCHED)])
    await other.write([Delete(kind=WATCHED, id="c")])
    last = await store.generation()

    records, gone, is_complete = told(await store.changes(start))
    assert records == [("quick", "a", b"1"), ("watched", "a", b"2"), ("watched", "d", b"1")]
    assert Gone(kind="watched", id="b") in gone and is_complete
    records, gone, is_complete = told(await other.changes(middle))
    assert records == [("watched", "d", b"1")] and is_complete
    assert Gone(kind="watched", id="b") in gone
    assert told(await store.changes(last)) == ([], [], True)
    assert (await store.changes(middle)).generation == last
    (version,) = {record.version for record in (await store.changes(start)).records if record.value == b"2"}
    assert version == 2


async def test_a_record_made_anew_is_not_gone(store: Store) -> None:
    await store.write([put("a", b"1", WATCHED)])
    start = await store.generation()
    await store.write([Delete(kind=WATCHED, id="a")])
    await store.write([put("a", b"2", WATCHED)])
    assert told(await store.changes(start)) == ([("watched", "a", b"2")], [], True)


async def test_an_expired_record_is_not_told_as_one_that_is_there(store: Store, place: Place) -> None:
    start = await store.generation()
    await store.write([put("a", kind=WATCHED, lasts_seconds=MOMENT)])
    await place.pass_time(LONGER)
    assert (await store.changes(start)).records == ()
    await store.sweep()
    assert (await store.changes(start)).records == ()


async def test_what_went_long_ago_is_known_no_more_and_that_is_told(store: Store, place: Place) -> None:
    await store.write([put("a", kind=WATCHED), put("b", kind=WATCHED), put("brief", kind=QUICK, lasts_seconds=MOMENT)])
    before = await store.generation()
    deleted = (await store.write([Delete(kind=WATCHED, id="a"), Delete(kind=WATCHED, id="b")])).generation
    anew = (await store.write([put("b", kind=WATCHED)])).generation
    await place.pass_time(TRACE_SECONDS / 2)
    await store.sweep()
    assert told(await store.changes(before)) == ([("watched", "b", b"v")], [Gone(kind="watched", id="a")], True)
    await place.pass_time(TRACE_SECONDS)
    await store.sweep()
    assert not (await store.changes(before)).is_complete
    assert told(await store.changes(deleted)) == ([("watched", "b", b"v")], [], True)
    assert told(await store.changes(anew)) == ([], [], True)


async def test_an_expired_record_leaves_no_trace_for_ever(store: Store, place: Place) -> None:
    start = await store.generation()
    await store.write([put("a", kind=WATCHED, lasts_seconds=MOMENT)])
    await place.pass_time(LONGER)
    await store.sweep()
    await place.pass_time(TRACE_SECONDS + 1)
    await store.sweep()
    assert not (await store.changes(start)).is_complete


async def test_a_generation_from_the_future_is_answered_as_too_old(store: Store) -> None:
    """So it is after a backup was put back: what a reader knows may not be there any more."""
    await store.write([put("a", kind=WATCHED)])
    generation = await store.generation()
    assert not (await store.changes(generation + 100)).is_complete
    assert (await store.changes(generation + 100)).generation == generation


async def waited(store: Store, place: Place, since: int, timeout_seconds: float, *, lead_seconds: float = 10.0) -> int:
    """What `wait` gives, while time passes."""
    found: list[int] = []

    async def wait() -> None:
        found.append(await store.wait(since, timeout_seconds))

    async with Tasks() as tasks:
        task = tasks.spawn(wait(), name="waiting")
        clock = SystemClock()
        end = clock.monotonic() + lead_seconds
        while not task.done() and clock.monotonic() < end:
            await place.pass_time(0.05)
            await asyncio.sleep(0.002)
    assert found, "still waiting"
    return found[0]


async def test_waiting_ends_with_a_change(store: Store, other: Store, place: Place) -> None:
    start = await store.generation()
    async with Tasks() as tasks:

        async def change() -> None:
            await asyncio.sleep(0.02)
            await other.write([put("a")])
            await other.write([put("a", kind=WATCHED)])

        tasks.spawn(change(), name="change")
        found = await waited(store, place, start, 1_000_000)
        await tasks.settle(5)
    assert found == await store.generation() > start


async def test_waiting_ends_at_once_when_there_was_a_change(store: Store) -> None:
    start = await store.generation()
    generation = (await store.write([put("a", kind=WATCHED)])).generation
    async with asyncio.timeout(5):
        assert await store.wait(start, 1_000_000) == generation
        assert await store.wait(generation + 7, 1_000_000) == generation


async def test_waiting_ends_after_its_time(store: Store, place: Place) -> None:
    start = await store.generation()
    assert await waited(store, place, start, 0.3) == start
    async with asyncio.timeout(5):
        assert await store.wait(start, 0) == start


# --- the log -----------------------------------------------------------------------------------------------


async def test_the_log_is_read_from_its_newest_line(store: Store, other: Store) -> None:
    for n in range(10):
        await (store, other)[n % 2].write([Append(topic="t", value=b"%d" % n), Append(topic="u", value=b"other")])
    newest = await store.log("t", limit=4)
    assert [line.value for line in newest] == [b"9", b"8", b"7", b"6"]
    older = await other.log("t", before=newest[-1].number, limit=100)
    assert [line.value for line in older] == [b"5", b"4", b"3", b"2", b"1", b"0"]
    numbers = [line.number for line in newest + older]
    assert numbers == sorted(set(numbers), reverse=True)
    assert await store.log("none") == []
    assert len(await store.log("u", limit=100)) == 10


async def test_a_line_comes_with_the_records_it_tells_of(store: Store, place: Place) -> None:
    before = place.now()
    await store.write([put("a"), Append(topic="t", value=b"1"), Append(topic="t", value=b"2"), put("b")])
    second, first = await store.log("t")
    assert (first.value, second.value) == (b"1", b"2")
    assert before - 0.01 <= first.at <= place.now() + 0.01
    assert await values(store, "a", "b") == [b"v", b"v"]


async def test_a_line_of_another_store_keeps_its_time(store: Store, place: Place) -> None:
    long_ago = place.now() - 1_000_000
    await store.write([Append(topic="t", value=b"1", at=long_ago), Append(topic="t", value=b"2", at=long_ago + 0.25)])
    assert [line.at - long_ago for line in await store.log("t")] == pytest.approx([0.25, 0.0], abs=1e-3)


async def test_old_lines_are_pruned_by_topic_and_numbers_go_on(store: Store, place: Place) -> None:
    await store.write([Append(topic="t", value=b"old"), Append(topic="u", value=b"old")])
    last = (await store.log("t"))[0].number
    await place.pass_time(0.1)
    middle = place.now()
    await place.pass_time(0.1)
    await store.prune_log("t", place.now())
    assert await store.log("t") == []
    await store.write([Append(topic="t", value=b"new")])
    await store.prune_log("t", middle)
    (line,) = await store.log("t")
    assert line.value == b"new" and line.number > last
    assert [line.value for line in await store.log("u")] == [b"old"]


# --- usage -------------------------------------------------------------------------------------------------

DAY = 1_800_000_000 // DAY_SECONDS * DAY_SECONDS


def at(hour: int, *, key: str = "k", account: str = "a", model: str = "m", feature: str = "chat") -> UsageKey:
    return UsageKey(starts_at=DAY + hour * HOUR_SECONDS, key=key, account=account, model=model, feature=feature)


def spent(requests: int, tokens: int = 0) -> UsageCounts:
    return UsageCounts(
        requests=requests,
        failures=requests // 2,
        prompt_tokens=tokens,
        completion_tokens=2 * tokens,
        reasoning_tokens=tokens // 3,
    )


async def test_usage_adds_up_by_hour_and_by_day(store: Store, other: Store) -> None:
    await store.add_usage({at(0): spent(1, 10), at(1): spent(2, 20), at(23): spent(3)})
    await other.add_usage({at(1): spent(4, 2**40), at(24): spent(5)})
    assert await store.usage(DAY, DAY + 2 * DAY_SECONDS) == {
        at(0): spent(1, 10),
        at(1): spent(2, 20) + spent(4, 2**40),
        at(23): spent(3),
        at(24): spent(5),
    }
    assert await other.usage(DAY, DAY + 2 * DAY_SECONDS, by_day=True) == {
        at(0): spent(1, 10) + spent(2, 20) + spent(4, 2**40) + spent(3),
        at(24): spent(5),
    }


async def test_usage_is_kept_apart_by_each_part_of_its_key(store: Store) -> None:
    keys = [at(0), at(0, key=""), at(0, account=""), at(0, model="M:|/\0"), at(0, feature="image")]
    await store.add_usage({key: spent(n) for n, key in enumerate(keys, 1)})
    await store.add_usage({})
    expected = {key: spent(n) for n, key in enumerate(keys, 1)}
    found = await store.usage(DAY, DAY + 1)
    assert found == expected
    assert list(found) == sorted(expected)
    assert await store.usage(DAY, DAY + 1, by_day=True) == expected


async def test_usage_is_asked_for_by_time(store: Store) -> None:
    await store.add_usage({at(hour): spent(1) for hour in (0, 1, 2, 24, 48)})
    assert list(await store.usage(DAY + HOUR_SECONDS, DAY + 2 * HOUR_SECONDS)) == [at(1)]
    assert list(await store.usage(DAY + 1, DAY + 2 * HOUR_SECONDS + 1)) == [at(1), at(2)]
    assert list(await store.usage(DAY + 1, DAY + 2 * DAY_SECONDS, by_day=True)) == [at(24)]
    assert await store.usage(0, DAY) == {}


async def test_usage_is_pruned_by_hours_and_by_days(store: Store) -> None:
    await store.add_usage({at(hour): spent(1) for hour in (0, 1, 24)})
    await store.prune_usage(DAY + HOUR_SECONDS)
    assert list(await store.usage(0, DAY * 2)) == [at(1), at(24)]
    assert await store.usage(0, DAY * 2, by_day=True) == {at(0): spent(1) + spent(1), at(24): spent(1)}
    await store.prune_usage(DAY + DAY_SECONDS, by_day=True)
    assert list(await store.usage(0, DAY * 2, by_day=True)) == [at(24)]
    assert list(await store.usage(0, DAY * 2)) == [at(1), at(24)]


# --- care --------------------------------------------------------------------------------------------------


async def test_a_whole_store_has_nothing_to_tell(store: Store) -> None:
    await store.write([put("a"), put("w", kind=WATCHED), Append(topic="t", value=b"")])
    await store.add_usage({at(0): spent(1)})
    assert await store.check() is None


async def test_erased_is_everything_and_readers_learn_of_it(store: Store, other: Store, place: Place) -> None:
    await store.write([put("a"), put("w", kind=WATCHED), Append(topic="t", value=b"")])
    await store.add_usage({at(0): spent(1)})
    generation = await other.generation()
    await store.erase()
    assert await values(other, "a") == [None]
    assert await other.find(WATCHED) == []
    assert await other.log("t") == []
    assert await other.usage(0, DAY * 2) == {}
    assert await other.usage(0, DAY * 2, by_day=True) == {}
    assert await waited(other, place, generation, 1_000_000) > generation
    assert not (await other.changes(generation)).is_complete
    assert (await store.write([put("a", expect=0)])).versions == (1,)
    assert (await other.write([put("w", kind=WATCHED, expect=0)])).versions == (1,)
