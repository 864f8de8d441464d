"""A process dies at any moment: nothing is lost, and nothing is done twice that matters."""

from collections import Counter

import pytest

from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.book import HALF_WRITTEN_SECONDS
from qwen_proxy.accounts.bulk.model import BatchStatus
from qwen_proxy.accounts.lines import read_lines
from qwen_proxy.ground.errors import SignInReason, SignInRefused, UpstreamChallenged, UpstreamUnavailable
from qwen_proxy.runtime.tasks import Tasks
from tests.unit.accounts.bulk.hall import Hall, Process, pasted

TEXT = pasted("a", "refused") + "nonsense\n" + pasted("a", "b", "flaky", exit="http://p:1") + pasted("c")
ENDS = {  # by name: of the two lines for `a` it is the second
    "a": "skipped",
    "refused": "failed",
    "": "invalid",
    "b": "succeeded",
    "flaky": "succeeded",
    "c": "succeeded",
}


def hall_with_errors() -> Hall:
    hall = Hall()
    hall.errors = {"refused": [SignInRefused(SignInReason.BANNED)] * 9, "flaky": [UpstreamUnavailable("reset")]}
    return hall


async def run_to_the_end(hall: Hall, id: str) -> None:
    async with hall.process():
        await hall.clock.advance(40)
    batch = await hall.batch(id)
    assert batch.status is BatchStatus.COMPLETED
    assert await hall.statuses(id) == ENDS
    assert sorted(hall.accounts) == ["a@x.org", "b@x.org", "c@x.org", "flaky@x.org"]
    await hall.check(id)


async def die(hall: Hall, id: str, moment: int) -> bool:
    """Whether there was such a moment; the process is gone afterwards, whatever it was at."""
    process = Process(hall)
    async with Tasks() as tasks, process.runner:
        await process.watch.load()
        process.line.calls, process.line.dies_at = 0, moment
        tasks.spawn(process.watch.run(), name="watch")
        process.runner.start()
        for _ in range(600):
            await hall.clock.advance(0.2)
            if process.line.died.is_set() or (await hall.batch(id)).is_over:
                break
    return process.line.died.is_set()


async def test_the_next_keeper_goes_on_wherever_one_died():
    once = Counter(a=1, refused=1, b=1, flaky=2, c=1)
    moment = again = 0
    while True:
        hall = hall_with_errors()
        id = await hall.create(TEXT)
        if not await die(hall, id, moment):
            break
        await hall.check(id)
        attempts, added = Counter(hall.attempts), [account_id.partition("@")[0] for account_id in hall.accounts]
        await run_to_the_end(hall, id)
        assert all(hall.attempts.count(name) == attempts[name] for name in added)
        more = Counter(hall.attempts) - once
        assert more.total() <= 2  # what was under way through the two exits
        again += bool(more)
        moment += 1
    assert moment > 60 and again > 3


async def test_keepers_that_die_one_after_the_other_all_bring_it_forward():
    hall = hall_with_errors()
    id = await hall.create(TEXT)
    deaths = 0
    while await die(hall, id, 23):
        deaths += 1
        await hall.check(id)
        assert deaths < 40
    assert deaths > 3
    await run_to_the_end(hall, id)


@pytest.mark.parametrize("moment", range(0, 60, 5))
async def test_an_operators_wish_outlives_the_keeper_that_was_to_fulfil_it(moment: int):
    hall = hall_with_errors()
    id = await hall.create(TEXT)
    async with hall.process() as process:
        await hall.clock.advance(60)
        await process.batches.retry_failed(id)
    await die(hall, id, moment)
    hall.errors = {}
    async with hall.process() as process:
        await hall.clock.advance(60)
        if (await hall.batch(id)).failed:  # it failed again before the keeper died
            await process.batches.retry_failed(id)
            await hall.clock.advance(60)
    assert await hall.statuses(id) == ENDS | {"refused": "succeeded"}
    await hall.check(id)


@pytest.mark.parametrize("moment", range(0, 60, 5))
async def test_a_cancelled_batch_ends_whoever_dies(moment: int):
    hall = hall_with_errors()
    id = await hall.create(TEXT)
    async with hall.process() as process:
        await hall.clock.advance(1.5)
        await process.batches.cancel(id)
    await die(hall, id, moment)
    added = set(hall.accounts)
    async with hall.process():
        await hall.clock.advance(30)
    batch = await hall.batch(id)
    assert batch.status is BatchStatus.CANCELLED and batch.is_over and not batch.open
    assert set(hall.accounts) == added
    await hall.check(id)


@pytest.mark.parametrize("moment", range(0, 60, 5))
async def test_a_challenge_is_not_met_again_by_the_next_keeper(moment: int):
    hall = Hall()
    hall.errors["b"] = [UpstreamChallenged("html")]
    id = await hall.create(pasted("a", "b", "c"))
    await die(hall, id, moment)
    paused = (await hall.batch(id)).status is BatchStatus.PAUSED
    attempts = len(hall.attempts)
    async with hall.process():
        await hall.clock.advance(30)
    if paused:
        assert len(hall.attempts) == attempts and (await hall.batch(id)).status is BatchStatus.PAUSED
    await hall.check(id)


async def test_a_batch_is_there_whole_or_not_at_all_whenever_its_maker_dies():
    text = pasted(*(f"n{number}" for number in range(600)))
    outcomes = Counter[bool]()
    for moment in range(9):
        hall = Hall()
        process = Process(hall)
        process.line.dies_at = moment
        async with Tasks() as tasks:
            tasks.spawn(create(process.batches, text), name="create")
            await hall.clock.settle()
        found = await hall.book.all()
        outcomes[bool(found)] += 1
        for entry in found:
            await hall.check(entry.id)
        async with hall.process(watches=False):
            await hall.clock.advance(HALF_WRITTEN_SECONDS - 60)
            await hall.clock.advance(3720)
        left = [entry.id async for entry in hall.book.lines.each()]
        assert len(left) == (600 if found else 0)
        for entry in found:
            assert (await hall.batch(entry.id)).succeeded == 600
    assert outcomes[False] >= 6 and outcomes[True] >= 1


async def create(batches: Batches, text: str) -> None:
    await batches.create(read_lines(text))
