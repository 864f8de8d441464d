"""What every store must do with processes, slots and allowances: nothing is granted twice, nothing is stranded."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from qwen_proxy.state.store import (
    PROCESS_SECONDS,
    Charge,
    Draw,
    Drawn,
    Hold,
    ProcessRow,
    SlotsTaken,
    SlotsWanted,
    Store,
)
from tests.conformance.stores import Place

MOMENT = 0.3
LONGER = 0.35


def row(id: str, status: bytes = b"") -> ProcessRow:
    return ProcessRow(id=id, host="h", pid=7, started_at=1000.5, beat_at=0.0, is_hungry=False, status=status)


async def joined(store: Store, *ids: str) -> None:
    for id in ids:
        await store.join(row(id), ())


def wanted(
    names: str, capacity: int = 3, need: int = 1, extra: int = 0, *, is_spread: bool = True, prefix: str = ""
) -> SlotsWanted:
    """`names`: a letter each."""
    all_names = tuple(prefix + name for name in names)
    return SlotsWanted(names=all_names, capacity=capacity, need=need, extra=extra, is_spread=is_spread)


def counts(taken: SlotsTaken) -> dict[str, int]:
    assert all(hold.count > 0 for hold in taken.holds)
    assert len({hold.name for hold in taken.holds}) == len(taken.holds)
    return {hold.name: hold.count for hold in taken.holds}


# --- processes ---------------------------------------------------------------------------------------------


async def test_the_living_are_listed_by_id_as_they_told_of_themselves(store: Store, other: Store, place: Place) -> None:
    await store.join(row("b", b"\x00one"), ())
    await other.join(row("a"), ())
    await place.pass_time(0.1)
    asked_at = place.now()
    beat = await store.beat("b", is_hungry=True, status=b"two")
    assert (beat.is_known, beat.processes, beat.others_are_hungry) == (True, 2, False)
    first, second = await other.processes()
    assert (first.id, second.id) == ("a", "b")
    assert (second.host, second.pid, second.started_at) == ("h", 7, 1000.5)
    assert (second.is_hungry, second.status) == (True, b"two")
    assert asked_at - 0.01 <= second.beat_at <= place.now() + 0.01
    assert first.beat_at < asked_at


async def test_a_beat_tells_whether_others_are_hungry(store: Store) -> None:
    await joined(store, "a", "b", "c")
    assert not (await store.beat("a", is_hungry=True, status=b"")).others_are_hungry
    beat = await store.beat("b", is_hungry=False, status=b"")
    assert (beat.processes, beat.others_are_hungry) == (3, True)
    assert not (await store.beat("a", is_hungry=False, status=b"")).others_are_hungry
    assert not (await store.beat("c", is_hungry=False, status=b"")).others_are_hungry


async def test_a_process_without_beats_is_gone_and_its_slots_are_free(store: Store, other: Store, place: Place) -> None:
    await joined(store, "quiet", "alive")
    await store.take("quiet", wanted("xy", need=6))
    await place.pass_time(PROCESS_SECONDS / 2)
    assert (await other.beat("alive", is_hungry=True, status=b"")).processes == 2
    assert await other.taken("") == {"x": 3, "y": 3}
    await place.pass_time(PROCESS_SECONDS / 2 + 0.1)

    assert [each.id for each in await store.processes()] == ["alive"]
    assert await store.taken("") == {}
    assert counts(await other.take("alive", wanted("xy", need=6))) == {"x": 3, "y": 3}
    beat = await store.beat("quiet", is_hungry=False, status=b"")
    assert not beat.is_known and beat.processes == 1
    assert [each.id for each in await store.processes()] == ["alive"]
    assert (await store.take("quiet", wanted("z"))).holds == ()
    await store.give("quiet", [Hold("x", 1)])
    assert await store.taken("") == {"x": 3, "y": 3}

    await store.join(row("quiet"), [Hold("x", 2)])  # in use all the same
    assert await store.taken("") == {"x": 5, "y": 3}
    assert (await store.take("quiet", wanted("x", capacity=5))).holds == ()
    assert (await store.beat("quiet", is_hungry=False, status=b"")).others_are_hungry


@pytest.mark.parametrize("call", ["take", "beat of another", "draw"])
async def test_the_gone_are_found_by_whoever_calls_first(store: Store, place: Place, call: str) -> None:
    await joined(store, "gone")
    await store.take("gone", wanted("x", need=3))
    await place.pass_time(PROCESS_SECONDS - 1)
    await joined(store, "alive")
    await place.pass_time(1.1)
    if call == "take":
        assert counts(await store.take("alive", wanted("x", need=3))) == {"x": 3}
    elif call == "beat of another":
        assert (await store.beat("alive", is_hungry=False, status=b"")).processes == 1
    else:
        draw = Draw(name="n", ends_at=place.now() + 60, limit=10, need=1, extra=100)
        assert await store.draw([draw]) == [Drawn(granted=10, used=10)]  # alone, so all of it


async def test_who_leaves_frees_its_slots_at_once(store: Store, other: Store) -> None:
    await joined(store, "a", "b")
    await store.take("a", wanted("x", need=3))
    await store.take("b", wanted("y", need=1))
    await other.leave("a")
    await other.leave("never")
    assert [each.id for each in await store.processes()] == ["b"]
    assert await store.taken("") == {"y": 1}
    assert not (await store.beat("a", is_hungry=False, status=b"")).is_known


async def test_joining_anew_replaces_what_was_held(store: Store) -> None:
    await joined(store, "a")
    await store.take("a", wanted("xyz", need=3))
    await store.join(row("a"), [Hold("y", 5), Hold("w", 1), Hold("w", 1)])
    assert await store.taken("") == {"y": 5, "w": 2}
    assert len(await store.processes()) == 1
    await store.join(row("a"), ())
    assert await store.taken("") == {}


# --- slots -------------------------------------------------------------------------------------------------


async def test_never_more_than_the_capacity_is_granted(store: Store, other: Store) -> None:
    await joined(store, "a", "b")
    assert counts(await store.take("a", wanted("x", need=2))) == {"x": 2}
    assert counts(await other.take("b", wanted("x", need=2))) == {"x": 1}
    refused = await store.take("a", wanted("x"))
    assert (refused.holds, refused.full) == ((), ("x",))
    assert await store.taken("") == {"x": 3}


async def test_what_is_full_is_told_by_its_state_behind_the_grant(store: Store) -> None:
    await joined(store, "a")
    await store.take("a", wanted("y", need=3))
    taken = await store.take("a", wanted("xyz", need=3, is_spread=False))
    assert counts(taken) == {"x": 3}
    assert taken.full == ("x", "y")
    assert (await store.take("a", wanted("z"))).full == ()


async def test_spread_slots_come_from_the_names_with_the_fewest_taken(store: Store, other: Store) -> None:
    await joined(store, "a", "b")
    await other.take("b", wanted("x", need=2))
    await other.take("b", wanted("y", need=1))
    assert counts(await store.take("a", wanted("xyz"))) == {"z": 1}
    assert counts(await store.take("a", wanted("xyz"))) == {"y": 1}  # as few as z, and earlier
    assert counts(await store.take("a", wanted("xyz", need=2))) == {"x": 1, "z": 1}
    assert await store.taken("") == {"x": 3, "y": 2, "z": 2}


async def test_spread_slots_of_equal_names_go_by_order_and_level(store: Store) -> None:
    await joined(store, "a")
    assert counts(await store.take("a", wanted("zyx", need=2))) == {"z": 1, "y": 1}
    assert counts(await store.take("a", wanted("zyx", need=5))) == {"z": 2, "y": 1, "x": 2}


async def test_strict_slots_come_in_order(store: Store) -> None:
    await joined(store, "a")
    assert counts(await store.take("a", wanted("yx", need=4, is_spread=False))) == {"y": 3, "x": 1}
    assert counts(await store.take("a", wanted("yx", need=9, is_spread=False))) == {"x": 2}


async def test_alone_all_that_is_free_may_be_extra(store: Store) -> None:
    await joined(store, "a")
    assert counts(await store.take("a", wanted("xy", capacity=4, need=1, extra=2))) == {"x": 2, "y": 1}
    assert sum(counts(await store.take("a", wanted("xy", capacity=4, need=1, extra=99))).values()) == 5


async def test_with_others_about_extra_comes_only_out_of_plenty(store: Store) -> None:
    await joined(store, "a", "b")
    # 20 slots: one needed, of the 19 left a third.
    assert sum(counts(await store.take("a", wanted("xy", capacity=10, extra=99))).values()) == 1 + 6
    assert sum(counts(await store.take("a", wanted("xy", capacity=10, extra=2))).values()) == 1 + 2
    assert sum(counts(await store.take("b", wanted("xy", capacity=10, need=8, extra=99))).values()) == 8
    await joined(store, "c")
    # 2 slots left of 20: the need takes one, a fifth of one is none.
    assert sum(counts(await store.take("c", wanted("xy", capacity=10, extra=99))).values()) == 1


async def test_extra_alone_may_be_asked_for(store: Store) -> None:
    await joined(store, "a", "b")
    assert sum(counts(await store.take("a", wanted("x", capacity=9, need=0, extra=9))).values()) == 3
    assert await store.taken("") == {"x": 3}


async def test_a_forced_hold_beyond_the_capacity_blocks_until_it_is_given_back(store: Store) -> None:
    await store.join(row("a"), [Hold("x", 5)])
    await joined(store, "b")
    assert await store.take("b", wanted("x")) == SlotsTaken(holds=(), full=("x",))
    assert counts(await store.take("b", wanted("xy", need=9))) == {"y": 3}
    assert counts(await store.take("b", wanted("xz", need=1, is_spread=False))) == {"z": 1}
    await store.give("a", [Hold("x", 2)])
    assert (await store.take("b", wanted("x"))).holds == ()
    await store.give("a", [Hold("x", 1)])
    assert counts(await store.take("b", wanted("x"))) == {"x": 1}


async def test_a_capacity_that_shrank_grants_nothing_more(store: Store) -> None:
    await joined(store, "a")
    await store.take("a", wanted("xy", capacity=5, need=8))
    assert await store.take("a", wanted("xy", capacity=3)) == SlotsTaken(holds=(), full=("x", "y"))
    assert await store.take("a", wanted("x", capacity=0)) == SlotsTaken(holds=(), full=("x",))


async def test_what_was_given_back_is_free(store: Store, other: Store) -> None:
    await joined(store, "a", "b")
    await store.take("a", wanted("xy", need=6))
    await store.give("a", [Hold("x", 2), Hold("y", 1)])
    assert await other.taken("") == {"x": 1, "y": 2}
    assert counts(await other.take("b", wanted("xy", need=6))) == {"x": 2, "y": 1}


async def test_more_than_is_held_is_given_back_without_error_and_takes_from_nobody(store: Store) -> None:
    await joined(store, "a", "b")
    await store.take("a", wanted("x", need=1))
    await store.take("b", wanted("x", need=1))
    await store.give("a", [Hold("x", 9), Hold("none", 1)])
    await store.give("never", [Hold("x", 1)])
    await store.give("a", ())
    assert await store.taken("") == {"x": 1}
    assert counts(await store.take("a", wanted("x", need=9))) == {"x": 2}


async def test_a_process_that_never_joined_gets_nothing(store: Store) -> None:
    await joined(store, "a")
    assert (await store.take("never", wanted("x"))).holds == ()
    assert await store.taken("") == {}


async def test_slots_are_counted_by_prefix(store: Store) -> None:
    await joined(store, "a")
    await store.take("a", wanted("xy", need=2, prefix="account:"))
    await store.take("a", wanted("x", need=1, prefix="role:"))
    await store.take("a", wanted("*%_?[", need=5))
    assert await store.taken("account:") == {"account:x": 1, "account:y": 1}
    assert await store.taken("role:x") == {"role:x": 1}
    assert await store.taken("nobody:") == {}
    assert await store.taken("*") == {"*": 1}
    assert await store.taken("_") == {"_": 1}
    assert await store.taken("[") == {"[": 1}
    assert len(await store.taken("")) == 8


async def test_many_names_are_one_step(store: Store) -> None:
    await joined(store, "a")
    names = tuple(f"account:{n:04}" for n in range(1000))
    taken = await store.take("a", SlotsWanted(names=names, capacity=2, need=1500))
    assert len(taken.holds) == 1000 and sum(hold.count for hold in taken.holds) == 1500
    assert taken.full == names[:500]
    await store.give("a", taken.holds)
    assert await store.taken("account:") == {}


async def test_many_at_once_never_hold_more_than_there_is(store: Store, other: Store) -> None:
    """In a tumult of takes and gives the sum of what each believes to hold fits the capacity, and the store's count."""
    held: Counter[str] = Counter()
    most = 0

    async def trade(which: Store, process: str, seed: int) -> None:
        nonlocal most
        chance = random.Random(seed)
        mine: list[Hold] = []
        for _ in range(40):
            if mine and chance.random() < 0.5:
                back = mine.pop(chance.randrange(len(mine)))
                held[back.name] -= back.count
                await which.give(process, [back])
            else:
                taken = await which.take(process, wanted("xyz", 4, chance.randint(1, 3), chance.randint(0, 3)))
                for hold in taken.holds:
                    held[hold.name] += hold.count
                    mine.append(hold)
                most = max(most, *held.values(), 0)
                assert most <= 4

    await joined(store, "a", "b", "c", "d")
    await asyncio.gather(*(trade((store, other)[n % 2], process, n) for n, process in enumerate("abcd")))
    assert most == 4, "the tumult never filled a name"
    assert await store.taken("") == {name: count for name, count in held.items() if count}


