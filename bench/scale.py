"""`python -m bench.scale`: many replicas and accounts over one store, simulated in virtual time with the real code.

Prints, for each installation, what the store is asked, how long requests wait for an account, what lies idle, what
crashes cost, and where it ends. See docs/scale.md for how to read it. The same seed gives the same numbers.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from bench import virtual
from bench.queued import POLL_SECONDS, Service
from bench.world import SAMPLE_SECONDS, Case, World, living
from qwen_proxy.config.choices import Strategy

# As `python -m bench.service` measures them.
SERVICES = {
    "sqlite": Service(call=0.12, name=0.0013, flush=4.0, read=0.035, trip=0.03, has_one_queue=False),
    "redis": Service(call=0.035, name=0.0023, flush=0.0, read=0.02, trip=0.5, has_one_queue=True),
}


class Told(Struct, frozen=True, kw_only=True):
    """calls: a second. Parts of 1: store_busy, in_use, idle. waits: seconds, the median, that of 99 in 100, the
    longest. stranded: uses of accounts, at most. over: replies that began beyond an account's limit, and requests
    beyond a key's."""

    case: Case
    store: str
    calls: dict[str, float]
    requests: float
    store_busy: float
    longest_queue_seconds: float
    waits: tuple[float, float, float]
    in_use: float
    idle: float
    stranded: int
    stranded_seconds: float
    over: int
    failed: dict[str, int]
    took_seconds: float

    @property
    def calls_a_second(self) -> float:
        return sum(self.calls.values())

    @property
    def background(self) -> float:
        """Calls a second that go on without any request."""
        polls = 1.0 if self.case.service.has_one_queue else 1.0 / POLL_SECONDS
        return self.case.replicas * (1.0 + polls)

    @property
    def calls_a_request(self) -> float:
        return max(0.0, self.calls_a_second - self.background) / self.requests

    @property
    def most_requests(self) -> float:
        """A second, until the store is busy all the time, if there were accounts enough."""
        service = self.case.service
        idle_busy = self.case.replicas * service.call / 1000
        if service.has_one_queue:
            idle_busy += self.case.replicas * service.read / 1000
        each = max(1e-9, (self.store_busy - idle_busy) / self.requests)
        return (1.0 - idle_busy) / each


async def told_of(case: Case, store: str) -> Told:
    began = time.perf_counter()
    async with living(case) as world:
        for _ in range(case.crashes):
            await world.clock.sleep(case.seconds / (case.crashes + 1))
            await world.crash()
        if case.cut_seconds:
            await world.cut()
        await world.clock.sleep(max(1.0, case.seconds - SAMPLE_SECONDS * len(world.samples)))
        return _told(world, case, store, time.perf_counter() - began)


def _told(world: World, case: Case, store: str, took_seconds: float) -> Told:
    seconds = len(world.samples) * SAMPLE_SECONDS
    truth = world.truth
    waits = sorted(truth.waits) or [0.0]
    return Told(
        case=case,
        store=store,
        calls={name: count / seconds for name, count in sorted(world.store.calls.items())},
        requests=truth.begun / seconds,
        store_busy=world.store.busy_seconds / seconds,
        longest_queue_seconds=world.store.longest_queue_seconds,
        waits=(statistics.median(waits), waits[int(0.99 * (len(waits) - 1))], waits[-1]),
        in_use=statistics.fmean(sample.in_use for sample in world.samples) / case.places,
        idle=statistics.fmean(sample.idle for sample in world.samples) / case.places,
        stranded=max(sample.stranded for sample in world.samples),
        stranded_seconds=max(world.stranded_seconds, default=0.0),
        over=world.over,
        failed=dict(sorted(truth.failed.items())),
        took_seconds=took_seconds,
    )


# --- what is simulated -------------------------------------------------------------------------------------


def installations(quick: bool) -> list[tuple[str, Case]]:
    """What the plan is for: of each size, at four fifths of what its accounts can hold, with a crash."""
    sizes = {
        "sqlite": [(1, 10), (4, 10), (4, 100), (4, 1000), (16, 100), (16, 1000)],
        "redis": [(4, 100), (16, 10), (16, 100), (16, 1000), (100, 100), (100, 1000)],
    }
    if quick:
        sizes = {"sqlite": [(4, 10), (4, 100)], "redis": [(16, 100)]}
    return [
        (store, Case(replicas=replicas, accounts=accounts, load=0.8, service=SERVICES[store], crashes=1))
        for store, each in sizes.items()
        for replicas, accounts in each
    ]


