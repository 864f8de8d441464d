"""Many accounts added at once, through the real server."""

import asyncio

import msgspec

from qwen_proxy.accounts.bulk.model import BatchStatus
from qwen_proxy.accounts.bulk.report import BatchProgress
from qwen_proxy.admin.batches import BatchesBody, CreatedBody, LinesBody
from qwen_proxy.simulator import Fault, Scenario
from qwen_proxy.simulator.replies import waf_html
from tests.support.admin import answer, as_admin
from tests.support.asking import whole
from tests.support.running import Running, running

PATH = "/api/admin/accounts/batches"


def lines(*names: str) -> str:
    return "\n".join(f"{name}@example.com:pw-{name}" for name in names)


async def add(gateway: Running, text: str, **more: object) -> CreatedBody:
    async with as_admin(gateway) as admin:
        return await answer(admin, "POST", PATH, CreatedBody, json={"lines": text, **more})


async def until_over(gateway: Running, id: str) -> BatchProgress:
    async with as_admin(gateway) as admin, asyncio.timeout(20):
        while True:
            progress = await answer(admin, "GET", f"{PATH}/{id}", BatchProgress)
            if progress.is_over or progress.status is BatchStatus.PAUSED:
                return progress
            await asyncio.sleep(0.05)


async def test_lines_become_accounts_and_each_says_what_became_of_it() -> None:
    async with running() as gateway:
        text = f"# mine\n{lines('b', 'c')}\nno colon\n{lines('a')}\n{lines('b')}\n"
        looked = await add(gateway, text, dry_run=True)
        assert looked.batch is None
        assert (looked.check.good, looked.check.repeated) == (2, (5, 6))
        assert [(line.number, "no ':'" in line.problem) for line in looked.check.invalid] == [(4, True)]
        assert len(await gateway.commons.book.all()) == 1
        created = await add(gateway, text, labels=["new"])
        assert created.batch is not None
        progress = await until_over(gateway, created.batch.id)
        assert (progress.succeeded, progress.failed, progress.repeated, progress.invalid) == (2, 0, 2, 1)
        kept = {stored.account.id: stored for stored in await gateway.commons.book.all()}
        assert kept["b@example.com"].account.labels == ("new",) and kept["b@example.com"].credential is not None
        async with as_admin(gateway) as admin:
            page = await answer(admin, "GET", f"{PATH}/{progress.id}/lines", LinesBody)
            assert [line.status.value for line in page.lines] == [
                "succeeded",
                "succeeded",
                "invalid",
                "skipped",
                "skipped",
            ]
            assert "pw-" not in msgspec.json.encode(page).decode()
            assert [batch.id for batch in (await answer(admin, "GET", PATH, BatchesBody)).batches] == [progress.id]
        assert (await whole(gateway)).status == 200


async def test_progress_comes_as_events_and_again_after_a_reload() -> None:
    async with running() as gateway, as_admin(gateway) as admin:
        created = await add(gateway, lines("b", "c", "d"))
        assert created.batch is not None
        for _ in range(2):
            async with admin.get(f"{PATH}/{created.batch.id}/events") as response:
                assert response.content_type == "text/event-stream"
                events = (await response.text()).split("\n\n")
            last = [event for event in events if event.startswith("event: progress")][-1]
            progress = msgspec.json.decode(last.partition("data: ")[2], type=BatchProgress)
            assert (progress.status, progress.succeeded) == (BatchStatus.COMPLETED, 3)
        async with admin.get(f"{PATH}/batch_none/events") as response:
            assert response.status == 404


async def test_a_challenge_pauses_it_until_an_operator_resumes() -> None:
    scenario = Scenario(faults=[Fault(waf_html(), "signin_v1", account="c@example.com", times=1)])
    async with running(scenario, CHALLENGE_REST_SECONDS="0.2") as gateway, as_admin(gateway) as admin:
        created = await add(gateway, lines("b", "c", "d"))
        assert created.batch is not None
        progress = await until_over(gateway, created.batch.id)
        assert progress.status is BatchStatus.PAUSED
        assert progress.paused_by is not None and progress.paused_by.value == "challenge" and progress.next_action
        await answer(admin, "POST", f"{PATH}/{progress.id}/resume", BatchProgress)
        progress = await until_over(gateway, progress.id)
        assert (progress.status, progress.succeeded) == (BatchStatus.COMPLETED, 3)


async def test_pause_resume_cancel_and_forget() -> None:
    async with running(SIGNIN_SPACING_SECONDS="1", BATCH_LOGIN_CONCURRENCY="1") as gateway, as_admin(gateway) as admin:
        created = await add(gateway, lines(*"bcdefgh"))
        assert created.batch is not None
        path = f"{PATH}/{created.batch.id}"
        assert (await answer(admin, "POST", f"{path}/pause", BatchProgress)).status is BatchStatus.PAUSED
        async with admin.delete(path) as response:
            assert response.status == 400 and "cancel it first" in await response.text()
        assert (await answer(admin, "POST", f"{path}/resume", BatchProgress)).status is not BatchStatus.PAUSED
        await answer(admin, "POST", f"{path}/cancel", BatchProgress)
        progress = await until_over(gateway, created.batch.id)
        assert progress.status is BatchStatus.CANCELLED and progress.cancelled > 0
        async with admin.delete(path) as response:
            assert response.status == 204
        async with admin.get(path) as response:
            assert response.status == 404