# --- allowances --------------------------------------------------------------------------------------------


def granted(drawn: Sequence[Drawn]) -> list[int]:
    return [each.granted for each in drawn]


async def test_an_allowance_grants_all_that_is_needed_or_nothing(store: Store, other: Store, place: Place) -> None:
    end = place.now() + 3600
    assert await store.draw([Draw(name="n", ends_at=end, limit=10, need=4)]) == [Drawn(granted=4, used=4)]
    assert await other.draw([Draw(name="n", ends_at=end, limit=10, need=7)]) == [Drawn(granted=0, used=4)]
    assert await other.draw([Draw(name="n", ends_at=end, limit=10, need=6)]) == [Drawn(granted=6, used=10)]
    assert await store.draw([Draw(name="n", ends_at=end, limit=10, need=1)]) == [Drawn(granted=0, used=10)]
    assert await store.draw([Draw(name="n", ends_at=end, limit=12, need=1)]) == [Drawn(granted=1, used=11)]
    assert await store.draw([Draw(name="n", ends_at=end, limit=5, need=1)]) == [Drawn(granted=0, used=11)]


async def test_each_draw_of_a_call_stands_for_itself(store: Store, place: Place) -> None:
    end = place.now() + 3600
    draws = [
        Draw(name="few", ends_at=end, limit=1, need=2),
        Draw(name="many", ends_at=end, limit=10, need=2),
        Draw(name="many", ends_at=end, limit=10, need=9),
        Draw(name="many", ends_at=end, limit=10, need=8),
    ]
    assert granted(await store.draw(draws)) == [0, 2, 0, 8]
    assert await store.draw(()) == []


