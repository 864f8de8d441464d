"""The memory store, and the rule for accounts that are given again."""

from msgspec.structs import replace

from qwen_proxy.accounts.health import HEALTHY, AccountHealth, SignInHealth, SignInState
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.accounts.store import AccountStore
from qwen_proxy.ground.secret import Secret
from qwen_proxy.storage.memory import MemoryAccountStore

ACCOUNT = Account(id="a@x", email="a@x", password=Secret("one"), cookies=Secret("cna=1"))
TOKEN = Credential(account_id="a@x", token=Secret("t"), cookies=Secret("cna=1"))
USED = AccountHealth(sign_in=SignInHealth(state=SignInState.SUCCEEDED), succeeded=7)


async def filled() -> AccountStore:
    store: AccountStore = MemoryAccountStore()
    await store.upsert(ACCOUNT)
    await store.save_credential("a@x", TOKEN)
    await store.save_health("a@x", USED)
    return store


async def test_what_is_saved_is_loaded_in_order() -> None:
    store = await filled()
    await store.upsert(Account(id="A@x", email="A@x"))
    first, second = await store.load()
    assert first.account.id == "A@x"
    assert (second.account, second.credential, second.health) == (ACCOUNT, TOKEN, USED)


async def test_a_stored_token_wins_while_the_password_is_the_same() -> None:
    store = await filled()
    stored = await store.upsert(replace(ACCOUNT, cookies=None, exit="http://p"))
    assert stored.credential == replace(TOKEN, exit="http://p")
    assert stored.account.cookies == ACCOUNT.cookies
    assert stored.health == USED


async def test_another_password_drops_the_token_and_what_is_known_of_sign_in() -> None:
    store = await filled()
    stored = await store.upsert(replace(ACCOUNT, password=Secret("two")))
    assert stored.credential is None
    assert stored.health == replace(USED, sign_in=HEALTHY.sign_in)


async def test_an_account_without_token_may_be_given_again() -> None:
    store = await filled()
    await store.save_credential("a@x", None)
    assert (await store.upsert(ACCOUNT)).credential is None


async def test_what_is_not_there_is_not_saved() -> None:
    store = await filled()
    await store.delete("a@x")
    await store.delete("a@x")
    await store.save_credential("a@x", TOKEN)
    await store.save_health("a@x", USED)
    assert await store.load() == []
