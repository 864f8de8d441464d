"""Every store against the plainest one: the same calls by chance, the same answers."""

import random
from collections.abc import Awaitable, Callable

import pytest

from qwen_proxy.state.store import (
    Append,
    Change,
    Charge,
    Conflict,
    Delete,
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
from qwen_proxy.storage.memory import MemoryStore
from tests.conformance.stores import Place
from tests.support.clock import FakeClock

KINDS = (Kind(name="plain"), Kind(name="watched", is_watched=True))
IDS = ("a", "b", "c", "\u00e9")
PROCESSES = ("p", "q", "r")
NAMES = ("one", "two", "three", "four")
STEPS = 250

Call = Callable[[Store], Awaitable[object]]


class Chance:
    """Calls as they might come. `now`: when allowances are drawn from."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def seconds(self) -> float:
        """Whole quarters, so that both clocks show the same."""
        return self._random.choice((0.25, 0.5, 1.0, 3.0, 2000.0))

    def is_time(self) -> bool:
        return self._random.random() < 0.15

    def call(self, now: float) -> tuple[str, Call]:
        makers = (self._write, self._write, self._sharing, self._sharing, self._spending, self._usage, self._question)
        return self._random.choice(makers)(now)

    def _write(self, now: float) -> tuple[str, Call]:
        ids = self._random.sample([(kind, id) for kind in KINDS for id in IDS], self._random.randint(1, 3))
        changes: list[Change] = [self._change(kind, id) for kind, id in ids]

        async def write(store: Store) -> object:
            try:
                return (await store.write(changes)).versions
            except Conflict as conflict:
                return conflict.kind, conflict.id

        return f"write {changes}", write

    def _change(self, kind: Kind, id: str) -> Change:
        chance = self._random
        expect = chance.choice((None, None, None, 0, 1, 2))
        if chance.random() < 0.2:
            return Append(topic=chance.choice("tu"), value=chance.randbytes(3))
        if chance.random() < 0.3:
            return Delete(kind=kind, id=id, expect=expect)
        lasts = chance.choice((None, None, 0.25, 2.0))
        return Put(kind=kind, id=id, value=chance.randbytes(40), expect=expect, lasts_seconds=lasts)

    def _sharing(self, now: float) -> tuple[str, Call]:
        chance = self._random
        process = chance.choice(PROCESSES)
        holds = [Hold(name, chance.randint(1, 4)) for name in chance.sample(NAMES, chance.randint(1, 3))]
        row = ProcessRow(id=process, host="h", pid=1, started_at=2.5, beat_at=0, is_hungry=False, status=b"\xff")
        wanted = SlotsWanted(
            names=tuple(chance.sample(NAMES, chance.randint(1, 4))),
            capacity=chance.randint(0, 9),
            need=chance.randint(0, 6),
            extra=chance.choice((0, 0, 3, 50)),
            is_spread=chance.random() < 0.7,
        )
        is_hungry = chance.random() < 0.3
        calls: tuple[tuple[str, Call], ...] = (
            (f"take {process} {wanted}", lambda store: store.take(process, wanted)),
            (f"take {process} {wanted}", lambda store: store.take(process, wanted)),
            (f"give {process} {holds}", lambda store: store.give(process, holds)),
            (f"beat {process} {is_hungry}", lambda store: store.beat(process, is_hungry=is_hungry, status=b"s")),
            (f"join {process} {holds}", lambda store: store.join(row, holds[:1])),
            (f"leave {process}", lambda store: store.leave(process)),
        )
        return chance.choice(calls)

    def _spending(self, now: float) -> tuple[str, Call]:
        chance = self._random
        name, ends_at = chance.choice(NAMES), now + chance.choice((-1.0, 0.0, 0.25, 60.0))
        draws = [
            Draw(
                name=chance.choice(NAMES),
                ends_at=ends_at,
                limit=chance.randint(0, 40),
                need=chance.randint(0, 5),
                extra=chance.choice((0, 4, 99)),
            )
            for _ in range(3)
        ]
        charges = [Charge(name=name, ends_at=ends_at, amount=chance.randint(-9, 9))]
        if chance.random() < 0.7:
            return f"draw {draws}", lambda store: store.draw(draws)
        return f"charge {charges}", lambda store: store.charge(charges)

    def _usage(self, now: float) -> tuple[str, Call]:
        chance = self._random
        starts = chance.randint(0, 60) * 3600
        key = UsageKey(starts_at=starts, key=chance.choice(IDS), account="", model="m", feature="f")
        counts = UsageCounts(requests=chance.randint(0, 5), prompt_tokens=chance.randint(0, 10**12))
        since, by_day = chance.randint(0, 60) * 1800.0, chance.random() < 0.5
        calls: tuple[tuple[str, Call], ...] = (
            (f"add {key} {counts}", lambda store: store.add_usage({key: counts})),
            (f"add {key} {counts}", lambda store: store.add_usage({key: counts})),
            (f"usage {since}", lambda store: store.usage(since, since + 86400, by_day=by_day)),
            (f"prune usage {since}", lambda store: store.prune_usage(since / 4, by_day=by_day)),
        )
        return chance.choice(calls)

    def _question(self, now: float) -> tuple[str, Call]:
        chance = self._random
        kind, id, limit, before = chance.choice(KINDS), chance.choice(IDS), chance.randint(0, 3), now - 2000
        calls: tuple[tuple[str, Call], ...] = (
            (f"get {kind} {id}", lambda store: store.get(kind, id)),
            (f"find {kind} {id}", lambda store: store.find(kind, after=id, limit=limit)),
            ("log", lambda store: _lines(store, limit)),
            (f"prune log {before}", lambda store: store.prune_log("t", before)),
            ("sweep", lambda store: store.sweep()),
            ("processes", lambda store: store.processes()),
            ("taken", lambda store: store.taken("t")),
        )
        return chance.choice(calls)


async def _lines(store: Store, limit: int) -> list[tuple[float, bytes]]:
    """Without their numbers, of which some may be missing."""
    return [(line.at, line.value) for line in await store.log("t", limit=limit)]


async def _told(store: Store, since: int) -> tuple[object, ...]:
    """What has changed since, in an order."""
    changes = await store.changes(since)
    gone = sorted((each.kind, each.id) for each in changes.gone)
    return sorted((each.kind, each.id, each.version) for each in changes.records), gone


@pytest.mark.parametrize("seed", range(4))
async def test_a_store_answers_as_the_plainest_one_does(store: Store, place: Place, seed: int) -> None:
    clock = FakeClock(now=place.now())
    plain = MemoryStore(clock)
    chance = Chance(seed)
    done: list[str] = []
    generations: list[tuple[int, int]] = []
    for _ in range(STEPS):
        if chance.is_time():
            seconds = chance.seconds()
            await place.pass_time(seconds)
            await clock.advance(seconds)
            done.append(f"{seconds} s")
            continue
        name, call = chance.call(place.now())
        done.append(name)
        assert await call(store) == await call(plain), "\n".join(done)
        generations.append((await store.generation(), await plain.generation()))
        before, plain_before = generations[-10:][0]
        if (await store.changes(before)).is_complete and (await plain.changes(plain_before)).is_complete:
            assert await _told(store, before) == await _told(plain, plain_before), "\n".join(done)
    assert await store.check() is None
