"""The account pool signs a batch's lines in, at its own pace, and has what was added."""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.book import BatchBook
from qwen_proxy.accounts.bulk.model import BatchStatus, PauseCause
from qwen_proxy.accounts.bulk.runner import BatchRunner
from qwen_proxy.accounts.bulk.work import Enrolment
from qwen_proxy.accounts.lines import read_lines
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.ground.errors import ExitUnreachable, SignInReason, SignInRefused, UpstreamChallenged
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.watching import Watch
from tests.unit.accounts.bulk.hall import pasted
from tests.unit.accounts.house import House, account, house

SPACING = 20.0


@asynccontextmanager
async def batches_of(home: House) -> AsyncGenerator[Batches]:
    """As the program puts them together."""
    accounts, watch = home.kept.book, Watch(home.kept.store, home.clock)

    async def add(account: Account, credential: Credential) -> None:
        await accounts.put(account, credential=credential)

    async def find(account_id: str) -> Account | None:
        stored = await accounts.get(account_id)
        return None if stored is None else stored.account

    book = BatchBook(home.kept.store, home.kept.vault)
    enrolment = Enrolment(home.pool.try_account, add, find)
    batches = Batches(book, watch, home.clock, SystemIds(), lambda: 5)
    runner = BatchRunner(book, enrolment, watch, home.clock, random.Random(3), lambda: 5)
    await watch.load()
    async with Tasks() as tasks, runner:
        tasks.spawn(watch.run(), name="watch")
        runner.start()
        yield batches


async def test_lines_are_spaced_through_each_exit_and_their_accounts_have_tokens():
    async with house(spacing=SPACING) as home, batches_of(home) as batches:
        home.site.errors["c"] = [SignInRefused(SignInReason.BANNED)]
        text = pasted("a", "b", "c") + pasted("d", "e", exit="http://p:1")
        id = (await batches.create(read_lines(text))).id
        await home.clock.advance(1)
        assert sorted(home.site.names) == ["a", "d"]
        await home.clock.advance(5 * SPACING)
        times = {name: at for at, name in home.site.attempts}
        assert times["b"] - times["a"] >= SPACING and times["c"] - times["b"] >= SPACING
        assert times["e"] - times["d"] >= SPACING
        progress = await batches.progress(id)
        assert (progress.status, progress.succeeded, progress.failed) == (BatchStatus.COMPLETED, 4, 1)
        stored = await home.kept.book.get("e@x.org")
        assert stored is not None and stored.credential is not None and stored.account.exit == "http://p:1"
        assert await home.kept.book.get("c@x.org") is None
        assert len(home.site.attempts) == 5  # the pool does not sign in what came with a token


async def test_a_challenge_stops_the_batch_and_a_dead_exit_its_lines_only():
    async with house(spacing=SPACING) as home, batches_of(home) as batches:
        home.site.errors["b"] = [UpstreamChallenged("html")]
        home.site.errors["d"] = [ExitUnreachable("refused")] * 3
        id = (await batches.create(read_lines(pasted("d", exit="http://p:1") + pasted("a", "b", "c")))).id
        await home.clock.advance(600)
        progress = await batches.progress(id)
        assert (progress.status, progress.paused_by) == (BatchStatus.PAUSED, PauseCause.CHALLENGE)
        assert home.site.names.count("b") == 1 and "c" not in home.site.names
        await batches.resume(id)
        await home.clock.advance(600)
        progress = await batches.progress(id)
        assert (progress.status, progress.succeeded, progress.failed) == (BatchStatus.COMPLETED, 3, 1)


async def test_a_line_waits_behind_the_sign_ins_of_the_pool():
    async with house(account("known"), spacing=SPACING) as home, batches_of(home) as batches:
        id = (await batches.create(read_lines(pasted("a")))).id
        await home.clock.advance(SPACING - 1)
        assert home.site.names == ["known"]
        await home.clock.advance(SPACING)
        assert home.site.names == ["known", "a"] and (await batches.progress(id)).is_over


async def test_a_line_that_was_recalled_at_the_site_and_begun_again_comes_to_its_end():
    async with house(spacing=SPACING) as home, batches_of(home) as batches:
        home.site.takes_seconds = 60.0
        id = (await batches.create(read_lines(pasted("a")))).id
        await home.clock.advance(1)
        await batches.pause(id)
        await home.clock.advance(15)
        await batches.resume(id)
        await home.clock.advance(300)
        assert (await batches.progress(id)).succeeded == 1
