"""The accounts as they are kept, when the record of one of them is damaged."""

import pytest

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.health import AccountHealth
from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.state.kinds import ACCOUNT, HEALTH
from qwen_proxy.state.store import Append, Put
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.unit.accounts.house import account

DAMAGED = "b@x.org"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(FakeClock())


@pytest.fixture
async def book(store: MemoryStore) -> AccountBook:
    """Of three accounts; the second is damaged."""
    book = AccountBook(store, Vault(new_document()))
    for name in "abc":
        await book.put(account(name))
    await store.write([Put(kind=ACCOUNT, id=DAMAGED, value=b"\x01damaged")])
    return book


async def test_the_others_are_read_and_all_are_counted(book: AccountBook) -> None:
    assert [each.account.id for each in await book.all()] == ["a@x.org", "c@x.org"]
    assert await book.ids() == ["a@x.org", DAMAGED, "c@x.org"]


async def test_it_is_neither_taken_for_another_nor_written_over(store: MemoryStore, book: AccountBook) -> None:
    with pytest.raises(Unreadable):
        await book.get(DAMAGED)
    with pytest.raises(Unreadable):
        await book.put(account("b"))
    record = await store.get(ACCOUNT, DAMAGED)
    assert record is not None and record.value == b"\x01damaged"


async def test_it_is_removed_with_its_health(store: MemoryStore, book: AccountBook) -> None:
    await store.write([book.healths.put(DAMAGED, AccountHealth())])
    assert await book.remove(DAMAGED, Append(topic="audit", value=b"line"))
    assert await store.get(ACCOUNT, DAMAGED) is None and await store.get(HEALTH, DAMAGED) is None
    assert len(await store.log("audit")) == 1
    assert not await book.remove(DAMAGED, Append(topic="audit", value=b"line"))
    assert len(await store.log("audit")) == 1


async def test_a_damaged_health_is_as_good_as_none(store: MemoryStore, book: AccountBook) -> None:
    await store.write([Put(kind=HEALTH, id="a@x.org", value=b"\xc1")])
    found = {each.account.id: each.health for each in await book.all()}
    assert found["a@x.org"] == AccountHealth()
