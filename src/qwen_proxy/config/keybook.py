"""The callers' keys as they are kept: made, changed, revoked and deleted, and those of the environment taken over.

Any process may write here; each process's `Keys` hears of it through `state.watching.Watch`.

| what | a key of the environment | an added key |
|---|---|---|
| revoke | stays revoked, also over a restart with it in API_KEY, until it is restored or added | until it is restored |
| delete | revoked, while API_KEY has it: else the next start would bring it back | its record is gone |
| leave API_KEY | works no more from the next start on; its record stays | – |

The first key of API_KEY (or the generated admin key) can't be revoked, deleted or changed in role, and has no expiry:
so there is a way in at any time.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.config.credentials import weakness
from qwen_proxy.config.keys import (
    ENDPOINTS,
    KEY_SHAPE,
    ClientKey,
    KeyLimits,
    KeyOrigin,
    KeyRecord,
    KeyStatus,
    Role,
    hint_of,
    key_digest,
    key_id,
)
from qwen_proxy.config.variables import MOST_OF_A_LIMIT
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound, PermissionDenied
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import Append, Change, Conflict, Store
from qwen_proxy.state.vault import Vault

RANDOM_DIGITS: Final = 48
MOST_NAME_CHARS: Final = 100
MOST_NOTE_CHARS: Final = 1000
MOST_PATTERNS: Final = 100
BACKEND_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MOST_PATTERN_CHARS: Final = 200


class KeyChange(Struct, frozen=True):
    """What became of a key, for the line of the audit log; None: there was none before, or is none after."""

    before: ClientKey | None
    after: ClientKey | None


# Lines of the log that are to be written in the same step; may be asked several times.
Telling = Callable[[KeyChange], Sequence[Append]]


def silent(change: KeyChange) -> Sequence[Append]:
    return ()


class NewKey(Struct, frozen=True, kw_only=True):
    """What is wished of a key that is made; see KeyRecord. name: empty takes its hint."""

    name: str = ""
    role: Role = Role.USER
    expires_at: float | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_endpoints: tuple[str, ...] = ()
    allowed_backends: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    note: str = ""


class Adopted(Struct, frozen=True):
    """The keys of the environment, and those that were and work no more."""

    listed: tuple[ClientKey, ...]
    dropped: tuple[ClientKey, ...]


class KeyBook:
    """Every method raises StoreUnavailable; those that name a key, NotFound and Unreadable."""

    def __init__(self, store: Store, vault: Vault, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._keys = Collection(store, KEY, KeyRecord, vault)

    def id_of(self, key: str) -> str:
        """Of a key itself, whether it is known or not."""
        return key_id(key_digest(key, self._vault))

    async def get(self, id: str) -> ClientKey:
        entry = await self._keys.get(id)
        if entry is None:
            raise NotFound(f"key {id[:100]!r}")
        return ClientKey(entry.id, entry.value)

    async def all(self) -> list[ClientKey]:
        """By id, without those that can't be read."""
        return [ClientKey(entry.id, entry.value) for entry in await self._keys.all_readable()]

    async def create(
        self, wish: NewKey, telling: Telling = silent, *, given: Secret | None = None
    ) -> tuple[ClientKey, Secret]:
        """The key itself is told here and never again. given: the caller's own text, instead of a random one.

        A given key that is known and does not work (revoked, expired, gone from API_KEY) becomes what is wished and
        works again. Raises InvalidRequest, AlreadyExists.
        """
        key = self._random() if given is None else given
        _check_given(key.reveal())
        digest = key_digest(key.reveal(), self._vault)
        now = self._clock.now()

        def make(before: KeyRecord | None) -> KeyRecord:
            if before is not None and before.status(now) is KeyStatus.ACTIVE:
                raise AlreadyExists("this key")
            is_listed = before is not None and before.origin is KeyOrigin.ENVIRONMENT and before.is_listed
            hint = hint_of(key.reveal())
            record = KeyRecord(
                name=wish.name or hint,
                digest=digest,
                hint=hint,
                role=Role.USER if is_listed else wish.role,  # API_KEY's order says who is the admin
                origin=KeyOrigin.ENVIRONMENT if is_listed else KeyOrigin.ADDED,
                created_at=now,
                expires_at=wish.expires_at,
                allowed_models=wish.allowed_models,
                allowed_endpoints=wish.allowed_endpoints,
                allowed_backends=wish.allowed_backends,
                limits=wish.limits,
                note=wish.note,
            )
            _check(record, now)
            return record

        return await self._write(key_id(digest), make, telling), key

    async def change(self, id: str, change: Callable[[KeyRecord], KeyRecord], telling: Telling = silent) -> ClientKey:
        """Name, role, expiry, what is allowed, limits and note; what else `change` alters stays as it was.

        `change` may be called several times. Raises InvalidRequest, PermissionDenied.
        """
        now = self._clock.now()

        def give(before: KeyRecord | None) -> KeyRecord:
            before = _there(before, id)
            wished = change(before)
            after = replace(
                before,
                name=wished.name,
                role=wished.role,
                expires_at=wished.expires_at,
                allowed_models=wished.allowed_models,
                allowed_endpoints=wished.allowed_endpoints,
                allowed_backends=wished.allowed_backends,
                limits=wished.limits,
                note=wished.note,
            )
            if after.role is not before.role and before.origin is KeyOrigin.ENVIRONMENT:
                raise PermissionDenied("another order of the keys in API_KEY: the first is the admin's")
            if after.expires_at is not None and after.is_environment_admin:
                raise _protected()
            _check(after, now if after.expires_at != before.expires_at else None)
            return after

        return await self._write(id, give, telling)

    async def revoke(self, id: str, telling: Telling = silent) -> ClientKey:
        """Raises PermissionDenied for the admin key of the environment."""
        now = self._clock.now()

        def give(before: KeyRecord | None) -> KeyRecord:
            before = _there(before, id)
            if before.is_environment_admin:
                raise _protected()
            return before if before.revoked_at is not None else replace(before, revoked_at=now)

        return await self._write(id, give, telling)

    async def restore(self, id: str, telling: Telling = silent) -> ClientKey:
        return await self._write(id, lambda before: replace(_there(before, id), revoked_at=None), telling)

    async def delete(self, id: str, telling: Telling = silent) -> None:
        """Raises PermissionDenied for the admin key of the environment."""
        while True:
            entry = await self._keys.get(id)
            record = _there(None if entry is None else entry.value, id)
            if record.origin is KeyOrigin.ENVIRONMENT and record.is_listed:
                await self.revoke(id, telling)
                return
            assert entry is not None
            lines = telling(KeyChange(ClientKey(id, record), None))
            try:
                await self._store.write([self._keys.delete(id, expect=entry.version), *lines])
            except Conflict:
                continue
            return

    async def adopt(self, given: Sequence[Secret]) -> Adopted:
        """At a start: make the keys of the environment known; the first is the admin's. Those that were listed before
        and are not now work no more. One whose record can't be read gets another."""
        while True:
            versions = await self._keys.versions()
            entries = {entry.id: entry for entry in await self._keys.all_readable()}
            names = {entry.value.name for entry in entries.values()}
            changes: list[Change] = []
            listed: dict[str, ClientKey] = {}
            for number, key in enumerate(given, 1):
                id = self.id_of(key.reveal())
                if id in listed:
                    continue
                entry = entries.get(id)
                record = self._listed(None if entry is None else entry.value, key.reveal(), number, names)
                listed[id] = ClientKey(id, record)
                if entry is None or record != entry.value:
                    expect = versions.get(id, 0) if entry is None else entry.version
                    changes.append(self._keys.put(id, record, expect=expect))
            dropped: list[ClientKey] = []
            for id, entry in entries.items():
                if id not in listed and entry.value.origin is KeyOrigin.ENVIRONMENT and entry.value.is_listed:
                    dropped.append(ClientKey(id, replace(entry.value, is_listed=False)))
                    changes.append(self._keys.put(id, dropped[-1].record, expect=entry.version))
            if changes:
                try:
                    await self._store.write(changes)
                except Conflict:  # another machine starts at the same moment
                    continue
            return Adopted(tuple(listed.values()), tuple(dropped))

    def _listed(self, known: KeyRecord | None, key: str, number: int, names: set[str]) -> KeyRecord:
        """The record of the key at this place (from 1) of API_KEY."""
        if known is None:
            hint, name = hint_of(key), f"key-{number}"
            known = KeyRecord(
                name=f"{name} ({hint})" if name in names else name,
                digest=key_digest(key, self._vault),
                hint=hint,
                role=Role.USER,
                origin=KeyOrigin.ENVIRONMENT,
                created_at=self._clock.now(),
            )
        known = replace(known, origin=KeyOrigin.ENVIRONMENT, is_listed=True, role=Role.USER)
        if number == 1:
            return replace(known, role=Role.ADMIN, revoked_at=None, expires_at=None)
        return known

    async def _write(self, id: str, give: Callable[[KeyRecord | None], KeyRecord], telling: Telling) -> ClientKey:
        while True:
            entry = await self._keys.get(id)
            before = None if entry is None else entry.value
            after = ClientKey(id, give(before))
            if after.record == before:
                return after
            lines = telling(KeyChange(None if before is None else ClientKey(id, before), after))
            put = self._keys.put(id, after.record, expect=0 if entry is None else entry.version)
            try:
                await self._store.write([put, *lines])
            except Conflict:
                continue
            return after

    def _random(self) -> Secret:
        return Secret("sk-" + self._ids.token(RANDOM_DIGITS))