async def test_extra_is_drawn_out_of_plenty_only(store: Store, place: Place) -> None:
    end = place.now() + 3600
    await joined(store, "a")
    assert granted(await store.draw([Draw(name="alone", ends_at=end, limit=10, need=1, extra=5)])) == [6]
    assert granted(await store.draw([Draw(name="alone", ends_at=end, limit=10, need=1, extra=50)])) == [4]
    await joined(store, "b")
    drawn = await store.draw([Draw(name="two", ends_at=end, limit=100, need=10, extra=900)])
    assert drawn == [Drawn(granted=40, used=40)]  # a third of what is left
    drawn = await store.draw([Draw(name="two", ends_at=end, limit=100, need=59, extra=900)])
    assert drawn == [Drawn(granted=59, used=99)]
    assert granted(await store.draw([Draw(name="two", ends_at=end, limit=100, need=0, extra=3)])) == [0]


async def test_large_numbers_are_exact(store: Store, place: Place) -> None:
    end = place.now() + 3600
    limit = 2**53 - 1
    assert await store.draw([Draw(name="n", ends_at=end, limit=limit, need=limit - 1)]) == [
        Drawn(granted=limit - 1, used=limit - 1)
    ]
    assert granted(await store.draw([Draw(name="n", ends_at=end, limit=limit, need=2)])) == [0]
    assert await store.draw([Draw(name="n", ends_at=end, limit=limit, need=1)]) == [Drawn(granted=1, used=limit)]


