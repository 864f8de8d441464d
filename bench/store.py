"""Round trips to the SQLite store: `python -m bench.store`. Each process takes a slot and gives it back, over and over.

Prints microseconds of one take and one give together, over all processes: beside nothing (`--rest 1`: as an
installation has it, where a process comes for slots now and then) and with all of them at it all the time.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import Kind, ProcessRow, Put, SlotsWanted
from qwen_proxy.storage.sqlite import SqliteStore

FLUSHED = Kind(name="flushed")


async def trade(path: Path, number: int, seconds: float, rest_seconds: float, names: int, flushes: float) -> None:
    row = ProcessRow(
        id=f"p{number}", host="", pid=os.getpid(), started_at=0.0, beat_at=0.0, is_hungry=False, status=b""
    )
    wanted = SlotsWanted(names=tuple(f"account:{n:04}" for n in range(names)), capacity=4, need=1)
    took: list[float] = []
    async with SqliteStore(path, SystemClock()) as store:
        await store.join(row, ())
        end = time.perf_counter() + seconds
        flushed_at = time.perf_counter()
        while time.perf_counter() < end:
            start = time.perf_counter()
            taken = await store.take(row.id, wanted)
            await store.give(row.id, taken.holds)
            took.append(time.perf_counter() - start)
            if flushes and time.perf_counter() - flushed_at > 1 / flushes:
                flushed_at = time.perf_counter()
                await store.write([Put(kind=FLUSHED, id=f"r{number}", value=b"x" * 500)])
                await store.beat(row.id, is_hungry=False, status=b"")
            if rest_seconds:
                await asyncio.sleep(rest_seconds)
        await store.leave(row.id)
    print(" ".join(f"{each * 1e6:.0f}" for each in took))


def run(processes: int, seconds: float, rest_seconds: float, names: int, flushes: float) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        each = [sys.executable, "-m", "bench.store", "--path", f"{folder}/x.db", "--seconds", str(seconds)]
        each += ["--rest", str(rest_seconds), "--names", str(names), "--flushes", str(flushes)]
        running = [
            subprocess.Popen([*each, "--number", str(number)], stdout=subprocess.PIPE, text=True)
            for number in range(processes)
        ]
        took = sorted(float(word) for process in running for word in process.communicate()[0].split())
    last = len(took) - 1
    print(
        f"{processes} processes, {names} names, rest {rest_seconds * 1000:g} ms, {flushes:g} flushed writes/s each: "
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
    given = parser.parse_args()
    if given.path:
        uvloop.run(trade(Path(given.path), given.number, given.seconds, given.rest, given.names, given.flushes))
        return
    for rest, names, flushes in ((0.005, 4, 0.0), (0.005, 4, 5.0), (0.0, 4, 0.0), (0.005, 1000, 0.0)):
        run(given.processes, given.seconds, rest, names, flushes)


if __name__ == "__main__":
    main()