def _there(record: KeyRecord | None, id: str) -> KeyRecord:
    if record is None:
        raise NotFound(f"key {id[:100]!r}")
    return record


def _protected() -> PermissionDenied:
    return PermissionDenied("another first key in API_KEY, and a restart: the admin key given there always works")


def _check_given(key: str) -> None:
    if not KEY_SHAPE.fullmatch(key):
        raise InvalidRequest("a key has 1 to 512 printable ASCII characters and no space", param="key")
    if (problem := weakness(key)) is not None:
        raise InvalidRequest(f"this key {problem}; take one that nobody can guess", param="key")


def _check(record: KeyRecord, now: float | None) -> None:
    """now: None when the expiry was there before. Raises InvalidRequest."""
    _check_text(record.name, MOST_NAME_CHARS, "name")
    _check_text(record.note, MOST_NOTE_CHARS, "note")
    if now is not None and record.expires_at is not None and record.expires_at <= now:
        raise InvalidRequest("this time is over already", param="expires_at")
    if len(record.allowed_models) > MOST_PATTERNS:
        raise InvalidRequest(f"more than {MOST_PATTERNS} patterns", param="allowed_models")
    for index, pattern in enumerate(record.allowed_models):
        if not pattern:
            raise InvalidRequest("an empty pattern fits no model", param=f"allowed_models[{index}]")
        _check_text(pattern, MOST_PATTERN_CHARS, f"allowed_models[{index}]")
    for index, endpoint in enumerate(record.allowed_endpoints):
        if endpoint not in ENDPOINTS:
            right = ", ".join(ENDPOINTS)
            raise InvalidRequest(f"no such endpoint; there are {right}", param=f"allowed_endpoints[{index}]")
    if len(record.allowed_backends) > MOST_PATTERNS:
        raise InvalidRequest(f"more than {MOST_PATTERNS} backends", param="allowed_backends")
    for index, backend in enumerate(record.allowed_backends):
        if not BACKEND_NAME.fullmatch(backend):
            right = "a backend's name, or one of the kinds web, api, local"
            raise InvalidRequest(f"this is not {right}", param=f"allowed_backends[{index}]")
    for field in KeyLimits.__struct_fields__:
        limit: int | None = getattr(record.limits, field)
        if limit is not None and not 0 <= limit <= MOST_OF_A_LIMIT:
            raise InvalidRequest(f"a limit is from 0 (none) to {MOST_OF_A_LIMIT}", param=f"limits.{field}")


def _check_text(text: str, most_chars: int, param: str) -> None:
    if len(text) > most_chars or not text.isprintable():
        raise InvalidRequest(f"at most {most_chars} printable characters, in one line", param=param)
