"""One process that counts in a shared store, for tests of several: `python -m tests.support.counting_store URL PREFIX
N`.

N times it adds one to two records in one write that names the versions it read, and a line of the log with it; and it
takes a slot of which there is one, adds one to a third record without naming a version, and gives it back. It prints
how often another was faster.
"""

import asyncio
import os
import sys

from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import Append, Conflict, Kind, ProcessRow, Put, SlotsWanted, Store
from qwen_proxy.storage.redis import RedisStore

NUMBER = Kind(name="number", is_watched=True)
TOPIC = "counted"
PAIR = ("left", "right")
GUARDED = "guarded"
SLOT = SlotsWanted(names=("guard",), capacity=1, need=1)


async def read(store: Store, id: str) -> tuple[int, int]:
    """Version and number."""
    record = await store.get(NUMBER, id)
    return (0, 0) if record is None else (record.version, int(record.value))


async def add_to_pair(store: Store) -> int:
    conflicts = 0
    while True:
        found = [await read(store, id) for id in PAIR]
        changes = [
            Put(kind=NUMBER, id=id, value=b"%d" % (number + 1), expect=version)
            for id, (version, number) in zip(PAIR, found, strict=True)
        ]
        try:
            await store.write([*changes, Append(topic=TOPIC, value=b"+1")])
            return conflicts
        except Conflict:
            conflicts += 1


async def add_guarded(store: Store, process: str) -> None:
    while not (taken := await store.take(process, SLOT)).holds:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    _, number = await read(store, GUARDED)
    await store.write([Put(kind=NUMBER, id=GUARDED, value=b"%d" % (number + 1))])
    await store.give(process, taken.holds)


async def main(url: str, prefix: str, times: int) -> None:
    process = f"process {os.getpid()}"
    row = ProcessRow(id=process, host="", pid=os.getpid(), started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")
    conflicts = 0
    async with RedisStore(Secret(url), prefix, SystemClock()) as store:
        await store.join(row, ())
        for _ in range(times):
            conflicts += await add_to_pair(store)
            await add_guarded(store, process)
            await store.beat(process, is_hungry=False, status=b"")
        await store.leave(process)
    sys.stdout.write(f"{conflicts}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
