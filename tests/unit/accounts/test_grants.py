"""Sign-ins by OAuth: renewed once however many ask, over processes too; ended when their refresh token is dead."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from qwen_proxy.accounts.grants import CLAIM_SECONDS, TRY_AGAIN_SECONDS, Grant, Grants, granted, renewed
from qwen_proxy.accounts.model import Tokens
from qwen_proxy.ground.errors import AccountsBusy, CredentialRejected, NotFound, ProxyError, UpstreamUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import GRANT
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

LIFE = 3600.0
VAULT = Vault(new_document())


def tokens(number: int, *, refresh: bool = True, resource: str = "") -> Tokens:
    kept = Secret(f"refresh-{number}") if refresh else None
    return Tokens(
        access_token=Secret(f"access-{number}"), refresh_token=kept, resource_url=resource, lasts_seconds=LIFE
    )


class Service:
    """Answers refreshes, each refresh token once; `failure` instead, if there is one. `gate`: answers wait for it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: ProxyError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def refresh(self, token: Secret) -> Tokens:
        self.asked.append(token.reveal())
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return tokens(len(self.asked) + 1)


class Town:
    """Several processes over one store."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.service = Service()
        self.processes: list[tuple[Grants, Watch]] = []

    async def process(self, *, renews_early: bool = False) -> Grants:
        watch = Watch(self.store, self.clock)
        grants = Grants(
            self.store, VAULT, self.service.refresh, lambda: None, self.clock, renews_early=lambda: renews_early
        )
        watch.subscribe(GRANT, grants.take)
        await watch.load()
        self.processes.append((grants, watch))
        return grants

    async def learn(self) -> None:
        for _, watch in self.processes:
            await watch.catch_up()


@asynccontextmanager
async def town() -> AsyncGenerator[Town]:
    made = Town()
    try:
        yield made
    finally:
        for grants, _ in made.processes:
            await grants.close()


async def one(made: Town, *, renews_early: bool = False) -> Grants:
    grants = await made.process(renews_early=renews_early)
    await grants.add("g", granted(tokens(1), made.clock.now(), label="mine"))
    await made.learn()
    return grants


def renewal(grants: Grants, made: Town, stale: str = "access-1", seconds: float = 30.0) -> "asyncio.Task[Grant]":
    work = grants.renew("g", Secret(stale), was_refused=True, deadline=made.clock.monotonic() + seconds)
    return asyncio.ensure_future(work)  # noqa: TID251


async def test_one_refresh_serves_all_that_ask_in_all_processes() -> None:
    async with town() as made:
        first = await one(made)
        second = await made.process()
        made.service.gate.clear()
        tasks = [renewal(each, made) for each in (first, second, first)]
        await made.clock.settle()
        assert made.service.asked == ["refresh-1"]
        made.service.gate.set()
        await made.clock.advance(1.0)
        assert [(await task).access_token.reveal() for task in tasks] == ["access-2"] * 3
        assert made.service.asked == ["refresh-1"]
        assert first.known["g"].renewed_at == made.clock.now() - 1.0


async def test_another_process_has_the_new_token_as_soon_as_it_was_renewed() -> None:
    async with town() as made:
        first = await one(made)
        second = await made.process()
        assert (await renewal(first, made)).access_token == Secret("access-2")
        assert second.known["g"].access_token == Secret("access-1")  # it has not looked yet
        assert (await renewal(second, made)).access_token == Secret("access-2")
        assert second.known["g"].access_token == Secret("access-2") and made.service.asked == ["refresh-1"]


async def test_another_process_knows_that_it_has_ended_as_soon_as_it_asks() -> None:
    async with town() as made:
        first = await one(made)
        second = await made.process()
        made.service.failure = CredentialRejected("dead")
        for grants in (first, second):
            with pytest.raises(CredentialRejected, match="dead"):
                await renewal(grants, made)
        assert second.known["g"].ended == "dead" and made.service.asked == ["refresh-1"]


async def test_what_was_read_before_a_renewal_does_not_undo_it() -> None:
    async with town() as made:
        grants = await one(made)
        before = await made.store.find(GRANT)
        await renewal(grants, made)
        grants.take(before, [])
        assert grants.known["g"].access_token == Secret("access-2")
        grants.take([], ["g"])
        assert grants.known == {}
        grants.take(before, [])  # it was signed in anew under the same id
        assert grants.known["g"].access_token == Secret("access-1")


async def test_who_leaves_meanwhile_loses_no_token() -> None:
    async with town() as made:
        grants = await one(made)
        made.service.gate.clear()
        task = renewal(grants, made)
        await made.clock.settle()
        task.cancel()
        made.service.gate.set()
        await made.clock.settle()
        assert grants.known["g"].access_token == Secret("access-2") and grants.known["g"].claimed_until == 0.0
        assert (await renewal(grants, made)).access_token == Secret("access-2") and len(made.service.asked) == 1


async def test_a_claim_of_one_that_was_killed_ends() -> None:
    async with town() as made:
        grants = await one(made)
        held = granted(tokens(1), made.clock.now(), label="mine")
        await grants.add("g", renewed(held, tokens(1), made.clock.now(), was_refused=False))
        killed = await made.process()
        made.service.gate.clear()
        task = renewal(killed, made)
        await made.clock.settle()
        waiting = renewal(grants, made, seconds=2.0)
        await made.clock.advance(3.0)
        with pytest.raises(AccountsBusy):
            await waiting
        late = renewal(grants, made, seconds=100.0)
        await made.clock.advance(CLAIM_SECONDS)
        assert made.service.asked == ["refresh-1", "refresh-1"]  # the claim has ended, and ours was asked
        made.service.gate.set()
        await made.clock.advance(1.0)
        assert (await late).access_token.reveal().startswith("access-")
        await task


async def test_a_dead_refresh_token_ends_it_with_its_reason() -> None:
    async with town() as made:
        grants = await one(made)
        made.service.failure = CredentialRejected("dead")
        for _ in range(2):
            with pytest.raises(CredentialRejected, match="dead"):
                await renewal(grants, made)
        known = grants.known["g"]
        assert (known.ended, known.access_token, known.refresh_token) == ("dead", Secret(""), Secret(""))
        assert len(made.service.asked) == 1


async def test_another_failure_ends_nothing() -> None:
    async with town() as made:
        grants = await one(made)
        made.service.failure = UpstreamUnavailable("HTTP 503")
        with pytest.raises(UpstreamUnavailable):
            await renewal(grants, made)
        made.service.failure = None
        assert (await renewal(grants, made)).access_token == Secret("access-3")


async def test_it_is_renewed_before_its_end_and_again_a_minute_after_a_failure() -> None:
    async with town() as made:
        grants = await one(made, renews_early=True)
        await made.clock.advance(LIFE - 121)
        assert made.service.asked == []
        made.service.failure = UpstreamUnavailable("HTTP 503")
        await made.clock.advance(2.0)
        assert made.service.asked == ["refresh-1"]
        made.service.failure = None
        await made.clock.advance(TRY_AGAIN_SECONDS)
        assert grants.known["g"].access_token == Secret("access-3") and grants.known["g"].renewed_at == 0.0


async def test_one_that_is_removed_meanwhile_stays_removed() -> None:
    async with town() as made:
        grants = await one(made)
        made.service.gate.clear()
        task = renewal(grants, made)
        await made.clock.settle()
        await grants.remove("g")
        made.service.gate.set()
        with pytest.raises(CredentialRejected, match="removed"):
            await task
        assert await grants.all() == {}
        with pytest.raises(NotFound):
            await grants.remove("g")


def test_what_a_renewal_leaves_out_stays() -> None:
    before = granted(tokens(1, resource="portal.qwen.ai"), 10.0, label="x", account="a@example.com")
    after = renewed(before, tokens(2, refresh=False), 20.0, was_refused=True)
    assert (after.refresh_token, after.resource_url) == (Secret("refresh-1"), "portal.qwen.ai")
    assert (after.access_token, after.expires_at, after.renewed_at) == (Secret("access-2"), 20.0 + LIFE, 20.0)
    assert (after.label, after.account, after.added_at) == ("x", "a@example.com", 10.0)
