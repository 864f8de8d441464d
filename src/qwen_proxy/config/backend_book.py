"""The backends that are kept, and those of the environment: what there is in all.

A kept document with a spec is a backend that an operator added. One without is about a backend of the environment,
which is described there alone: it only says whether it is switched off.

How a key is doing is kept beside it (`backend_key`, by `NAME/ID`), and goes when the key goes.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.config.backends import OPENAI, BackendForm, BackendSpec, WrongBackend, spec_of
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import BACKEND, BACKEND_KEY
from qwen_proxy.state.store import Append, Change, Conflict, Delete, Store
from qwen_proxy.state.vault import Vault

DIGEST: Final = "api key of a backend"  # what the digest is for: it is no client key's
KEY_ID_DIGITS: Final = 12
NO_KEY: Final = "none"  # the id of what a server without keys is asked with
PAGE: Final = 1000


class BackendOrigin(StrEnum):
    ENVIRONMENT = "environment"  # a variable or BACKENDS
    ADDED = "added"  # by an operator, while the program ran


class KeptBackend(Struct, frozen=True, kw_only=True):
    """A document of kind `backend`; its id is the name."""

    spec: BackendSpec | None = None
    enabled: bool = True


class KnownBackend(Struct, frozen=True, kw_only=True):
    spec: BackendSpec
    origin: BackendOrigin


def together(environment: Sequence[BackendSpec], kept: Mapping[str, KeptBackend]) -> list[KnownBackend]:
    """All of them: the environment's first, in its order, then the added ones by name. The environment wins a name."""
    found: dict[str, KnownBackend] = {}
    for spec in environment:
        is_enabled = spec.enabled and (spec.name not in kept or kept[spec.name].enabled)
        found[spec.name] = KnownBackend(spec=replace(spec, enabled=is_enabled), origin=BackendOrigin.ENVIRONMENT)
    for name in sorted(kept):
        spec = kept[name].spec
        if spec is not None and name not in found:
            found[name] = KnownBackend(spec=replace(spec, enabled=kept[name].enabled), origin=BackendOrigin.ADDED)
    return list(found.values())


def key_id(vault: Vault, key: Secret) -> str:
    """What a key is called, made of it: another key is another id."""
    return vault.digest(key.reveal(), DIGEST)[:KEY_ID_DIGITS] if key else NO_KEY


def health_id(name: str, key: str) -> str:
    """Of the document of kind `backend_key`. key: its id."""
    return f"{name}/{key}"


