"""What the suite over all stores can't ask of the memory store, since real time would have to pass for others."""

from qwen_proxy.state.store import TRACE_SECONDS, Delete, Draw, Kind, Put
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

WATCHED = Kind(name="watched", is_watched=True)


async def test_traces_of_deleted_records_are_swept_after_their_time() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    written = await store.write([Put(kind=WATCHED, id=id, value=b"") for id in ("kept", "old")])
    await store.write([Delete(kind=WATCHED, id="old")])
    await clock.advance(TRACE_SECONDS - 1)
    await store.sweep()
    assert [gone.id for gone in (await store.changes(written.generation)).gone] == ["old"]
    await clock.advance(2)
    await store.sweep()
    assert not (await store.changes(written.generation)).is_complete
    now = await store.generation()
    assert (await store.changes(now)).is_complete
    await store.write([Put(kind=WATCHED, id="kept", value=b"2")])
    assert [record.id for record in (await store.changes(now)).records] == ["kept"]


async def test_what_has_ended_takes_no_memory_behind_a_sweep() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    before = len(repr(vars(store)))
    for number in range(50):
        await store.write([Put(kind=WATCHED, id=f"{number}", value=b"", lasts_seconds=5)])
        await store.draw([Draw(name=f"{number}", ends_at=clock.now() + 5, limit=1, need=1)])
    await clock.advance(TRACE_SECONDS + 10)
    await store.sweep()
    assert len(repr(vars(store))) < before + 100
