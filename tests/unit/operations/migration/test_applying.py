"""A plan is carried out, and a second time finds nothing to do."""

from collections.abc import Sequence

from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.model import Account
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.keybook import KeyBook, NewKey
from qwen_proxy.config.keys import Keys
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.applying import AT_ONCE, Done, Migration
from qwen_proxy.operations.migration.data_json import read
from qwen_proxy.operations.migration.found import Found
from qwen_proxy.operations.migration.planning import Plan, plan
from qwen_proxy.operations.offline import Opened
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import Change, Store, UsageCounts, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.original import account, data_json

SETTINGS = load({"API_KEY": "sk-the-first-admin-key,sk-another-listed-key"}, None)
ENDS_AT = 1_900_000_000


class House:
    """An empty installation in memory."""

    def __init__(self, store: Store | None = None) -> None:
        self.clock = FakeClock()
        self.machine = Machine(clock=self.clock)
        self.opened = Opened(store or MemoryStore(self.clock), Vault(new_document()))
        self.book = AccountBook(self.opened.store, self.opened.vault)
        self.keys = KeyBook(self.opened.store, self.opened.vault, self.clock, self.machine.ids)

    async def plan(self, found: Found, *, overwrites: bool = False) -> tuple[Migration, Plan]:
        migration = Migration(self.opened, SETTINGS, self.machine)
        return migration, plan(found, await migration.present(found), overwrites=overwrites)

    async def migrate(self, found: Found, *, overwrites: bool = False) -> list[Done]:
        migration, made = await self.plan(found, overwrites=overwrites)
        told: list[Done] = []
        await migration.apply(made, told.append)
        return told


def original(count: int = 2) -> Found:
    return read(data_json(*(account(f"user{n}@x.example", f"pw-{n}") for n in range(count))), "d", today=0)


async def test_all_of_it_is_there_afterwards_and_a_second_time_changes_nothing() -> None:
    house = House()
    await house.migrate(original())
    stored = await house.book.get("user1@x.example")
    assert stored is not None and stored.credential is not None
    assert (stored.account.password, stored.credential.expires_at) == (Secret("pw-1"), ENDS_AT)
    keys = Keys(house.opened.store, house.opened.vault)
    keys.take(await house.opened.store.find(KEY), ())
    key = keys.find("sk-a-users-key")
    assert key is not None and key.why_useless(house.clock.now()) is None
    watch = Watch(house.opened.store, house.clock)
    live = LiveSettings(SETTINGS, house.opened.store, house.opened.vault, watch)
    await watch.load()
    assert (live.current.chat_retry_count, live.current.chat_retry_backoff_ms) == (3, 250)
    assert [entry.line.by for entry in await live.history()] == ["command line"]
    usage = await house.opened.store.usage(0, 2e9, by_day=True)
    assert list(usage.values()) == [UsageCounts(prompt_tokens=1200, completion_tokens=340)] * 2

    before = await everything(house)
    _, again = await house.plan(original())
    assert again.is_empty
    await house.migrate(original())
    assert await everything(house) == before


async def everything(house: House) -> object:
    store = house.opened.store
    return await store.generation(), await store.usage(0, 2e9), await store.usage(0, 2e9, by_day=True)


async def test_many_accounts_are_written_together_and_their_progress_is_told() -> None:
    house = House()
    told = await house.migrate(original(2 * AT_ONCE + 1))
    assert [(each.done, each.total) for each in told] == [(200, 401), (400, 401), (401, 401)]
    assert len(await house.book.all()) == 401


async def test_what_is_kept_stays_but_for_what_it_lacks() -> None:
    house = House()
    await house.book.put(Account(id="user0@x.example", email="user0@x.example", password=Secret("ours"), note="n"))
    await house.book.put(Account(id="user1@x.example", email="user1@x.example", note="n"))
    await house.migrate(original())
    first, second = await house.book.all()
    assert (first.account.password, first.credential) == (Secret("ours"), None)
    assert second.account.password == Secret("pw-1") and second.account.note == "n"
    assert second.credential is not None
    await house.migrate(original(), overwrites=True)
    first, _ = await house.book.all()
    assert first.account.password == Secret("pw-0") and first.credential is not None and first.account.note == "n"


async def test_keys_that_are_known_are_not_made_anew() -> None:
    house = House()
    found = replace(original(0), keys=(Secret("sk-another-listed-key"), Secret("sk-revoked-long-ago")))
    made, _ = await house.keys.create(NewKey(), given=Secret("sk-revoked-long-ago"))
    await house.keys.revoke(made.id)
    _, planned = await house.plan(found)
    assert planned.keys == ()
    assert [row.says for row in planned.rows if row.what == "key"][:2] == ["is in API_KEY", "is here, and was revoked"]


async def test_a_key_that_somebody_else_made_meanwhile_is_no_failure() -> None:
    house = House()
    migration, planned = await house.plan(original(0))
    await house.keys.create(NewKey(), given=Secret("sk-a-users-key"))
    await migration.apply(planned)
    assert len(await house.keys.all()) == 1


class Overtaken(MemoryStore):
    """Another process adds user1 just before the first write."""

    house: House | None = None

    async def write(self, changes: Sequence[Change]) -> Written:
        if (house := self.house) is not None:
            self.house = None
            await house.book.put(Account(id="user1@x.example", email="user1@x.example", note="theirs"))
        return await super().write(changes)


async def test_accounts_that_another_process_adds_meanwhile_are_merged() -> None:
    store = Overtaken(FakeClock())
    house = House(store)
    migration, planned = await house.plan(original(3))
    store.house = house
    await migration.apply(planned)
    stored = await house.book.all()
    assert [each.account.password for each in stored] == [Secret("pw-0"), Secret("pw-1"), Secret("pw-2")]


async def test_an_interrupted_migration_is_done_again() -> None:
    """A plan that was carried out in part: what is done again conflicts with nothing."""
    house = House()
    migration, planned = await house.plan(original(3))
    await migration.apply(replace(planned, accounts=planned.accounts[:1], keys=(), settings={}))
    _, rest = await house.plan(original(3))
    assert [each.account.id for each in rest.accounts] == ["user1@x.example", "user2@x.example"]
    assert not rest.usage and rest.keys and rest.settings
