"""The simulation of many replicas: its time, its store, and that it notices what it looks for."""

import asyncio

import pytest
from msgspec.structs import replace

from bench.queued import QueuedStore, Service
from bench.scale import SERVICES, Told, told_of
from bench.virtual import VirtualClock, run
from bench.world import Case, Truth, World
from qwen_proxy.config.choices import Strategy
from qwen_proxy.state.kinds import HEALTH
from qwen_proxy.state.store import ProcessRow, Put, SlotsWanted

SERVICE = Service(call=100.0, name=0.0, flush=0.0, read=10.0, trip=0.0, has_one_queue=True)
ROW = ProcessRow(id="p", host="h", pid=1, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")
CASE = Case(replicas=4, accounts=10, load=0.8, service=SERVICES["redis"], crashes=1)


def told(case: Case) -> Told:
    return replace(run(told_of(case, "redis")), took_seconds=0.0)


# --- time


def test_an_hour_passes_at_once_and_in_order() -> None:
    async def naps() -> list[float]:
        clock, woken = VirtualClock(), list[float]()

        async def nap(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(clock.monotonic())

        await asyncio.gather(nap(3600), nap(5), nap(60))
        return woken

    assert run(naps()) == pytest.approx([5, 60, 3600])


def test_what_can_never_end_is_an_error() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run(forever())


# --- the store


def times_of_reads_behind_a_write(service: Service) -> list[float]:
    async def ask() -> list[float]:
        clock = VirtualClock()
        store, done = QueuedStore(clock, service), list[float]()

        async def call(number: int) -> None:
            if number:
                await store.generation()
            else:
                await store.beat("p", is_hungry=False, status=b"")
            done.append(clock.monotonic())

        await asyncio.gather(*(call(number) for number in range(3)))
        assert store.calls == {"beat": 1, "generation": 2}
        return sorted(done)

    return run(ask())


def test_calls_queue_for_a_server_and_reads_of_a_file_do_not() -> None:
    assert times_of_reads_behind_a_write(SERVICE) == pytest.approx([0.1, 0.11, 0.12])
    assert times_of_reads_behind_a_write(replace(SERVICE, has_one_queue=False)) == pytest.approx([0.01, 0.01, 0.1])


def test_a_change_is_told_at_once_by_a_server_and_seen_with_the_next_look_in_a_file() -> None:
    async def heard() -> float:
        clock = VirtualClock()
        store = QueuedStore(clock, service)
        waiting = asyncio.ensure_future(store.wait(0, 10))  # noqa: TID251
        await clock.sleep(0.02)
        await store.write([Put(kind=HEALTH, id="a", value=b"")])
        assert await waiting == 1
        return clock.monotonic() - 0.12

    service = SERVICE
    assert run(heard()) == pytest.approx(0.01)
    service = replace(SERVICE, has_one_queue=False)
    assert run(heard()) == pytest.approx(0.15)  # looked at 0.01 and, a quarter of a second and a read later, at 0.27


def test_what_the_dead_hold_is_told_apart() -> None:
    async def hold() -> tuple[int, int]:
        store = QueuedStore(VirtualClock(), SERVICE)
        for name in ("p", "q"):
            await store.join(replace(ROW, id=name), ())
        await store.take("p", SlotsWanted(names=("a", "b"), capacity=2, need=3))
        await store.take("q", SlotsWanted(names=("a", "b"), capacity=2, need=3))
        return store.slots_of({"p"}), store.slots_of({"p", "q"})

    assert run(hold()) == (3, 4)


# --- the world


def test_one_reply_too_many_is_noticed() -> None:
    truth = Truth(2)
    for name in "aabab":
        truth.begin(name)
    assert (truth.over_admissions, truth.total) == (1, 5)
    truth.end("a")
    truth.begin("a")
    assert truth.over_admissions == 2


def test_requests_beyond_a_keys_limit_are_noticed() -> None:
    async def too_many() -> int:
        world = World(CASE)
        world.truth.tight.update({1.0: world.tight_limit, 2.0: world.tight_limit + 3})
        return world.over

    assert run(too_many()) == 3


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    first = told(CASE)
    assert told(CASE) == first
    assert told(replace(CASE, seed=2)).waits != first.waits


@pytest.mark.parametrize("strategy", [Strategy.LEAST_LOADED, Strategy.SESSION])
def test_nothing_is_granted_beyond_a_limit_and_what_the_dead_held_comes_back(strategy: Strategy) -> None:
    found = told(replace(CASE, strategy=strategy, load=1.2))
    assert found.over == 0
    assert 0 < found.stranded <= found.case.places
    assert 3.5 < found.stranded_seconds < 6.5
    assert found.in_use > 0.8
    assert found.requests > 0


def test_a_replica_that_is_cut_off_while_its_replies_go_on_makes_too_many() -> None:
    assert told(replace(CASE, crashes=0, cut_seconds=8.0, reply_seconds=20.0, load=1.0)).over > 0


def test_a_store_that_is_too_slow_costs_requests_and_no_limits() -> None:
    slow = replace(CASE, crashes=0, service=replace(CASE.service, call=200.0), reply_seconds=1.0)
    found = told(slow)
    assert found.store_busy > 0.9
    assert found.over == 0
