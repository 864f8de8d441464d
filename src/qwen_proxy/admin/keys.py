"""/api/admin/keys: clients' keys. A key itself is told once, when it is made; afterwards there is only its hint."""

from collections.abc import Awaitable, Callable, Sequence

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict, replace

from qwen_proxy.admin.audit import Author, audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, given, route
from qwen_proxy.config.keybook import KeyBook, KeyChange, NewKey, Telling
from qwen_proxy.config.keys import ClientKey, KeyLimits, KeyOrigin, KeyRecord, KeyStatus, Role
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import Append

PATH = "/api/admin/keys"
TAG = "keys"


class LimitsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """null: the setting's default, which for an admin's key is none. 0: no limit. Days and months are UTC's.

    api_tokens_per_day: of what backends of the kind "api" answer.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    api_tokens_per_day: int | None = None
    concurrent_requests: int | None = None


class LimitsPatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays; null: the setting's default."""

    requests_per_minute: int | UnsetType | None = UNSET
    tokens_per_minute: int | UnsetType | None = UNSET
    tokens_per_day: int | UnsetType | None = UNSET
    tokens_per_month: int | UnsetType | None = UNSET
    api_tokens_per_day: int | UnsetType | None = UNSET
    concurrent_requests: int | UnsetType | None = UNSET


class NewKeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """key: a text of your own; without it a random one is made. name: without it the key's hint.

    expires_at: Unix seconds, null for never. allowed_models: patterns with `*` and `?`; allowed_endpoints: such as
    "chat"; allowed_backends: names, or the kinds "web", "api", "local"; empty is all.
    """

    key: str | None = None
    name: str = ""
    role: Role = Role.USER
    expires_at: float | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_endpoints: tuple[str, ...] = ()
    allowed_backends: tuple[str, ...] = ()
    limits: LimitsBody = LimitsBody()
    note: str = ""

    def __repr__(self) -> str:
        return f"NewKeyBody({self.name!r})"


class KeyPatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET
    allowed_models: tuple[str, ...] | UnsetType = UNSET
    allowed_endpoints: tuple[str, ...] | UnsetType = UNSET
    allowed_backends: tuple[str, ...] | UnsetType = UNSET
    limits: LimitsPatchBody | UnsetType = UNSET
    note: str | UnsetType = UNSET


class KeyBody(Struct, frozen=True, kw_only=True):
    """hint: such as `sk-…a1b2`. origin: "environment" is API_KEY or the generated admin key. Times are Unix seconds.

    is_protected: the one admin key that always works; it can't be revoked, deleted, or end.
    """

    id: str
    name: str
    hint: str
    role: Role
    origin: KeyOrigin
    status: KeyStatus
    is_protected: bool
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    allowed_models: tuple[str, ...]
    allowed_endpoints: tuple[str, ...]
    allowed_backends: tuple[str, ...]
    limits: LimitsBody
    note: str


class KeysBody(Struct, frozen=True, kw_only=True):
    keys: tuple[KeyBody, ...]


class MadeKeyBody(Struct, frozen=True, kw_only=True):
    """secret: the key itself, which is told here and never again."""

    secret: str
    key: KeyBody

    def __repr__(self) -> str:
        return f"MadeKeyBody({self.key.id!r})"


