"""A process among others: valid while it is heard, back after a lapse with what it uses, and never two of a role."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

import msgspec
import pytest

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.membership import Membership, ProcessStatus, Role, statuses
from qwen_proxy.state.store import PROCESS_SECONDS, Beat, Hold, ProcessRow, SlotsWanted
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.stores import ShakyStore


class Slots:
    """A holder: `used` and `idle` by name."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.idle: dict[str, int] = {}
        self.is_hungry = False
        self.beats: list[Beat] = []

    def held(self) -> Iterable[Hold]:
        names = sorted({*self.used, *self.idle})
        return [Hold(name, self.used.get(name, 0) + self.idle.get(name, 0)) for name in names]

    def forget_idle(self) -> None:
        self.idle.clear()

    async def after_beat(self, beat: Beat) -> None:
        self.beats.append(beat)


class Keeper(Role):
    """A role whose beginnings and ends are written down."""

    def __init__(self) -> None:
        self.told: list[str] = []
        super().__init__("keeper", lambda: self.told.append("began"), lambda: self.told.append("ended"))


class Process:
    """A member with a connection of its own to the common store, and with slots; it competes for a role."""

    def __init__(self, world: "World", id: str) -> None:
        self.store = ShakyStore(world.store)
        self.membership = Membership(self.store, world.clock, id=id, host="h", pid=7)
        self.slots, self.keeper = Slots(), Keeper()
        self.membership.add(self.slots)
        self.membership.compete(self.keeper)


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)


def wanted(name: str, capacity: int = 3, need: int = 1) -> SlotsWanted:
    return SlotsWanted(names=(name,), capacity=capacity, need=need)


# --- validity ----------------------------------------------------------------------------------------------


async def test_a_member_is_valid_while_its_beats_are_answered() -> None:
    world = World()
    one = Process(world, "a")
    with pytest.raises(StoreUnavailable):
        one.membership.require()
    async with one.membership:
        for _ in range(20):
            one.membership.require()
            assert one.membership.is_valid
            await world.clock.advance(1)
        (row,) = await world.store.processes()
        assert (row.id, row.host, row.pid) == ("a", "h", 7)
    assert not one.membership.is_valid
    assert await world.store.processes() == []


async def test_a_process_that_is_not_heard_knows_it_before_the_others_do() -> None:
    world = World()
    one, other = Process(world, "a"), Process(world, "b")
    async with one.membership, other.membership:
        await world.clock.advance(1.5)
        one.store.is_down = True
        was_valid = True
        for _ in range(120):
            await world.clock.advance(0.05)
            is_there = any(row.id == "a" for row in await other.store.processes())
            assert is_there or not one.membership.is_valid
            was_valid = one.membership.is_valid
        assert not was_valid
        with pytest.raises(StoreUnavailable):
            one.membership.require()
        with pytest.raises(StoreUnavailable):
            await one.membership.take(wanted("x"))
        one.store.is_down = False


async def test_an_answer_counts_from_when_it_was_asked_for() -> None:
    world = World()
    one = Process(world, "a")
    async with one.membership:
        one.store.hang()
        await world.clock.advance(1)  # asked, and done there
        await world.clock.advance(3)
        one.store.go_on()
        await world.clock.settle()
        one.store.is_down = True
        await world.clock.advance(1.4)
        assert one.membership.is_valid
        await world.clock.advance(0.2)
        assert not one.membership.is_valid
        one.store.is_down = False


async def test_a_short_outage_costs_nothing() -> None:
    world = World()
    one = Process(world, "a")
    async with one.membership:
        one.slots.idle = {"x": 1}
        one.store.is_down = True
        await world.clock.advance(3)
        one.store.is_down = False
        await world.clock.advance(2)
        assert one.membership.is_valid
        assert one.keeper.told == ["began"]
        assert one.slots.idle == {"x": 1}


async def test_who_leaves_while_the_store_is_away_is_not_kept_from_it() -> None:
    world = World()
    one = Process(world, "a")
    async with one.membership:
        one.store.is_down = True
    assert not one.membership.is_valid


async def test_a_store_that_is_away_stops_the_start() -> None:
    world = World()
    one = Process(world, "a")
    one.store.is_down = True
    with pytest.raises(StoreUnavailable):
        async with one.membership:
            pass
    assert not one.membership.is_valid


