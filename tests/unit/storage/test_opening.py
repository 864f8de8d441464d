"""Which store the settings mean, and the vault over it."""

import asyncio
import stat
from pathlib import Path

import pytest

from qwen_proxy.config.settings import WrongSetting, load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import VAULT
from qwen_proxy.state.vault import rotated
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.opening import (
    FilePlace,
    MemoryPlace,
    RedisPlace,
    load_vault,
    open_store,
    place_of,
    save_vault,
)
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.storage.sqlite import SqliteStore
from tests.support.clock import FakeClock
from tests.support.redis_server import shared

SECRET = Secret("sixteen characters and more")


def test_the_mode_says_where_data_is(tmp_path: Path) -> None:
    assert place_of(load({"DATA_SAVE_MODE": "none"}, None)) == MemoryPlace()
    settings = load({"DATA_SAVE_MODE": "file", "DATA_DIR": str(tmp_path)}, None)
    assert place_of(settings) == FilePlace(tmp_path / "qwen-proxy.db")
    settings = load({"DATA_SAVE_MODE": "redis", "REDIS_URL": "redis://:pw@h", "REDIS_PREFIX": "two"}, None)
    assert place_of(settings) == RedisPlace(Secret("redis://:pw@h"), "two", None)


def test_redis_needs_an_address() -> None:
    with pytest.raises(WrongSetting, match="REDIS_URL"):
        place_of(load({"DATA_SAVE_MODE": "redis"}, None))


async def test_each_place_has_its_store(tmp_path: Path) -> None:
    async with open_store(MemoryPlace(), FakeClock()) as store:
        assert isinstance(store, MemoryStore)
    path = tmp_path / "data" / "qwen-proxy.db"
    async with open_store(FilePlace(path), FakeClock()) as store:
        assert isinstance(store, SqliteStore)
        assert await store.check() is None
    place = RedisPlace(Secret(shared().socket_url), "test-opening", None)
    async with open_store(place, FakeClock()) as store:
        assert isinstance(store, RedisStore)
        assert await store.check() is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_is_no_database_names_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "qwen-proxy.db"
    path.write_bytes(b"not a database, and long enough to be taken for one" * 100)
    with pytest.raises(WrongSetting, match="damaged") as raised:
        async with open_store(FilePlace(path), FakeClock()):
            pass
    assert raised.value.variable == "DATA_DIR"


async def test_all_processes_get_the_vault_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    clock = FakeClock()
    async with SqliteStore(path, clock) as first, SqliteStore(path, clock) as second:
        vaults = await asyncio.gather(*(load_vault(store, SECRET) for _ in range(5) for store in (first, second)))
        assert len({vault.document.pepper for vault in vaults}) == 1
        assert vaults[0].open(vaults[-1].seal(b"value", "kind", "id"), "kind", "id") == b"value"
        record = await first.get(VAULT, "keys")
        assert record is not None and vaults[0].document.pepper not in record.value


async def test_another_secret_than_the_datas_is_told_by_its_variable() -> None:
    store = MemoryStore(FakeClock())
    await load_vault(store, SECRET)
    with pytest.raises(WrongSetting, match="written with") as raised:
        await load_vault(store, Secret("canary of sixteen and more"))
    assert raised.value.variable == "SECRET_KEY"
    assert "canary" not in str(raised.value)


async def test_a_vault_saved_under_another_secret_opens_what_was_sealed_before() -> None:
    store = MemoryStore(FakeClock())
    old = await load_vault(store, SECRET)
    sealed = old.seal(b"value", "kind", "id")
    other = Secret("another secret, long enough")
    await save_vault(store, rotated(old.document), other)
    new = await load_vault(store, other)
    assert new.open(sealed, "kind", "id") == b"value"
    assert not new.is_current(sealed)
    assert new.digest("key", "client") == old.digest("key", "client")
    with pytest.raises(WrongSetting):
        await load_vault(store, SECRET)


async def test_a_vault_may_be_put_where_there_is_none() -> None:
    source, target = MemoryStore(FakeClock()), MemoryStore(FakeClock())
    vault = await load_vault(source, SECRET)
    await save_vault(target, vault.document, SECRET)
    assert (await load_vault(target, SECRET)).document == vault.document
