"""Round trips to a store: `python -m bench.store` for SQLite in a temporary folder, `--redis URL` for that server.

Each process takes a slot and gives it back, over and over, with `--tasks` as many at a time. Prints microseconds of one
take and one give together, over all processes: with a rest between, as an installation has it, where a process comes
for slots now and then, and with all of them at it all the time.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import Kind, ProcessRow, Put, SlotsWanted, Store
from qwen_proxy.storage.opening import FilePlace, RedisPlace, open_store

FLUSHED = Kind(name="flushed")
PREFIX = "qwen-proxy-bench"


async def trade(where: str, number: int, seconds: float, rest_seconds: float, names: int, flushes: float, tasks: int):
    row = ProcessRow(
        id=f"p{number}", host="", pid=os.getpid(), started_at=0.0, beat_at=0.0, is_hungry=False, status=b""
    )
    place = RedisPlace(Secret(where), PREFIX) if "://" in where else FilePlace(Path(where))
    async with open_store(place, SystemClock()) as store:
        await store.join(row, ())
        trades = (trading(store, row.id, seconds, rest_seconds, names, flushes) for _ in range(tasks))
        took = list(itertools.chain.from_iterable(await asyncio.gather(*trades)))
        await store.leave(row.id)
    print(" ".join(f"{each * 1e6:.0f}" for each in took))


async def trading(
    store: Store, process: str, seconds: float, rest_seconds: float, names: int, flushes: float
) -> list[float]:
    wanted = SlotsWanted(names=tuple(f"account:{n:04}" for n in range(names)), capacity=100, need=1)
    took: list[float] = []
    end = time.perf_counter() + seconds
    flushed_at = beat_at = time.perf_counter()
    while (start := time.perf_counter()) < end:
        taken = await store.take(process, wanted)
        await store.give(process, taken.holds)
        took.append(time.perf_counter() - start)
        if time.perf_counter() - beat_at > 1:
            beat_at = time.perf_counter()
            await store.beat(process, is_hungry=False, status=b"")
        if flushes and time.perf_counter() - flushed_at > 1 / flushes:
            flushed_at = time.perf_counter()
            await store.write([Put(kind=FLUSHED, id=process, value=b"x" * 500)])
        if rest_seconds:
            await asyncio.sleep(rest_seconds)
    return took


def run(
    processes: int, seconds: float, rest_seconds: float, names: int, flushes: float, tasks: int, redis: str | None
) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        each = [sys.executable, "-m", "bench.store", "--path", redis or f"{folder}/x.db", "--seconds", str(seconds)]
        each += ["--rest", str(rest_seconds), "--names", str(names), "--flushes", str(flushes), "--tasks", str(tasks)]
        running = [
            subprocess.Popen([*each, "--number", str(number)], stdout=subprocess.PIPE, text=True)
            for number in range(processes)
        ]
        took = sorted(float(word) for process in running for word in process.communicate()[0].split())
    last = len(took) - 1
    print(
        f"{processes} processes of {tasks}, {names} names, rest {rest_seconds * 1000:g} ms, {flushes:g} writes/s: "
        f"{len(took) / seconds:.0f}/s, p50 {statistics.median(took):.0f} µs, p90 {took[int(last * 0.9)]:.0f}, "
        f"p99 {took[int(last * 0.99)]:.0f}, most {took[-1]:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path")
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rest", type=float, default=0.0)
    parser.add_argument("--names", type=int, default=4)
    parser.add_argument("--flushes", type=float, default=0.0)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--redis")
    given = parser.parse_args()
    if given.path:
        measured = trade(given.path, given.number, given.seconds, given.rest, given.names, given.flushes, given.tasks)
        uvloop.run(measured)
        return
    for rest, names, flushes in ((0.005, 4, 0.0), (0.005, 4, 5.0), (0.0, 4, 0.0), (0.005, 1000, 0.0)):
        run(given.processes, given.seconds, rest, names, flushes, given.tasks, given.redis)


if __name__ == "__main__":
    main()
