"""What an operator does with batches, in any process."""

import asyncio

import pytest

from qwen_proxy.accounts.bulk import batches as module
from qwen_proxy.accounts.bulk.model import BatchStatus, LineStatus
from qwen_proxy.accounts.bulk.report import BatchProgress
from qwen_proxy.accounts.lines import read_lines
from qwen_proxy.ground.errors import InvalidRequest, NotFound, SignInReason, SignInRefused, UpstreamChallenged
from qwen_proxy.state.kinds import BATCH
from qwen_proxy.state.store import Append, Put
from tests.unit.accounts.bulk.hall import Hall, Process, pasted

MISSING = "batch_1800000000000_00000000"


async def follow(process: Process, id: str, seen: list[BatchProgress]) -> None:
    async with process.batches.follow(id) as changes:
        async for progress in changes:
            seen.append(progress)


async def test_a_batch_is_followed_from_any_process_until_it_is_over():
    hall = Hall()
    id = await hall.create(pasted("a", "b", "c", "d"))
    seen: list[BatchProgress] = []
    async with (
        hall.process(is_keeper=False) as keeper,
        hall.process(is_keeper=False) as elsewhere,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(follow(elsewhere, id, seen))
        await hall.clock.advance(1)
        keeper.runner.start()
        await hall.clock.advance(30)
    assert seen[0].status is BatchStatus.PENDING and seen[-1].status is BatchStatus.COMPLETED
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert {progress.succeeded for progress in seen} == {0, 1, 2, 3, 4}
    assert any(line.email == "c@x.org" for progress in seen for line in progress.active)
    assert [line.email[0] for line in seen[-1].recent] == ["d", "c", "b", "a"]


async def test_following_outlives_an_outage_of_the_store_and_ends_with_the_batch():
    hall = Hall()
    id = await hall.create(pasted("a", "b"))
    first: list[BatchProgress] = []
    second: list[BatchProgress] = []
    async with hall.process(is_keeper=False) as process, asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(process, id, first))
        tasks.create_task(follow(process, id, second))
        await hall.clock.advance(1)
        process.line.is_up = False
        await hall.book.change_batch(id, lambda batch: module.model.start(batch, 1.0))
        await hall.clock.advance(3)
        assert [progress.status for progress in first] == [BatchStatus.PENDING]
        process.line.is_up = True
        await hall.clock.advance(3)
        assert first == second and first[-1].status is BatchStatus.RUNNING
        await hall.book.remove(id)
        await hall.clock.advance(3)


async def test_who_waits_for_the_end_is_also_told_of_a_pause():
    hall = Hall()
    hall.errors["a"] = [UpstreamChallenged("json")]
    id = await hall.create(pasted("a", "b"))
    async with hall.process() as process:
        waiting = asyncio.get_running_loop().create_task(process.batches.settled(id))
        await hall.clock.advance(5)
        assert (await waiting).status is BatchStatus.PAUSED
        waiting = asyncio.get_running_loop().create_task(process.batches.settled(id))
        await process.batches.resume(id)
        await hall.clock.advance(1)
        waiting = asyncio.get_running_loop().create_task(process.batches.settled(id))
        await hall.clock.advance(9)
        assert (await waiting).status is BatchStatus.COMPLETED


async def test_who_waits_for_a_batch_that_is_removed_is_told():
    hall = Hall()
    id = await hall.create(pasted("a"))
    async with hall.process(is_keeper=False) as process:
        waiting = asyncio.get_running_loop().create_task(process.batches.settled(id))
        await hall.clock.advance(1)
        await hall.book.remove(id)
        await hall.clock.advance(1)
        with pytest.raises(NotFound):
            await waiting


async def test_the_id_has_the_originals_form_and_the_audit_line_comes_with_the_batch():
    hall = Hall()
    batches = Process(hall).batches
    told = await batches.create(read_lines(pasted("a")), Append(topic="audit", value=b"made"), labels=["x"], by="key_1")
    assert told.id.startswith("batch_1800000000000_") and len(told.id) == 28
    assert (told.labels, told.created_by, told.created_at) == (("x",), "key_1", 1_800_000_000.0)
    await batches.pause(told.id, Append(topic="audit", value=b"paused"))
    assert [line.value for line in await hall.store.log("audit")] == [b"paused", b"made"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no line of the form email:password or email:password|proxy"),
        ("# x\ncanary\n", "line 2: there is no ':' between email and password"),
    ],
)
async def test_what_holds_no_account_is_no_batch(text: str, said: str):
    hall = Hall()
    with pytest.raises(InvalidRequest) as caught:
        await Process(hall).batches.create(read_lines(text))
    assert said in str(caught.value) and "canary" not in str(caught.value)
    assert await hall.book.all() == [] and [line async for line in hall.book.lines.each()] == []