async def test_an_allowance_ends_with_its_window(store: Store, place: Place) -> None:
    end = place.now() + MOMENT
    assert granted(await store.draw([Draw(name="n", ends_at=end, limit=5, need=5)])) == [5]
    await place.pass_time(LONGER)
    later = place.now() + 3600
    assert await store.draw([Draw(name="n", ends_at=later, limit=5, need=3)]) == [Drawn(granted=3, used=3)]
    await store.sweep()
    assert await store.draw([Draw(name="n", ends_at=later, limit=5, need=2)]) == [Drawn(granted=2, used=5)]


async def test_nothing_is_granted_from_a_window_that_has_ended(store: Store, place: Place) -> None:
    """Or each draw would be the first."""
    end = place.now() - 0.1
    await store.charge([Charge(name="n", ends_at=end, amount=1)])
    assert await store.draw([Draw(name="n", ends_at=end, limit=5, need=1)]) == [Drawn(granted=0, used=0)]


async def test_a_charge_counts_whatever_the_limit_and_what_was_not_spent_comes_back(
    store: Store, other: Store, place: Place
) -> None:
    end = place.now() + 3600
    await store.draw([Draw(name="n", ends_at=end, limit=10, need=8)])
    await other.charge([Charge(name="n", ends_at=end, amount=7), Charge(name="fresh", ends_at=end, amount=4)])
    assert await store.draw([Draw(name="n", ends_at=end, limit=10, need=1)]) == [Drawn(granted=0, used=15)]
    assert await store.draw([Draw(name="fresh", ends_at=end, limit=5, need=1)]) == [Drawn(granted=1, used=5)]
    await store.charge([Charge(name="n", ends_at=end, amount=-6), Charge(name="n", ends_at=end, amount=-1)])
    assert await other.draw([Draw(name="n", ends_at=end, limit=10, need=2)]) == [Drawn(granted=2, used=10)]