def loads(quick: bool) -> list[tuple[str, Case]]:
    """One installation, from idle to more than it can hold, and with conversations kept to their accounts."""
    middle = Case(replicas=16, accounts=100, load=0.8, service=SERVICES["redis"])
    several = (0.5, 1.2) if quick else (0.3, 0.5, 0.9, 1.0, 1.2)
    cases = [replace(middle, load=load) for load in several]
    return [("redis", case) for case in [*cases, replace(middle, strategy=Strategy.SESSION)]]


def mishaps(quick: bool) -> list[tuple[str, Case]]:
    """A store that is slow, one that is too slow, and a replica that loses its line to the store for 8 s while its
    replies go on, which is the one way to more uses than allowed."""
    middle = Case(replicas=16, accounts=100, load=0.8, service=SERVICES["redis"], reply_seconds=2.0)
    slow = [replace(middle, service=replace(middle.service, call=call)) for call in (1.0, 3.0, 30.0)]
    return [("redis", case) for case in ([] if quick else slow) + [replace(middle, cut_seconds=8.0)]]


COLUMNS = (
    ("store", 6),
    ("replicas", 8),
    ("accounts", 8),
    ("load", 5),
    ("req/s", 7),
    ("calls/s", 8),
    ("/request", 8),
    ("busy", 6),
    ("p50 ms", 7),
    ("p99 ms", 7),
    ("most ms", 8),
    ("in use", 6),
    ("idle", 6),
    ("dead", 5),
    ("back s", 6),
    ("over", 4),
    ("ends at", 8),
)


def line(told: Told) -> str:
    case = told.case
    p50, p99, most = told.waits
    words = (
        told.store,
        str(case.replicas),
        str(case.accounts),
        f"{case.load:.1f}" + ("s" if case.strategy is Strategy.SESSION else ""),
        f"{told.requests:.1f}",
        f"{told.calls_a_second:.0f}",
        f"{told.calls_a_request:.2f}",
        f"{told.store_busy:.1%}",
        f"{p50 * 1000:.1f}",
        f"{p99 * 1000:.1f}",
        f"{most * 1000:.0f}",
        f"{told.in_use:.0%}",
        f"{told.idle:.1%}",
        str(told.stranded) if case.crashes else "",
        f"{told.stranded_seconds:.1f}" if case.crashes else "",
        str(told.over),
        f"{told.most_requests:,.0f}",
    )
    return " ".join(word.rjust(width) for word, (_, width) in zip(words, COLUMNS, strict=True))


def heading() -> str:
    return " ".join(name.rjust(width) for name, width in COLUMNS)


def tell(cases: Iterable[tuple[str, Case]], *, details: bool) -> int:
    """Prints a line each; how many began beyond a limit in all."""
    print(heading())
    over = 0
    for store, case in cases:
        told = virtual.run(told_of(case, store))
        print(line(told), flush=True)
        if details:
            print("   ", {name: round(each, 1) for name, each in told.calls.items()}, told.failed)
            print(f"    took {told.took_seconds:.1f} s; longest queue {told.longest_queue_seconds * 1000:.1f} ms")
        over += 0 if case.cut_seconds else told.over
    return over


def given_service(case: Case, text: str) -> Service:
    words = [word.partition("=") for word in text.split(",") if word]
    return replace(case.service, **{name: float(value) for name, _, value in words})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few installations")
    parser.add_argument("--details", action="store_true", help="the store's calls a second, by name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--service", default="", help="the store's times in ms, such as call=0.2,trip=1 (see Service)")
    parser.add_argument("--one", help="one installation only: store,replicas,accounts,load,crashes")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # that accounts fail now and then is no news
    if given.one:
        store, replicas, accounts, load, crashes = given.one.split(",")
        case = Case(
            replicas=int(replicas),
            accounts=int(accounts),
            load=float(load),
            crashes=int(crashes),
            service=SERVICES[store],
        )
        tables = [[(store, case)]]
    else:
        tables = [installations(given.quick), loads(given.quick), mishaps(given.quick)]
    over = 0
    for table in tables:
        cases = [
            (store, replace(case, seed=given.seed, service=given_service(case, given.service))) for store, case in table
        ]
        over += tell(cases, details=given.details)
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