# --- what is held ------------------------------------------------------------------------------------------


async def test_behind_a_lapse_what_is_in_use_is_held_anew_and_what_is_idle_is_given_up() -> None:
    world = World()
    one, other = Process(world, "a"), Process(world, "b")
    async with one.membership, other.membership:
        assert (await one.membership.take(wanted("x", need=3))).holds == (Hold("x", 3),)
        one.slots.used, one.slots.idle = {"x": 2}, {"x": 1}
        one.store.is_down = True
        await world.clock.advance(PROCESS_SECONDS + 1)
        assert (await other.membership.take(wanted("x", need=3))).holds == (Hold("x", 3),)
        one.store.is_down = False
        await world.clock.advance(1)
        assert one.membership.is_valid
        assert (one.slots.used, one.slots.idle) == ({"x": 2}, {})
        assert (await other.store.taken(""))["x"] == 5  # more than the capacity: it runs, whatever the count says


@pytest.mark.parametrize("call", ["take", "give"])
async def test_an_answer_that_was_lost_is_made_good_by_the_next_beat(call: str) -> None:
    world = World()
    one = Process(world, "a")
    async with one.membership:
        await one.membership.take(wanted("y", need=2))
        one.slots.used = {"y": 2}
        one.store.loses_answers = True
        if call == "take":
            with pytest.raises(StoreUnavailable):
                await one.membership.take(wanted("x", need=3))
            assert (await world.store.taken("x"))["x"] == 3
        else:
            del one.slots.used["y"]
            one.store.is_down = True
            await one.membership.give([Hold("y", 2)])
            one.store.is_down = False
        one.store.loses_answers = False
        await world.clock.advance(1.5)
        assert await world.store.taken("") == {"role:keeper": 1} | one.slots.used


async def test_a_take_that_is_cancelled_is_made_good_by_the_next_beat() -> None:
    world = World()
    one = Process(world, "a")

    async def take() -> None:
        await one.membership.take(wanted("x", need=3))

    async def give() -> None:
        await one.membership.give([Hold("y", 1)])

    async with one.membership, Tasks() as tasks:
        await one.membership.take(wanted("y", need=2))
        one.slots.idle = {"y": 1}
        for call in (take, give):
            one.store.hang()
            task = tasks.spawn(call(), name="trade")
            await world.clock.settle()
            task.cancel()
            await world.clock.settle()
            assert task.cancelled()
            one.store.go_on()
            await world.clock.advance(1)
            assert await world.store.taken("") == {"role:keeper": 1, "y": 1}


async def test_what_is_in_doubt_for_another_reason_is_told_with_the_next_beat() -> None:
    world = World()
    one = Process(world, "a")
    async with one.membership:
        one.slots.used = {"x": 2}
        one.membership.doubt()
        await world.clock.advance(1)
        assert (await world.store.taken("x")) == {"x": 2}


async def test_no_join_comes_between_the_parts_of_a_trade() -> None:
    """Else it would tell the store of a state from before the trade, and what was taken would belong to nobody."""
    world = World()
    one = Process(world, "a")

    async def take() -> None:
        taken = await one.membership.take(wanted("x", need=2))
        one.slots.idle = {hold.name: hold.count for hold in taken.holds}

    async with one.membership, Tasks() as tasks:
        one.membership.doubt()
        one.store.hang()
        tasks.spawn(take(), name="take")
        await world.clock.settle()
        beat = tasks.spawn(beat_once(one.membership), name="beat")
        await world.clock.settle()
        one.store.go_on()
        await beat
        assert await world.store.taken("x") == {"x": 2}


async def beat_once(membership: Membership) -> None:
    await membership.beat()


async def test_holders_hear_of_each_beat_and_are_heard() -> None:
    world = World()
    one, other = Process(world, "a"), Process(world, "b")
    async with one.membership, other.membership:
        one.slots.is_hungry = True
        await world.clock.advance(2)
        assert one.slots.beats[-1] == Beat(is_known=True, processes=2, others_are_hungry=False)
        assert other.slots.beats[-1].others_are_hungry
        assert one.membership.processes == 2
    assert len(one.slots.beats) >= 2


# --- roles -------------------------------------------------------------------------------------------------


