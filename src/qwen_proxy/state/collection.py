"""Records of one kind as typed documents: MessagePack of a Struct, sealed where the kind says so."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.store import Append, Change, Conflict, Delete, Kind, Put, Record, Store
from qwen_proxy.state.vault import Vault, WrongSecret, record_name

log = logging.getLogger(__name__)

T = TypeVar("T")
PAGE = 1000


class Entry(Struct, Generic[T], frozen=True):
    id: str
    version: int
    value: T


class Collection(Generic[T]):
    """`type` is a Struct; a field that is added to it later needs a default, and none ever changes its meaning.

    Secrets in a document are kept as they are: the kind has to be sealed. What reads raises Unreadable, but for
    `get_or`, `readable` and `all_readable`; every method that asks the store raises StoreUnavailable.
    """

    def __init__(self, store: Store, kind: Kind, type: type[T], vault: Vault) -> None:
        self._store = store
        self.kind = kind
        self._vault = vault
        self._decoder = msgspec.msgpack.Decoder(type, dec_hook=_hide)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._reveal)

    async def get(self, id: str) -> Entry[T] | None:
        record = await self._store.get(self.kind, id)
        return None if record is None else self.entry(record)

    async def get_or(self, id: str, default: T) -> Entry[T] | None:
        """`default` stands for a document that can't be read: for what may be written over."""
        record = await self._store.get(self.kind, id)
        if record is None:
            return None
        found = self.readable([record])
        return found[0] if found else Entry(id, record.version, default)

    async def each(self, prefix: str = "") -> AsyncGenerator[Entry[T]]:
        """All whose id begins so, by id. Close it (aclosing) when it is not read to its end."""
        if prefix and (first := await self.get(prefix)) is not None:
            yield first
        async with aclosing(self._pages(prefix)) as pages:
            async for page in pages:
                for record in page:
                    if not record.id.startswith(prefix):
                        return
                    yield self.entry(record)

    async def all(self, prefix: str = "") -> list[Entry[T]]:
        return [entry async for entry in self.each(prefix)]

    async def all_readable(self) -> list[Entry[T]]:
        """By id; see `readable`."""
        return [entry async for page in self._pages() for entry in self.readable(page)]

    async def versions(self) -> dict[str, int]:
        """By id, also of those that can't be read."""
        return {record.id: record.version async for page in self._pages() for record in page}

    async def _pages(self, after: str = "") -> AsyncGenerator[list[Record]]:
        while page := await self._store.find(self.kind, after=after, limit=PAGE):
            yield page
            if len(page) < PAGE:
                return
            after = page[-1].id

    def put(self, id: str, value: T, *, expect: int | None = None, lasts_seconds: float | None = None) -> Put:
        """A change for `Store.write`."""
        packed = self._encoder.encode(value)
        if self.kind.is_sealed:
            packed = self._vault.seal(packed, self.kind.name, id)
        return Put(kind=self.kind, id=id, value=packed, expect=expect, lasts_seconds=lasts_seconds)

    def delete(self, id: str, *, expect: int | None = None) -> Delete:
        return Delete(kind=self.kind, id=id, expect=expect)

    async def update(
        self, id: str, change: Callable[[T | None], T | None], *also: Append, lasts_seconds: float | None = None
    ) -> Entry[T] | None:
        """Read, change and write until nobody came in between. `change` gets None when there is none, and returns None
        to delete it; it may be called several times. One that changes nothing writes nothing."""
        while True:
            found = await self.get(id)
            before = None if found is None else found.value
            after = change(before)
            if after == before:
                return found
            expect = 0 if found is None else found.version
            work: list[Change] = [*also]
            work.append(
                self.delete(id, expect=expect)
                if after is None
                else self.put(id, after, expect=expect, lasts_seconds=lasts_seconds)
            )
            try:
                written = await self._store.write(work)
            except Conflict:
                continue
            return None if after is None else Entry(id, written.versions[0], after)

    def entry(self, record: Record) -> Entry[T]:
        """Raises Unreadable."""
        packed = record.value
        try:
            if self.kind.is_sealed:
                packed = self._vault.open(packed, self.kind.name, record.id)
            return Entry(record.id, record.version, self._decoder.decode(packed))
        except WrongSecret as error:
            raise Unreadable(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            name = record_name(self.kind.name, record.id)
            raise Unreadable(f"{name} has a form unknown to this version ({error})") from error

    def readable(self, records: Iterable[Record]) -> list[Entry[T]]:
        """Without those that can't be read, of which the log tells: one broken document must not cost the others."""
        entries: list[Entry[T]] = []
        for record in records:
            try:
                entries.append(self.entry(record))
            except Unreadable as error:
                log.error("a stored document can't be read", extra={"kind": record.kind, "reason": str(error)})
        return entries

    def _reveal(self, value: object) -> str:
        if isinstance(value, Secret):
            if not self.kind.is_sealed:
                raise TypeError(f"a secret in a document of kind {self.kind.name}, which is not sealed")
            return value.reveal()
        raise NotImplementedError(type(value))


def _hide(kind: type, value: object) -> object:
    if kind is not Secret:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise TypeError("a secret has to be text")  # msgspec makes a DecodeError of it
    return Secret(value)
