"""Client keys over a memory store."""

from collections.abc import Sequence
from contextlib import suppress

from qwen_proxy.config.keybook import KeyBook
from qwen_proxy.config.keys import ClientKey, KeyLimits, KeyOrigin, KeyRecord, Keys, Role
from qwen_proxy.ground.errors import NotFound
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock


class KeyHouse:
    """The keys of one process. Others of the same installation have the same store and vault."""

    def __init__(self, clock: FakeClock, store: Store | None = None, vault: Vault | None = None) -> None:
        self.clock = clock
        self.store = store or MemoryStore(clock)
        self.vault = vault or Vault(new_document())
        self.book = KeyBook(self.store, self.vault, clock, SystemIds())
        self.keys = Keys(self.store, self.vault)
        self.watch = Watch(self.store, clock)
        self.keys.subscribe(self.watch)

    def other(self) -> "KeyHouse":
        """Another process."""
        return KeyHouse(self.clock, self.store, self.vault)

    async def adopt(self, *given: str) -> tuple[list[str], list[str]]:
        """Names of the keys listed and dropped."""
        adopted = await self.book.adopt([Secret(key) for key in given])
        return [key.name for key in adopted.listed], [key.name for key in adopted.dropped]

    async def find(self, key: str) -> ClientKey | None:
        """As this process knows it once it has caught up."""
        await self.watch.catch_up()
        return self.keys.find(key)

    async def works(self, key: str) -> bool:
        found = await self.find(key)
        return found is not None and found.why_useless(self.clock.now()) is None

    async def record(self, key: str) -> KeyRecord | None:
        with suppress(NotFound):
            return (await self.book.get(self.book.id_of(key))).record
        return None


def client_key(
    id: str = "key_1",
    *,
    limits: KeyLimits | None = None,
    role: Role = Role.USER,
    models: Sequence[str] = (),
    endpoints: Sequence[str] = (),
    backends: Sequence[str] = (),
    expires_at: float | None = None,
) -> ClientKey:
    """A key that is in no store."""
    return ClientKey(
        id,
        KeyRecord(
            name=id,
            digest="d",
            hint="sk-…",
            role=role,
            origin=KeyOrigin.ADDED,
            created_at=0.0,
            limits=limits or KeyLimits(),
            allowed_models=tuple(models),
            allowed_endpoints=tuple(endpoints),
            allowed_backends=tuple(backends),
            expires_at=expires_at,
        ),
    )
