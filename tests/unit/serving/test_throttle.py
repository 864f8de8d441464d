import asyncio
from collections.abc import Sequence

import pytest

from qwen_proxy.ground.errors import TooManyAttempts
from qwen_proxy.serving.throttle import REFUSING_SECONDS, WINDOW_SECONDS, Throttle
from qwen_proxy.state.store import Draw, Drawn
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

RIGHT, ME, OTHER = "the right key", "203.0.113.5", "203.0.113.6"


class CountingStore(MemoryStore):
    asked = 0

    async def draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        self.asked += 1
        return await super().draw(draws)


class Gate:
    """A throttle of three guesses an address and five altogether; of one process among those with the same store."""

    def __init__(self, clock: FakeClock, store: MemoryStore | None = None, vault: Vault | None = None) -> None:
        self.store = store or MemoryStore(clock)
        self.vault = vault or Vault(new_document())
        self.throttle = Throttle(self.store, self.vault, clock, per_address=3, altogether=5)
        self.looked_at = 0

    async def knock(self, key: str, address: str = ME) -> str:
        async def find() -> str | None:
            self.looked_at += 1
            await asyncio.sleep(0)
            return key if key == RIGHT else None

        try:
            return await self.throttle.check(address, find) or "wrong"
        except TooManyAttempts:
            return "refused"


async def test_after_a_few_wrong_keys_an_address_is_refused_unseen_until_the_window_ends() -> None:
    clock = FakeClock()
    gate = Gate(clock)
    assert [await gate.knock(f"guess {number}") for number in range(5)] == ["wrong"] * 3 + ["refused"] * 2
    assert await gate.knock(RIGHT) == "refused"
    assert gate.looked_at == 3
    assert await gate.knock(RIGHT, OTHER) == RIGHT
    await clock.advance(WINDOW_SECONDS)
    assert await gate.knock(RIGHT) == RIGHT


async def test_the_time_to_wait_is_told() -> None:
    clock = FakeClock(now=WINDOW_SECONDS * 1_000_000 + 100)
    gate = Gate(clock)
    for _ in range(3):
        await gate.throttle.wrong(ME)
    for _ in range(2):  # once from the store, once from memory
        with pytest.raises(TooManyAttempts) as caught:
            await gate.throttle.wrong(ME)
        assert caught.value.retry_after_seconds == WINDOW_SECONDS - 100


async def test_right_keys_use_nothing_up_however_many_come_at_once() -> None:
    gate = Gate(FakeClock())
    assert await asyncio.gather(*(gate.knock(RIGHT) for _ in range(50))) == [RIGHT] * 50
    assert await gate.knock("guess") == "wrong"


async def test_all_addresses_together_have_a_limit_too() -> None:
    gate = Gate(FakeClock())
    answers = [await gate.knock("guess", f"203.0.113.{number}") for number in range(7)]
    assert answers == ["wrong"] * 5 + ["refused"] * 2
    # ... and one who was refused for what others did has used up none of its own.
    own = await gate.store.draw(
        [Draw(name=name, ends_at=1e12, limit=9, need=0) for name in _names(gate, "203.0.113.6")]
    )
    assert [each.used for each in own] == [0, 5]


def _names(gate: Gate, address: str) -> list[str]:
    window = int(FakeClock().now() // WINDOW_SECONDS)
    digest = gate.vault.digest(address, "sign-in address")[:32]
    return [f"signin:{window}:{digest}", f"signin:{window}"]


async def test_an_ipv6_site_is_one_address() -> None:
    gate = Gate(FakeClock())
    answers = [await gate.knock("guess", f"2001:db8:1:2::{number}") for number in range(4)]
    assert answers == ["wrong"] * 3 + ["refused"]


async def test_processes_count_together() -> None:
    clock = FakeClock()
    one = Gate(clock)
    other = Gate(clock, one.store, one.vault)
    answers = [await gate.knock("guess") for gate in (one, other, one, other, one)]
    assert answers == ["wrong"] * 3 + ["refused"] * 2


async def test_a_flood_is_refused_without_asking_the_store_each_time() -> None:
    clock = FakeClock()
    store = CountingStore(clock)
    gate = Gate(clock, store)
    for _ in range(100):
        await gate.knock("guess")
    assert store.asked == 4
    await clock.advance(REFUSING_SECONDS)
    assert await gate.knock("guess") == "refused"
    assert store.asked == 5