class KeyRoutes:
    """catch_up: after a change this process knows of it too; the others do within a second."""

    def __init__(self, book: KeyBook, catch_up: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._book = book
        self._catch_up = catch_up
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        one = f"{PATH}/{{id}}"
        return (
            route("GET", PATH, "Every key, also those that do not work any more", self.all, tag=TAG),
            route("POST", PATH, "Make a key; it is told once", self.create, tag=TAG, status=201),
            route("GET", one, "One key", self.show, tag=TAG),
            route("PATCH", one, "Change what a key may do, its limits, its name", self.change, tag=TAG),
            route("POST", f"{one}/revoke", "Have a key work no more, until it is restored", self.revoke, tag=TAG),
            route("POST", f"{one}/restore", "Have a revoked key work again", self.restore, tag=TAG),
            route("DELETE", one, "Forget a key; one that API_KEY lists is revoked instead", self.delete, tag=TAG),
        )

    async def all(self, call: Call[Nothing, Nothing]) -> KeysBody:
        return KeysBody(keys=tuple(self._body(key) for key in await self._book.all()))

    async def show(self, call: Call[Nothing, Nothing]) -> KeyBody:
        return self._body(await self._book.get(call.path["id"]))

    async def create(self, call: Call[Nothing, NewKeyBody]) -> MadeKeyBody:
        body = call.body
        wish = NewKey(
            name=body.name,
            role=body.role,
            expires_at=body.expires_at,
            allowed_models=body.allowed_models,
            allowed_endpoints=body.allowed_endpoints,
            allowed_backends=body.allowed_backends,
            limits=KeyLimits(**asdict(body.limits)),
            note=body.note,
        )
        own = None if body.key is None else Secret(body.key)
        key, secret = await self._book.create(wish, telling(call.by, "key.create"), given=own)
        await self._catch_up()
        return MadeKeyBody(secret=secret.reveal(), key=self._body(key))

    async def change(self, call: Call[Nothing, KeyPatchBody]) -> KeyBody:
        body = call.body

        def change(record: KeyRecord) -> KeyRecord:
            limits = record.limits
            if body.limits is not UNSET:
                limits = replace(limits, **given(body.limits))
            return replace(record, **(given(body) | {"limits": limits}))

        return await self._done(self._book.change(call.path["id"], change, telling(call.by, "key.change")))

    async def revoke(self, call: Call[Nothing, Nothing]) -> KeyBody:
        return await self._done(self._book.revoke(call.path["id"], telling(call.by, "key.revoke")))

    async def restore(self, call: Call[Nothing, Nothing]) -> KeyBody:
        return await self._done(self._book.restore(call.path["id"], telling(call.by, "key.restore")))

    async def delete(self, call: Call[Nothing, Nothing]) -> None:
        await self._book.delete(call.path["id"], telling(call.by, "key.delete"))
        await self._catch_up()

    async def _done(self, change: Awaitable[ClientKey]) -> KeyBody:
        key = await change
        await self._catch_up()
        return self._body(key)

    def _body(self, key: ClientKey) -> KeyBody:
        record = key.record
        return KeyBody(
            id=key.id,
            name=record.name,
            hint=record.hint,
            role=record.role,
            origin=record.origin,
            status=record.status(self._clock.now()),
            is_protected=record.is_environment_admin,
            created_at=record.created_at,
            expires_at=record.expires_at,
            revoked_at=record.revoked_at,
            allowed_models=record.allowed_models,
            allowed_endpoints=record.allowed_endpoints,
            allowed_backends=record.allowed_backends,
            limits=LimitsBody(**asdict(record.limits)),
            note=record.note,
        )


def telling(by: Author, action: str) -> Telling:
    """The line of the audit log that says what became of a key, field by field."""

    def tell(change: KeyChange) -> Sequence[Append]:
        key = change.after or change.before
        assert key is not None
        before = {} if change.before is None else _shown(change.before.record)
        after = {} if change.after is None else _shown(change.after.record)
        details = {
            name: after[name] if name not in before else f"{before[name]} -> {after[name]}"
            for name in after
            if before.get(name) != after[name]
        }
        return [audit_line(by, action, key.id, {"name": key.name} | details)]

    return tell


def _shown(record: KeyRecord) -> dict[str, str]:
    """What may differ, in words. The digest is nobody's business."""
    told: dict[str, object] = {
        "name": record.name,
        "role": record.role.value,
        "expires_at": record.expires_at or "never",
        "revoked_at": record.revoked_at or "never",
        "allowed_models": ", ".join(record.allowed_models) or "all",
        "allowed_endpoints": ", ".join(record.allowed_endpoints) or "all",
        "allowed_backends": ", ".join(record.allowed_backends) or "all",
        "note": record.note or "none",
    }
    told |= {f"limits.{name}": "default" if limit is None else limit for name, limit in asdict(record.limits).items()}
    return {name: str(value) for name, value in told.items()}