async def test_no_more_comes_back_than_was_used(store: Store, place: Place) -> None:
    end = place.now() + 3600
    await store.draw([Draw(name="n", ends_at=end, limit=10, need=2)])
    await store.charge([Charge(name="n", ends_at=end, amount=-9), Charge(name="never", ends_at=end, amount=-9)])
    for name in ("n", "never"):
        assert await store.draw([Draw(name=name, ends_at=end, limit=10, need=11)]) == [Drawn(granted=0, used=0)]


async def test_sweep_leaves_the_allowances_of_windows_that_go_on(store: Store, place: Place) -> None:
    await store.draw([Draw(name="n", ends_at=place.now() + 3600, limit=5, need=4)])
    await place.pass_time(0.1)
    await store.sweep()
    assert granted(await store.draw([Draw(name="n", ends_at=place.now() + 3600, limit=5, need=2)])) == [0]


async def test_many_draws_at_once_never_pass_the_limit(store: Store, other: Store, place: Place) -> None:
    end = place.now() + 3600
    await joined(store, "a", "b")

    async def spend(which: Store, seed: int) -> int:
        chance = random.Random(seed)
        total = 0
        for _ in range(25):
            need = chance.randint(1, 3)
            (drawn,) = await which.draw([Draw(name="n", ends_at=end, limit=200, need=need, extra=chance.randint(0, 9))])
            assert drawn.granted == 0 or drawn.granted >= need
            assert drawn.used <= 200
            total += drawn.granted
            if drawn.granted > need:
                await which.charge([Charge(name="n", ends_at=end, amount=-1)])
                total -= 1
        return total

    totals = await asyncio.gather(*(spend((store, other)[n % 2], n) for n in range(8)))
    (drawn,) = await store.draw([Draw(name="n", ends_at=end, limit=200, need=201)])
    assert drawn.used == sum(totals)
    assert 190 < sum(totals) <= 200


async def test_erased_are_processes_slots_and_allowances_too(store: Store, other: Store, place: Place) -> None:
    end = place.now() + 3600
    await joined(store, "a")
    await store.take("a", wanted("x"))
    await store.draw([Draw(name="n", ends_at=end, limit=5, need=5)])
    await other.erase()
    assert await store.processes() == []
    assert await store.taken("") == {}
    assert not (await store.beat("a", is_hungry=False, status=b"")).is_known
    assert granted(await store.draw([Draw(name="n", ends_at=end, limit=5, need=5)])) == [5]