async def test_one_has_the_role_and_another_takes_it_over_when_it_leaves() -> None:
    world = World()
    processes = [Process(world, id) for id in "abc"]
    async with AsyncExitStack() as stack:
        for process in processes[1:]:
            await stack.enter_async_context(process.membership)
        async with processes[0].membership:
            await world.clock.advance(3)
            assert [process.keeper.is_held for process in processes] == [False, True, False]
        assert processes[0].keeper.told == []
        await processes[1].membership.__aexit__()
        assert processes[1].keeper.told == ["began", "ended"]
        await world.clock.advance(1.1)
        assert [process.keeper.is_held for process in processes] == [False, False, True]


@pytest.mark.parametrize("kind", ["down", "hanging"])
async def test_never_two_have_the_role_and_soon_one_has_it_again(kind: str) -> None:
    """Whether the store refuses or does not answer: a process that hangs in a beat must not keep the role for long."""
    world = World()
    one, other = Process(world, "a"), Process(world, "b")
    async with one.membership, other.membership:
        await world.clock.advance(1.5)
        assert one.keeper.is_held
        if kind == "down":
            one.store.is_down = True
        else:
            one.store.hang()
        for _ in range(75):
            await world.clock.advance(0.1)
            assert not (one.keeper.is_held and other.keeper.is_held)
        assert other.keeper.is_held
        one.store.is_down = False
        one.store.go_on()
        await world.clock.advance(3)
        assert one.membership.is_valid and other.keeper.is_held
        assert (one.keeper.told, other.keeper.told) == (["began", "ended"], ["began"])


@pytest.mark.parametrize("kind", ["down", "hanging"])
async def test_a_role_given_up_just_before_the_end_is_not_lost_for_all(kind: str) -> None:
    """The store still counts it as held by this process, which does not have it any more."""
    world = World()
    one = Process(world, "a")
    async with one.membership:
        if kind == "down":
            one.store.is_down = True
        else:
            one.store.hang()
        await world.clock.advance(PROCESS_SECONDS - 0.4)
        assert one.keeper.told == ["began", "ended"]
        one.store.is_down = False
        one.store.go_on()
        await world.clock.advance(2.5)
        assert one.keeper.told == ["began", "ended", "began"]
        assert await world.store.taken("role:") == {"role:keeper": 1}


async def test_a_role_that_was_granted_too_late_is_not_taken() -> None:
    world = World()
    one = Process(world, "a")
    async with Tasks() as tasks:

        async def enter() -> None:
            async with one.membership:
                await asyncio.Event().wait()

        one.store.hang(behind=1)  # the join is answered, the question for the role is not
        tasks.spawn(enter(), name="enter")
        await world.clock.advance(PROCESS_SECONDS - 0.2)
        one.store.go_on()
        await world.clock.settle()
        assert one.keeper.told == []
        await world.clock.advance(2)
        assert one.keeper.told == ["began"]


# --- what each tells of itself -----------------------------------------------------------------------------


async def test_what_a_process_tells_of_itself_is_read_by_the_others() -> None:
    world = World()
    one, other = Process(world, "a"), Process(world, "b")
    one.membership.describe(lambda: ProcessStatus(label="worker-1", in_use={"a@x": 2}, waiting=3))
    async with one.membership, other.membership:
        await world.clock.advance(1)
        (_, first), (_, second) = statuses(await other.store.processes())
        assert first == ProcessStatus(label="worker-1", in_use={"a@x": 2}, waiting=3, roles=("keeper",))
        assert second == ProcessStatus()


@pytest.mark.parametrize("status", [b"", b"\xc1", msgspec.msgpack.encode(["x"]), b"\x81\xa5label\xa2\xff\xfe"])
def test_a_status_of_another_version_is_an_empty_one(status: bytes) -> None:
    row = ProcessRow(id="a", host="", pid=1, started_at=0.0, beat_at=0.0, is_hungry=False, status=status)
    assert statuses([row]) == [(row, ProcessStatus())]


async def test_who_is_there_for_a_moment_leaves_roles_to_others() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    visitor = Membership(store, clock, id="visitor", takes_roles=False)
    began: list[str] = []
    visitor.compete(Role("keeper", lambda: began.append("visitor"), lambda: None))
    async with visitor:
        await visitor.beat()
        assert began == []
        other = Membership(store, clock, id="other")
        other.compete(Role("keeper", lambda: began.append("other"), lambda: None))
        async with other:
            assert began == ["other"]
