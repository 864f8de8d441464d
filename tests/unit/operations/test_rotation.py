"""Another secret and other data keys: interrupted anywhere, the data opens, and doing it again ends it."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.bulk.model import BatchLine
from qwen_proxy.accounts.model import Account
from qwen_proxy.config import keyfile
from qwen_proxy.config.secret_key import load_secret
from qwen_proxy.config.settings import WrongSetting, load
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.integrity import DOCUMENTS, examine
from qwen_proxy.operations.offline import Opened, ServersRunning
from qwen_proxy.operations.rotation import (
    AT_ONCE,
    RotationRefused,
    begin,
    finish,
    is_under_way,
    new_secret,
    renew_data_key,
    rotate_file,
)
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.kinds import ACCOUNT, BATCH_LINE, KINDS, VAULT
from qwen_proxy.state.store import Change, ProcessRow, Put, Record, Store, Written
from qwen_proxy.state.vault import Vault, WrongSecret
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.opening import VAULT_ID, load_vault
from tests.support.clock import FakeClock

OLD, NEW, OTHER = Secret("old" * 10), Secret("new" * 10), Secret("other" * 10)
IDS = SystemIds()
ROW = ProcessRow(id="p", host="h", pid=7, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")


class Crashing(MemoryStore):
    """Dies in place of a write: `in_writes` is how many are done before, None for all."""

    in_writes: int | None = None

    async def write(self, changes: Sequence[Change]) -> Written:
        if self.in_writes is not None:
            if self.in_writes == 0:
                raise StoreUnavailable("killed")
            self.in_writes -= 1
        return await super().write(changes)


async def furnished(secret: Secret = OLD, accounts: int = 2) -> Crashing:
    store = Crashing(FakeClock())
    book = AccountBook(store, await load_vault(store, secret))
    for number in range(accounts):
        await book.put(Account(id=f"a{number}@x.example", email=f"a{number}@x.example", password=Secret("pw")))
    return store


async def opens(store: Store, secret: Secret) -> bool:
    """Whether a process that starts now with this secret can read what is kept."""
    try:
        vault = await load_vault(store, secret)
    except WrongSetting:
        return False
    return all(stored.account.password == Secret("pw") for stored in await AccountBook(store, vault).all())


async def secrets_that_open(store: Store) -> list[Secret]:
    return [secret for secret in (OLD, NEW, OTHER) if await opens(store, secret)]


# --- the secret ---------------------------------------------------------------------------------------------


async def test_both_secrets_open_the_data_until_it_is_finished() -> None:
    store = await furnished()
    await begin(store, OLD, NEW)
    assert await secrets_that_open(store) == [OLD, NEW] and await is_under_way(store)
    await finish(store, NEW)
    assert await secrets_that_open(store) == [NEW] and not await is_under_way(store)


async def test_it_is_not_finished_before_the_new_secret_is_in_place() -> None:
    store = await furnished()
    with pytest.raises(RotationRefused, match="under way"):
        await finish(store, OLD)
    await begin(store, OLD, NEW)
    with pytest.raises(RotationRefused, match="still the old one"):
        await finish(store, OLD)
    assert await secrets_that_open(store) == [OLD, NEW]


async def test_begun_again_it_gives_up_the_secret_that_was_not_put_in_place() -> None:
    store = await furnished()
    await begin(store, OLD, NEW)
    await begin(store, OLD, OTHER)
    assert await secrets_that_open(store) == [OLD, OTHER]


async def test_begun_again_with_the_new_secret_in_place_the_first_change_is_finished_first() -> None:
    store = await furnished()
    await begin(store, OLD, NEW)
    await begin(store, NEW, OTHER)
    assert await secrets_that_open(store) == [NEW, OTHER]
    with pytest.raises(RotationRefused):
        await begin(store, OLD, NEW)


def file_secret(folder: Path) -> Secret:
    return load_secret(load({"DATA_DIR": str(folder)}, None), IDS).secret


@pytest.mark.parametrize("writes", [0, 1])
async def test_killed_at_any_write_the_file_opens_the_data_and_again_ends_it(tmp_path: Path, writes: int) -> None:
    old = file_secret(tmp_path)
    path = tmp_path / "secret.key"
    store = await furnished(old)
    for _ in range(3):  # killed once, killed in the repair, and done
        store.in_writes = writes
        with pytest.raises(StoreUnavailable):
            await rotate_file(store, path, file_secret(tmp_path), IDS)
        store.in_writes = None
        assert await opens(store, file_secret(tmp_path))
    await rotate_file(store, path, file_secret(tmp_path), IDS)
    now = file_secret(tmp_path)
    assert now != old and await opens(store, now) and not await opens(store, old)
    assert not await is_under_way(store)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["secret.key"]


async def test_a_file_that_can_not_be_written_leaves_the_old_secret_in_force(tmp_path: Path) -> None:
    store = await furnished()
    with pytest.raises(OSError):
        await rotate_file(store, tmp_path / "nowhere" / "secret.key", OLD, IDS)
    assert await opens(store, OLD)


class Overtaken(Crashing):
    """The vault document is written by another process just before our write."""

    is_overtaken = False

    async def write(self, changes: Sequence[Change]) -> Written:
        if self.is_overtaken:
            self.is_overtaken = False
            record = await self.get(VAULT, VAULT_ID)
            assert record is not None
            await super().write([Put(kind=VAULT, id=VAULT_ID, value=record.value)])
        return await super().write(changes)


async def test_two_changes_at_the_same_moment_do_not_undo_each_other() -> None:
    store = Overtaken(FakeClock())
    await load_vault(store, OLD)
    store.is_overtaken = True
    with pytest.raises(RotationRefused, match="do it again"):
        await begin(store, OLD, NEW)
    await begin(store, OLD, NEW)
    store.is_overtaken = True
    with pytest.raises(RotationRefused, match="do it again"):
        await finish(store, NEW)
    with pytest.raises(RotationRefused, match="finish it first"):
        await renew_data_key(store, OLD, FakeClock())
    await finish(store, NEW)
    store.is_overtaken = True
    with pytest.raises(RotationRefused, match="do it again"):
        await renew_data_key(store, NEW, FakeClock())
    assert await secrets_that_open(store) == [NEW]


class Finishing(MemoryStore):
    """The change of the secret ends between the looks of a process that starts."""

    is_finishing = False

    async def get(self, kind: object, id: str) -> Record | None:
        found = await super().get(VAULT, id)
        if self.is_finishing and id == VAULT_ID:
            self.is_finishing = False
            await finish(self, NEW)
        return found


async def test_a_process_that_starts_while_the_change_is_finished_looks_again() -> None:
    store = Finishing(FakeClock())
    await load_vault(store, OLD)
    await begin(store, OLD, NEW)
    store.is_finishing = True
    assert isinstance(await load_vault(store, NEW), Vault)


def test_a_new_key_in_a_file_of_its_own(tmp_path: Path) -> None:
    keyfile.create(tmp_path / "next", new_secret(IDS))
    assert len((tmp_path / "next").read_text().strip()) == 64
    with pytest.raises(FileExistsError):
        keyfile.create(tmp_path / "next", NEW)
    assert [each.name for each in tmp_path.iterdir()] == ["next"]


# --- data keys ----------------------------------------------------------------------------------------------


async def test_everything_is_sealed_anew_and_the_old_key_is_forgotten() -> None:
    store = await furnished(accounts=AT_ONCE + 5)
    vault = await load_vault(store, OLD)
    line = vault.seal(b"line", BATCH_LINE.name, "b:1")
    await store.write([Put(kind=BATCH_LINE, id="b:1", value=line, lasts_seconds=100.0)])
    before = await store.find(BATCH_LINE)
    told: list[int] = []
    assert await renew_data_key(store, OLD, FakeClock(), told.append) == AT_ONCE + 6
    assert told == [AT_ONCE, AT_ONCE + 5, AT_ONCE + 6]
    renewed = await load_vault(store, OLD)
    assert len(renewed.document.keys) == 1 and renewed.document.keys != vault.document.keys
    assert renewed.document.pepper == vault.document.pepper
    assert await opens(store, OLD)
    (record,) = await store.find(BATCH_LINE)
    assert renewed.open(record.value, BATCH_LINE.name, "b:1") == b"line"
    assert record.expires_at == pytest.approx(before[0].expires_at)
    with pytest.raises(WrongSecret):
        vault.open(record.value, BATCH_LINE.name, "b:1")


@pytest.mark.parametrize("writes", range(4))
async def test_killed_at_any_write_the_data_opens_and_again_ends_it(writes: int) -> None:
    store = await furnished(accounts=AT_ONCE + 5)
    first = (await load_vault(store, OLD)).document.keys
    store.in_writes = writes
    with pytest.raises(StoreUnavailable):
        await renew_data_key(store, OLD, FakeClock())
    store.in_writes = None
    assert await opens(store, OLD)
    interrupted = await load_vault(store, OLD)
    assert bool((await examine(Opened(store, interrupted))).notes) == (writes > 0)
    await renew_data_key(store, OLD, FakeClock())
    renewed = await load_vault(store, OLD)
    assert await opens(store, OLD) and len(renewed.document.keys) == 1
    assert not {key.id for key in renewed.document.keys} & {key.id for key in first}
    if writes > 0:  # the key that was begun with is the one that is kept
        assert renewed.document.keys == interrupted.document.keys[:1]


async def test_no_data_key_is_changed_under_a_running_process() -> None:
    store = await furnished()
    await store.join(ROW, [])
    with pytest.raises(ServersRunning):
        await renew_data_key(store, OLD, FakeClock())
    assert len((await load_vault(store, OLD)).document.keys) == 1


class Intruding(Crashing):
    """A process with the old keys begins while everything is sealed anew, and writes."""

    old: Vault | None = None
    stays = False

    async def write(self, changes: Sequence[Change]) -> Written:
        written = await super().write(changes)
        if (old := self.old) is not None and any(isinstance(each, Put) and each.kind is ACCOUNT for each in changes):
            self.old = None
            if self.stays:
                await self.join(ROW, [])
            await super().write([Put(kind=ACCOUNT, id="a0@x.example", value=old.seal(b"", "account", "a0@x.example"))])
        return written


@pytest.mark.parametrize("stays", [False, True])
async def test_the_old_key_is_kept_while_something_is_sealed_with_it(stays: bool) -> None:
    store = Intruding(FakeClock())
    vault = await load_vault(store, OLD)
    await AccountBook(store, vault).put(Account(id="a0@x.example", email="a0@x.example", password=Secret("pw")))
    store.old, store.stays = vault, stays
    with pytest.raises(ServersRunning if stays else RotationRefused):
        await renew_data_key(store, OLD, FakeClock())
    assert len((await load_vault(store, OLD)).document.keys) == 2


# --- integrity ----------------------------------------------------------------------------------------------


async def test_whole_data_has_no_faults() -> None:
    store = await furnished()
    opened = Opened(store, await load_vault(store, OLD))
    seen = await examine(opened)
    assert (seen.faults, seen.records, seen.notes) == ([], {"account": 2}, [])
    await begin(store, OLD, NEW)
    assert "secret rotate" in (await examine(opened)).notes[0]


async def test_what_can_not_be_read_is_named_and_no_email_is() -> None:
    store = await furnished(accounts=30)
    vault = await load_vault(store, OLD)
    (first, second, *rest) = await store.find(ACCOUNT)
    await store.write([Put(kind=ACCOUNT, id=first.id, value=second.value)])
    odd = vault.seal(msgspec.msgpack.encode(BatchLine(email="b")), BATCH_LINE.name, "b:1")
    await store.write([Put(kind=BATCH_LINE, id="b:1", value=odd), Put(kind=BATCH_LINE, id="b:2", value=odd)])
    seen = await examine(Opened(store, vault))
    assert seen.faults == [
        "account a0***@x.example does not open: it was changed, or belongs to another record",
        "batch_line b:2 does not open: it was changed, or belongs to another record",
    ]
    odd = [Put(kind=ACCOUNT, id=each.id, value=vault.seal(b"\xc0", "account", each.id)) for each in rest]
    await store.write(odd)
    seen = await examine(Opened(store, vault))
    assert "account a1***@x.example has a form unknown to this version" in seen.faults[1]
    assert seen.faults[-1] == "10 more records can't be read"


class Broken(MemoryStore):
    async def check(self) -> str | None:
        return "the database is damaged"


def test_every_kind_of_record_is_looked_into() -> None:
    assert set(KINDS) - set(DOCUMENTS) == {VAULT}
    assert all(kind.is_sealed or not any(_secrets(document)) for kind, document in DOCUMENTS.items())


def _secrets(document: type[Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(document) if "Secret" in str(field.type)]


async def test_a_damaged_file_is_a_fault() -> None:
    store = Broken(FakeClock())
    assert (await examine(Opened(store, await load_vault(store, OLD)))).faults == ["the database is damaged"]