async def test_a_batch_has_an_end_to_its_size():
    hall = Hall()
    text = pasted(*map(str, range(module.MOST_LINES + 1)))
    with pytest.raises(InvalidRequest, match="at most 50000 lines, and this is 50001"):
        await Process(hall).batches.create(read_lines(text))


async def test_lines_come_in_pages_by_number_or_of_one_kind():
    hall = Hall()
    hall.errors = {"n3": [SignInRefused(SignInReason.BANNED)], "n700": [SignInRefused(SignInReason.BANNED)]}
    hall.takes_seconds = 0.0
    names = [f"n{number}" for number in range(1, 801)]
    id = await hall.create(pasted(*names) + "nonsense\n")
    other = await hall.create(pasted("z"))
    async with hall.process() as process:
        await hall.clock.advance(60)
        numbers: list[int] = []
        after: int | None = 0
        while after is not None:
            page = await process.batches.lines(id, after=after, limit=300)
            numbers += [line.number for line in page.lines]
            after = page.next_after
        assert numbers == list(range(1, 802))
        failed = await process.batches.lines(id, status=LineStatus.FAILED)
        assert [line.email for line in failed.lines] == ["n3@x.org", "n700@x.org"] and failed.next_after is None
        first = await process.batches.lines(id, status=LineStatus.FAILED, limit=1)
        assert first.next_after == 3
        (invalid,) = (await process.batches.lines(id, status=LineStatus.INVALID)).lines
        assert (invalid.number, invalid.email) == (801, "") and "no ':'" in invalid.message
        assert [progress.id for progress in await process.batches.all()] == sorted([id, other], reverse=True)


async def test_the_originals_snapshot_has_all_that_failed_and_follows_them():
    hall = Hall()
    hall.errors = {name: [SignInRefused(SignInReason.BANNED)] for name in "abc"}
    id = await hall.create(pasted("a", "b", "c", "d"))
    async with hall.process() as process:
        await hall.clock.advance(2.5)
        assert (await process.batches.task(id)).failed_emails == ["a@x.org", "b@x.org"]
        await hall.clock.advance(20)
        snapshot = await process.batches.task(id)
        assert snapshot.failed_emails == ["a@x.org", "b@x.org", "c@x.org"] and snapshot.status == "completed"
        await process.batches.retry_failed(id)
        await hall.clock.advance(20)
        snapshot = await process.batches.task(id)
        assert (snapshot.failed_emails, snapshot.success) == ([], 4)


async def test_what_does_not_fit_is_refused_with_the_state():
    hall = Hall()
    id = await hall.create(pasted("a"))
    async with hall.process(is_keeper=False) as process:
        batches = process.batches
        with pytest.raises(InvalidRequest, match="the batch is pending and can't be resumed"):
            await batches.resume(id)
        with pytest.raises(InvalidRequest, match="the batch is pending with 0 failed lines and can't be tried again"):
            await batches.retry_failed(id)
        with pytest.raises(InvalidRequest, match="the batch is pending and can't be removed; cancel it first"):
            await batches.remove(id)
        await batches.cancel(id)
        with pytest.raises(InvalidRequest, match="the batch is cancelled and can't be paused"):
            await batches.pause(id)
    async with hall.process() as process:
        await hall.clock.advance(1)
        await process.batches.remove(id, Append(topic="audit", value=b"removed"))
        assert await hall.book.all() == [] and await hall.lines(id) == {}
        assert len(await hall.store.log("audit")) == 1


@pytest.mark.parametrize("id", [MISSING, "../x", "batch_1_2", "x" * 600, ""])
async def test_a_batch_that_there_is_not_is_not_found(id: str):
    batches = Process(Hall()).batches
    for asked in (
        batches.progress(id),
        batches.task(id),
        batches.lines(id),
        batches.pause(id),
        batches.resume(id),
        batches.cancel(id),
        batches.retry_failed(id),
        batches.remove(id),
        batches.settled(id),
    ):
        with pytest.raises(NotFound) as caught:
            await asked
        assert len(str(caught.value)) < 80


async def test_a_batch_of_another_version_hides_no_other(caplog: pytest.LogCaptureFixture):
    hall = Hall()
    id = await hall.create(pasted("a"))
    await hall.store.write([Put(kind=BATCH, id=MISSING.replace("18", "19"), value=b"\x93newer")])
    async with hall.process() as process:
        await hall.clock.advance(10)
        assert [progress.id for progress in await process.batches.all()] == [id]
        assert (await hall.batch(id)).status is BatchStatus.COMPLETED
        assert "unknown to this version" in str([record.__dict__.get("reason") for record in caplog.records])


async def test_the_concurrency_told_is_the_setting_while_the_batch_goes_on():
    hall = Hall()
    id = await hall.create(pasted("a"))
    hall.concurrency = 9
    async with hall.process() as process:
        assert (await process.batches.progress(id)).concurrency == 9
        await hall.clock.advance(10)
        assert (await process.batches.progress(id)).concurrency == 5
