"""API keys of a backend: which one is leased, what their uses end in, and limits that hold over all processes."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from qwen_proxy.accounts.key_health import SOUND, KeyHealth, KeyState
from qwen_proxy.accounts.key_pool import ASK_AGAIN_SECONDS, Change, KeyLease, KeyPool
from qwen_proxy.accounts.model import Feature, Outcome, OutcomeKind
from qwen_proxy.config.backend_book import NO_KEY
from qwen_proxy.config.backends import BackendSpec
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    CredentialRejected,
    NoAccountUsable,
    ShuttingDown,
    StoreUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.store import Hold, SlotsTaken, SlotsWanted
from tests.support.clock import FakeClock

EXIT = "http://proxy:1"
REJECTED = Outcome(kind=OutcomeKind.CREDENTIAL_REJECTED, detail="invalid_api_key")
THROTTLED = Outcome(kind=OutcomeKind.THROTTLED, rest_seconds=7.0, detail="too often")
FAILED = Outcome(kind=OutcomeKind.UPSTREAM_FAILED, detail="HTTP 503")


class Bank:
    """Grants slots up to their capacity, over all pools that have it. `gate`: answers wait for it."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.failure: StoreUnavailable | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def take(self, wanted: SlotsWanted) -> SlotsTaken:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        for name in wanted.names:
            if self.taken[name] < wanted.capacity:
                self.taken[name] += 1
                return SlotsTaken(holds=(Hold(name, 1),), full=())
        return SlotsTaken(holds=(), full=wanted.names)

    async def give(self, holds: Sequence[Hold]) -> None:
        for hold in holds:
            self.taken[hold.name] -= hold.count


def spec(*keys: str, key_concurrency: int = 0, concurrency: int = 0) -> BackendSpec:
    return BackendSpec(
        name="lab",
        base_url="http://lab/v1",
        keys=tuple(Secret(key) for key in keys),
        key_concurrency=key_concurrency,
        concurrency=concurrency,
    )


class House:
    """A pool; the id of a key is the key. `kept`: what was saved of each."""

    def __init__(self, first: BackendSpec, bank: Bank | None = None) -> None:
        self.clock = FakeClock()
        self.bank = bank or Bank()
        self.kept: dict[str, KeyHealth] = {}
        self.pool = KeyPool(
            first,
            EXIT,
            digest=lambda key: key.reveal() or NO_KEY,
            save=self._save,
            trading=self.bank,
            clock=self.clock,
        )

    async def _save(self, id: str, change: Change) -> None:
        self.kept[id] = change(self.kept.get(id, SOUND))

    def lease(self, *avoid: str, only: str | None = None, seconds: float = 10.0) -> KeyLease:
        deadline = self.clock.monotonic() + seconds
        return self.pool.lease(Feature.CHAT, deadline=deadline, avoid_accounts=frozenset(avoid), only_account=only)

    async def use(self, outcome: Outcome | None = None, *avoid: str, only: str | None = None) -> str:
        """One whole use: the key that it was."""
        async with self.lease(*avoid, only=only) as lease:
            if outcome is not None:
                lease.report(outcome)
        await self.clock.settle()
        return lease.credential.account_id

    def in_time(self, lease: KeyLease) -> "asyncio.Task[KeyLease]":
        return asyncio.ensure_future(lease.__aenter__())  # noqa: TID251

    async def give_back(self, lease: KeyLease) -> None:
        await lease.__aexit__(None, None, None)
        await self.clock.settle()

    def states(self) -> list[str]:
        return [report.state.value for report in self.pool.reports()]


@asynccontextmanager
async def house(
    *keys: str, bank: Bank | None = None, key_concurrency: int = 0, concurrency: int = 0
) -> AsyncGenerator[House]:
    made = House(spec(*keys, key_concurrency=key_concurrency, concurrency=concurrency), bank)
    try:
        yield made
    finally:
        await made.pool.close()


# --- which one


async def test_keys_take_turns_and_the_least_busy_comes_first() -> None:
    async with house("a", "b", "c") as made:
        assert [await made.use() for _ in range(4)] == ["a", "b", "c", "a"]
        async with made.lease() as first, made.lease() as second:
            assert {first.credential.account_id, second.credential.account_id} == {"b", "c"}
            assert await made.use() == "a"
        assert [report.in_use for report in made.pool.reports()] == [0, 0, 0]
        assert first.credential.exit == EXIT and first.credential.token.reveal() == first.credential.account_id


async def test_one_that_is_to_be_avoided_comes_last_and_one_that_fails_later_still() -> None:
    async with house("a", "b") as made:
        assert [await made.use(None, "a") for _ in range(2)] == ["b", "b"]
        assert await made.use(None, "a", "b") == "a"
        for _ in range(5):
            await made.use(FAILED, only="b")
        assert made.states() == ["ready", "ready"]
        assert [await made.use(None, "a") for _ in range(2)] == ["a", "a"]


async def test_only_the_one_that_is_asked_for() -> None:
    async with house("a", "b") as made:
        assert [await made.use(only="b") for _ in range(2)] == ["b", "b"]
        with pytest.raises(NoAccountUsable, match="no such API key"):
            await made.use(only="c")