class BackendBook:
    """Adds, changes and removes; raises StoreUnavailable, and a client's error that names the field."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        environment: Sequence[BackendSpec],
        *,
        protocols: Container[str] = (OPENAI,),
    ) -> None:
        self._store = store
        self._vault = vault
        self._records = Collection(store, BACKEND, KeptBackend, vault)
        self._protocols = protocols
        self._environment = {spec.name: spec for spec in environment}

    @property
    def records(self) -> Collection[KeptBackend]:
        return self._records

    async def all(self) -> list[KnownBackend]:
        kept = {entry.id: entry.value for entry in await self._records.all_readable()}
        return together(list(self._environment.values()), kept)

    async def get(self, name: str) -> KnownBackend:
        found = next((each for each in await self.all() if each.spec.name == name), None)
        if found is None:
            raise NotFound(f"backend {name!r}")
        return found

    async def add(self, form: BackendForm, *also: Append) -> KnownBackend:
        spec = self._spoken(checked(form))
        if spec.name in self._environment:
            raise AlreadyExists(f"the backend {spec.name!r}")

        def change(before: KeptBackend | None) -> KeptBackend:
            if before is not None and before.spec is not None:
                raise AlreadyExists(f"the backend {spec.name!r}")
            return KeptBackend(spec=spec, enabled=spec.enabled)

        await self._change(spec.name, change, also)
        return await self.get(spec.name)

    async def edit(self, name: str, form: BackendForm, *also: Append) -> KnownBackend:
        """What the form leaves out stays. Only `enabled` of one of the environment can be changed, and not of one that
        is switched off there."""
        known = await self.get(name)
        if known.origin is BackendOrigin.ENVIRONMENT:
            if form != BackendForm(enabled=form.enabled):
                raise InvalidRequest(
                    f"the backend {name!r} is described in the environment: change it there", param="name"
                )
            if form.enabled and not self._environment[name].enabled:
                raise InvalidRequest(
                    f"the backend {name!r} is switched off in the environment: change it there", param="enabled"
                )
        if form == BackendForm():
            return known

        def change(before: KeptBackend | None) -> KeptBackend:
            if known.origin is BackendOrigin.ENVIRONMENT:
                spec = None if before is None else before.spec  # an added one that is behind this one's name
                return KeptBackend(spec=spec, enabled=form.enabled is not False)
            if before is None or before.spec is None:
                raise NotFound(f"backend {name!r}")
            enabled = before.enabled if form.enabled is None else form.enabled
            return KeptBackend(spec=self._spoken(checked(form, before.spec)), enabled=enabled)

        await self._change(name, change, also)
        return await self.get(name)

    async def add_keys(self, name: str, keys: Sequence[str], *also: Append) -> KnownBackend:
        """One that is there already stays as it is. Raises NotFound, InvalidRequest."""
        if not keys:
            raise InvalidRequest("`keys` should hold a key at least", param="keys")
        return await self._change_keys(name, lambda before: (*_revealed(before), *keys), also)

    async def remove_keys(self, name: str, ids: Iterable[str], *also: Append) -> KnownBackend:
        """All of them, or none: raises NotFound where one is not there; InvalidRequest."""
        unwanted = frozenset(ids)

        def left(before: Sequence[Secret]) -> Sequence[str]:
            there = {key_id(self._vault, key): key for key in before}
            for id in sorted(unwanted - there.keys()):
                raise NotFound(f"API key {id!r} of the backend {name!r}")
            return _revealed([key for id, key in there.items() if id not in unwanted])

        return await self._change_keys(name, left, also)

    async def remove(self, name: str, *also: Append) -> KnownBackend:
        known = await self.get(name)
        if known.origin is BackendOrigin.ENVIRONMENT:
            raise InvalidRequest(
                f"the backend {name!r} is described in the environment: take it out there, or disable it", param="name"
            )
        await self._change(name, lambda before: None, also)
        return known

    async def _change_keys(
        self, name: str, turn: Callable[[Sequence[Secret]], Sequence[str]], also: Sequence[Append]
    ) -> KnownBackend:
        if (await self.get(name)).origin is BackendOrigin.ENVIRONMENT:
            raise InvalidRequest(
                f"the keys of the backend {name!r} are in the environment: change them there", param="name"
            )

        def change(before: KeptBackend | None) -> KeptBackend:
            if before is None or before.spec is None:
                raise NotFound(f"backend {name!r}")
            return replace(before, spec=checked(BackendForm(keys=tuple(turn(before.spec.keys))), before.spec))

        await self._change(name, change, also)
        return await self.get(name)

    async def _change(
        self, name: str, turn: Callable[[KeptBackend | None], KeptBackend | None], also: Sequence[Append]
    ) -> None:
        """As `Collection.update`; and what is kept of keys that are no more goes in the same step."""
        while True:
            entry = await self._records.get(name)
            before, expect = (None, 0) if entry is None else (entry.value, entry.version)
            after = turn(before)
            if after == before:
                return
            work: list[Change] = [*also]
            work.append(
                self._records.delete(name, expect=expect)
                if after is None
                else self._records.put(name, after, expect=expect)
            )
            if name not in self._environment and _keys_of(before) != _keys_of(after):
                work += await self._left_behind(name, _keys_of(after))
            try:
                await self._store.write(work)
            except Conflict:
                continue
            return

    async def _left_behind(self, name: str, keys: Sequence[Secret]) -> list[Delete]:
        """Also what a process that had not heard of an earlier change yet wrote behind it."""
        kept = {health_id(name, key_id(self._vault, key)) for key in keys}
        first = after = health_id(name, "")
        gone: list[Delete] = []
        while True:
            page = await self._store.find(BACKEND_KEY, after=after, limit=PAGE)
            ids = [record.id for record in page if record.id.startswith(first)]
            gone += [Delete(kind=BACKEND_KEY, id=id) for id in ids if id not in kept]
            if len(ids) < PAGE:
                return gone
            after = ids[-1]

    def _spoken(self, spec: BackendSpec) -> BackendSpec:
        if spec.protocol not in self._protocols:
            raise InvalidRequest(f"nobody here speaks {spec.protocol!r}", param="protocol")
        return spec


def _keys_of(kept: KeptBackend | None) -> Sequence[Secret]:
    """As they are asked with: a server without keys is asked with an empty one."""
    return () if kept is None or kept.spec is None else kept.spec.keys or (Secret(""),)


def _revealed(keys: Iterable[Secret]) -> tuple[str, ...]:
    return tuple(key.reveal() for key in keys)


def checked(form: BackendForm, before: BackendSpec | None = None) -> BackendSpec:
    """As `spec_of`, for a client."""
    try:
        return spec_of(form, before)
    except WrongBackend as error:
        raise InvalidRequest(str(error), param=error.field) from error
