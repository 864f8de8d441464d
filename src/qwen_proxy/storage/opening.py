"""Where the data of this installation is, the store over it, and the vault that its secrets are sealed in."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.config.choices import SaveMode
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import MASK, Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.kinds import VAULT
from qwen_proxy.state.store import Conflict, Put, Store
from qwen_proxy.state.vault import Vault, VaultDocument, WrongSecret, new_document, unwrap, wrap
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.storage.sqlite import SqliteStore

FILE_NAME: Final = "qwen-proxy.db"
VAULT_ID: Final = "keys"
NEXT_VAULT_ID: Final = (
    "keys.next"  # the same keys, wrapped under the secret that is to come: see operations/rotation.py
)
RIGHT_SECRET: Final = (
    "the secret that this data was written with; when it was unset then: DATA_DIR/secret.key as it was, which every"
    " machine that shares the data needs"
)


class MemoryPlace(Struct, frozen=True):
    """In this process alone, and gone at its end."""


class FilePlace(Struct, frozen=True):
    """An SQLite file, which every process of this machine may open."""

    path: Path


class RedisPlace(Struct, frozen=True):
    """A server that processes of several machines share."""

    url: Secret
    prefix: str
    ca_file: Path | None = None


Place = MemoryPlace | FilePlace | RedisPlace


def place_of(settings: Settings) -> Place:
    """What DATA_SAVE_MODE means. Raises WrongSetting for redis without an address."""
    match settings.save_mode:
        case SaveMode.NONE:
            return MemoryPlace()
        case SaveMode.FILE:
            return FilePlace(settings.data_dir / FILE_NAME)
        case SaveMode.REDIS:
            if settings.redis_url is None:
                raise WrongSetting("REDIS_URL", "", "the address of a Redis, since DATA_SAVE_MODE is redis")
            return RedisPlace(settings.redis_url, settings.redis_prefix, settings.ca_file)


@asynccontextmanager
async def open_store(place: Place, clock: Clock) -> AsyncGenerator[Store]:
    """Raises WrongSetting for a file that can't be used, and StoreUnavailable for a server that does not answer."""
    match place:
        case MemoryPlace():
            yield MemoryStore(clock)
        case FilePlace(path):
            async with AsyncExitStack() as stack:
                try:
                    store = await stack.enter_async_context(SqliteStore(path, clock))
                except StoreUnavailable as error:
                    right = f"a folder whose {path.name} can be used ({error.problem})"
                    raise WrongSetting("DATA_DIR", str(path.parent), right) from error
                yield store
        case RedisPlace(url, prefix, ca_file):
            async with RedisStore(url, prefix, clock, ca_file=ca_file) as store:
                yield store


async def load_vault(store: Store, secret: Secret) -> Vault:
    """The keys that values are sealed with, which are made the first time, whoever of several processes comes first.

    Raises WrongSetting when `secret` is not the one that the data was written with, and StoreUnavailable.
    """
    while True:
        record = await store.get(VAULT, VAULT_ID)
        if record is None:
            with suppress(Conflict):  # another process came first: its keys are everybody's
                await store.write([wrapped_vault(new_document(), secret, expect=0)])
            continue
        for wrapped in (record, await store.get(VAULT, NEXT_VAULT_ID)):
            with suppress(WrongSecret):
                if wrapped is not None:
                    return Vault(msgspec.msgpack.decode(unwrap(wrapped.value, secret), type=VaultDocument))
        if await store.get(VAULT, VAULT_ID) == record:  # else the secret was changed while we looked
            raise WrongSetting("SECRET_KEY", MASK, RIGHT_SECRET)


async def save_vault(store: Store, document: VaultDocument, secret: Secret) -> None:
    """Keep these keys, wrapped under `secret` from now on: for another secret, or another data key.

    What is sealed stays as it is, and every process goes on with the keys it has loaded. Raises Conflict when another
    did the same meanwhile, and StoreUnavailable.
    """
    record = await store.get(VAULT, VAULT_ID)
    await store.write([wrapped_vault(document, secret, expect=0 if record is None else record.version)])


def wrapped_vault(document: VaultDocument, secret: Secret, *, id: str = VAULT_ID, expect: int | None = None) -> Put:
    """A change for `Store.write`."""
    return Put(kind=VAULT, id=id, value=wrap(msgspec.msgpack.encode(document), secret), expect=expect)