async def test_a_server_without_keys_is_asked_with_none_and_that_is_never_retired() -> None:
    async with house() as made:
        assert await made.use(REJECTED) == NO_KEY
        assert made.states() == ["ready"] and made.kept[NO_KEY].failures_in_a_row == 1
        (credential,) = made.pool.every_credential()
        assert credential.token == Secret("")


# --- how uses end


async def test_a_rejected_key_is_retired_and_told_with_its_reason() -> None:
    async with house("a", "key-with-a-long-end") as made:
        await made.use(REJECTED, only="a")
        assert [await made.use() for _ in range(2)] == ["key-with-a-long-end"] * 2
        assert made.kept["a"].retired == "invalid_api_key" and "key-with-a-long-end" not in made.kept
        first, second = made.pool.reports()
        assert (first.state, first.reason, first.hint) == (KeyState.RETIRED, "invalid_api_key", "")
        assert (second.state, second.reason, second.hint) == (KeyState.READY, "", "…-end")
        assert made.pool.shortage() is None
        await made.use(REJECTED)
        with pytest.raises(NoAccountUsable, match="taken by its server any more"):
            await made.use()
        assert isinstance(made.pool.shortage(), NoAccountUsable) and made.pool.credentials() == []


async def test_a_parked_key_rests_and_all_of_them_tell_for_how_long() -> None:
    async with house("a", "b") as made:
        await made.use(THROTTLED, only="a")
        assert await made.use(THROTTLED) == "b"
        assert [(report.state, report.reason) for report in made.pool.reports()] == [
            (KeyState.THROTTLED, "too often")
        ] * 2
        with pytest.raises(AccountsOutOfQuota, match="every API key") as parked:
            await made.use()
        assert parked.value.retry_after_seconds == 7.0
        with pytest.raises(AccountsOutOfQuota, match="the API key"):
            await made.use(only="a")
        await made.clock.advance(7.1)
        assert await made.use() == "a"


async def test_a_success_forgives_failures_and_is_no_news_of_a_sound_key(caplog: pytest.LogCaptureFixture) -> None:
    async with house("a") as made:
        await made.use(Outcome(kind=OutcomeKind.SUCCEEDED))
        assert made.kept == {}
        await made.use(FAILED)
        assert made.kept["a"].failures_in_a_row == 1 and caplog.text.count("API key outcome") == 1
        await made.use(Outcome(kind=OutcomeKind.SUCCEEDED))
        assert made.kept["a"].failures_in_a_row == 0 and caplog.text.count("API key outcome") == 1


async def test_a_lease_tells_once_and_one_that_says_nothing_changes_nothing() -> None:
    async with house("a") as made:
        async with made.lease() as lease:
            lease.report(THROTTLED)
            lease.report(REJECTED)
        await made.clock.settle()
        assert made.states() == ["throttled"]
        await made.clock.advance(10.0)
        before = made.kept["a"]
        await made.use()
        assert made.kept["a"] == before


async def test_a_rejection_of_a_token_that_was_replaced_meanwhile_says_nothing() -> None:
    bank, clock = Bank(), FakeClock()
    saved: list[str] = []

    async def save(id: str, change: Change) -> None:
        saved.append(id)

    pool = KeyPool(spec("old"), EXIT, digest=lambda key: "one", save=save, trading=bank, clock=clock)
    async with pool.lease(Feature.CHAT, deadline=clock.monotonic() + 1) as lease:
        pool.use(spec("new"), EXIT)
        lease.report(REJECTED)
    async with pool.lease(Feature.CHAT, deadline=clock.monotonic() + 1) as lease:
        assert lease.credential.token == Secret("new")
        lease.report(REJECTED)
    await clock.settle()
    assert saved == ["one"]
    await pool.close()


async def test_a_key_can_not_be_renewed() -> None:
    async with house("a") as made:
        (credential,) = made.pool.credentials()
        with pytest.raises(CredentialRejected, match="'lab' was refused"):
            await made.pool.renew(credential, deadline=1.0)


# --- other keys


async def test_a_key_that_stays_keeps_its_health_and_a_new_one_is_sound() -> None:
    async with house("a", "b") as made:
        await made.use(REJECTED, only="a")
        made.pool.use(spec("c", "a"), EXIT)
        assert made.states() == ["ready", "retired"]
        assert [await made.use() for _ in range(2)] == ["c", "c"]


async def test_of_a_key_that_is_gone_nothing_is_learned_or_kept() -> None:
    async with house("a", "b") as made:
        async with made.lease(only="a") as lease:
            made.pool.use(spec("b"), EXIT)
            assert made.pool.find("a") is None and made.pool.find("b") is not None
            lease.report(REJECTED)
        await made.clock.settle()
        assert made.kept == {}
        made.pool.use(spec("a", "b"), EXIT)
        assert made.states() == ["ready", "ready"]


