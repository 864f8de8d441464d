"""How long the stores work on a call: `python -m bench.service [--redis redis://127.0.0.1:6379]`; for `bench.scale`.

Prints milliseconds by call, one after the other in one process. Of SQLite, the time of the call, and the CPU time of
the whole process for it; of Redis, the time of the call, and the server's own for it, as the server tells. What is
written to the server is under a prefix of its own, and erased.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis.asyncio
import uvloop

from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.kinds import HEALTH
from qwen_proxy.state.store import (
    Charge,
    Draw,
    Hold,
    Kind,
    ProcessRow,
    Put,
    SlotsWanted,
    Store,
    UsageCounts,
    UsageKey,
)
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.storage.sqlite import SqliteStore

TIMES = 300
NAMES = tuple(f"account:user{number:04}@x.org" for number in range(256))
FLUSHED = Kind(name="bench_flushed")
HOUR = 1_800_000_000 // 3600 * 3600


def calls(store: Store) -> dict[str, Callable[[], Awaitable[object]]]:
    ends_at = time.time() + 3600
    draws = [Draw(name="rpm:k", ends_at=ends_at, limit=10**9, need=1, extra=5)]
    usage = {UsageKey(starts_at=HOUR, key="k", account=f"a{n}", model="m", feature="chat"): ONE for n in range(5)}

    def wanted(names: int) -> SlotsWanted:
        return SlotsWanted(names=NAMES[:names], capacity=10**6, need=1, extra=2)

    return {
        "beat": lambda: store.beat("p", is_hungry=False, status=b"x" * 200),
        "take of 1 name": lambda: store.take("p", wanted(1)),
        "take of 64": lambda: store.take("p", wanted(64)),
        "take of 256": lambda: store.take("p", wanted(256)),
        "take of 256, full": lambda: store.take("p", SlotsWanted(names=NAMES, capacity=1, need=1)),
        "give": lambda: store.give("p", [Hold(NAMES[0], 1)]),
        "draw": lambda: store.draw(draws),
        "charge": lambda: store.charge([Charge(name="rpm:k", ends_at=ends_at, amount=1)]),
        "usage of 5": lambda: store.add_usage(usage),
        "write of health": lambda: store.write([Put(kind=HEALTH, id="a", value=b"x" * 200)]),
        "write that is flushed": lambda: store.write([Put(kind=FLUSHED, id="a", value=b"x" * 200)]),
        "generation": store.generation,
        "changes, none": lambda: store.changes(10**9),
    }


ONE = UsageCounts(requests=1, prompt_tokens=100, completion_tokens=100)
ROW = ProcessRow(id="p", host="h", pid=1, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


async def measure(store: Store, server_seconds: Callable[[], Awaitable[float]], own: str) -> None:
    print(f"{'ms':24} {'call':>8} {own:>8}")
    async with store:
        await store.join(ROW, ())
        for name in NAMES:
            await store.take("p", SlotsWanted(names=(name,), capacity=1, need=1))
        for name, call in calls(store).items():
            await call()
            busy, start = await server_seconds(), time.perf_counter()
            for _ in range(TIMES):
                await call()
                if time.perf_counter() - start > 1:  # the process must live on
                    await store.beat("p", is_hungry=False, status=b"")
            took, busy = time.perf_counter() - start, await server_seconds() - busy
            print(f"{name:24} {took / TIMES * 1000:8.3f} {busy / TIMES * 1000:8.3f}")
        await store.erase()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", help="redis://host:port of a server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:

        async def own_seconds() -> float:
            return cpu_seconds()

        await measure(SqliteStore(Path(folder) / "x.db", SystemClock()), own_seconds, "CPU")
    if given.redis:
        server = redis.asyncio.Redis.from_url(given.redis)

        async def told_seconds() -> float:
            lines = str(await server.execute_command("INFO", "commandstats"))
            found = re.search(r"cmdstat_evalsha'?: ?\{?.*?'?usec'?[=:] ?(\d+)", lines)
            return int(found[1]) / 1e6 if found else 0.0

        await measure(RedisStore(Secret(given.redis), "bench-service", SystemClock()), told_seconds, "server")
        await server.aclose()


if __name__ == "__main__":
    uvloop.run(main())