async def test_what_others_write_is_known_also_before_the_key_is() -> None:
    async with house("a") as made:
        retired = KeyHealth(retired="elsewhere")
        made.pool.learned("b", retired)
        made.pool.learned("a", retired)
        assert made.states() == ["retired"]
        made.pool.use(spec("a", "b"), EXIT)
        assert made.states() == ["retired", "retired"]
        made.pool.learned("a", None)
        assert made.states() == ["ready", "retired"]
        made.pool.learned("nobody", None)


# --- limits over all processes


async def test_who_finds_no_use_waits_for_one_in_turn() -> None:
    async with house("a", "b", key_concurrency=1) as made:
        first, second = made.lease(), made.lease()
        async with first, second:
            assert made.bank.taken == Counter({"key:lab:a": 1, "key:lab:b": 1})
            assert {(hold.name, hold.count) for hold in made.pool.held()} == {("key:lab:a", 1), ("key:lab:b", 1)}
            waiting = [made.lease(), made.lease()]
            tasks = [made.in_time(lease) for lease in waiting]
            await made.clock.settle()
            assert made.pool.is_hungry and not any(task.done() for task in tasks)
            await made.give_back(first)
            await made.clock.advance(ASK_AGAIN_SECONDS)
            assert [task.done() for task in tasks] == [True, False]
            await made.give_back(waiting[0])
            await made.clock.advance(ASK_AGAIN_SECONDS)
            assert tasks[1].done() and not made.pool.is_hungry
            await made.give_back(waiting[1])
            await first.__aenter__()
        await made.clock.settle()
        assert not +made.bank.taken and list(made.pool.held()) == []


async def test_a_use_that_another_process_gives_back_is_found_soon() -> None:
    bank = Bank()
    async with house("a", bank=bank, concurrency=1) as one, house("a", bank=bank, concurrency=1) as two:
        lease, other = one.lease(), two.lease()
        await lease.__aenter__()
        task = two.in_time(other)
        await two.clock.advance(ASK_AGAIN_SECONDS * 2)
        assert not task.done()
        await one.give_back(lease)
        await two.clock.advance(ASK_AGAIN_SECONDS * 2)
        assert task.done() and bank.taken["backend:lab"] == 1
        await two.give_back(other)


async def test_who_waits_beyond_the_deadline_is_told() -> None:
    async with house("a", concurrency=1) as made:
        async with made.lease():
            task = made.in_time(made.lease(seconds=1.0))
            await made.clock.advance(1.1)
            with pytest.raises(AccountsBusy, match="as often as it may"):
                await task


async def test_a_backends_use_without_one_of_a_key_is_given_back() -> None:
    async with house("a", concurrency=5, key_concurrency=1) as made:
        async with made.lease():
            task = made.in_time(made.lease(seconds=1.0))
            await made.clock.settle()
            assert made.bank.taken == Counter({"backend:lab": 1, "key:lab:a": 1})
            await made.clock.advance(1.1)
            with pytest.raises(AccountsBusy):
                await task


async def test_a_store_that_can_not_be_reached_is_told() -> None:
    async with house("a", concurrency=1, key_concurrency=1) as made:
        made.bank.failure = StoreUnavailable("down")
        with pytest.raises(StoreUnavailable):
            await made.use()
        made.bank.failure = None
        assert await made.use() == "a"


async def test_who_leaves_while_a_use_is_asked_for_leaves_none_taken() -> None:
    async with house("a", concurrency=1) as made:
        made.bank.gate.clear()
        task = made.in_time(made.lease())
        await made.clock.settle()
        task.cancel()
        await made.clock.settle()
        made.bank.gate.set()
        await made.clock.settle()
        assert task.cancelled() and not +made.bank.taken and list(made.pool.held()) == []


async def test_who_leaves_the_line_is_not_waited_for() -> None:
    async with house("a", concurrency=1) as made:
        async with made.lease():
            tasks = [made.in_time(made.lease()) for _ in range(2)]
            await made.clock.settle()
            tasks[0].cancel()
            await made.clock.settle()
            assert tasks[0].cancelled() and not tasks[1].done()
        await made.clock.settle()
        assert tasks[1].done()
        await made.give_back(await tasks[1])


async def test_a_limit_that_is_taken_away_lets_all_in_who_wait() -> None:
    async with house("a", concurrency=1) as made:
        first = made.lease()
        async with first:
            waiting = [made.lease() for _ in range(3)]
            tasks = [made.in_time(lease) for lease in waiting]
            await made.clock.settle()
            made.pool.use(spec("a"), EXIT)
            await made.clock.settle()
            assert all(task.done() for task in tasks)
            for lease in waiting:
                await made.give_back(lease)
        await made.clock.settle()
        assert not +made.bank.taken


# --- the end


async def test_who_waits_at_the_end_is_told_and_nobody_begins() -> None:
    async with house("a", concurrency=1) as made:
        lease = made.lease()
        await lease.__aenter__()
        task = made.in_time(made.lease())
        await made.clock.settle()
        await made.pool.close()
        with pytest.raises(ShuttingDown):
            await task
        with pytest.raises(ShuttingDown):
            await made.use()
        lease.report(REJECTED)
        await made.give_back(lease)
        assert made.kept == {} and made.states() == ["retired"]  # this process knows; nothing is begun any more
