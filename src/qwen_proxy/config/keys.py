"""The callers' keys: what is kept of each, and this process's copy of all, fed by `state.watching.Watch`."""

import re
from collections.abc import Collection as Several
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.errors import NotAllowed
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import Record, Store
from qwen_proxy.state.vault import Vault
from qwen_proxy.state.watching import Watch

# What a key may be limited to: the words of the routes it may call, also of those that come with a later version.
ENDPOINTS: Final = (
    "chat",
    "messages",
    "responses",
    "completions",
    "gemini",
    "ollama",
    "models",
    "cli",
    "images",
    "videos",
    "audio",
    "embeddings",
    "files",
)

KEY_SHAPE: Final = re.compile(r"[\x21-\x7e]{1,512}")
ID_DIGITS: Final = 24
HINT_CHARS: Final = 4
LEAST_CHARS_FOR_A_HINT: Final = 16  # of a shorter key, four characters would be too much of it


class Role(Enum):
    ADMIN = "admin"
    USER = "user"


class KeyOrigin(StrEnum):
    """Where a key came from."""

    ENVIRONMENT = "environment"  # API_KEY, or the generated admin.key
    ADDED = "added"  # by an admin, while the program ran


class KeyStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNLISTED = "unlisted"  # it came from API_KEY, and is not there any more


class KeyLimits(Struct, frozen=True, kw_only=True):
    """None: the setting's default, which for an admin's key is none. 0: no limit. Days and months are UTC's.

    api_tokens_per_day: of backends of the kind `api`.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    api_tokens_per_day: int | None = None
    concurrent_requests: int | None = None


class KeyRecord(Struct, frozen=True, kw_only=True):
    """What is kept of a key: never the key itself. Times are Unix seconds.

    digest: `Vault.digest(key, "key")`. hint: enough for its owner to know it by. revoked_at: by an admin; that holds
    until it is restored, whatever API_KEY says. is_listed: of a key of the environment, whether it was there at the
    last start. allowed_models: patterns with `*` and `?`; allowed_endpoints: of ENDPOINTS; allowed_backends:
    their names, or their kinds `web`, `api`, `local`; empty is all.
    """

    name: str
    digest: str
    hint: str
    role: Role
    origin: KeyOrigin
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    is_listed: bool = True
    allowed_models: tuple[str, ...] = ()
    allowed_endpoints: tuple[str, ...] = ()
    allowed_backends: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    note: str = ""

    def status(self, now: float) -> KeyStatus:
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.origin is KeyOrigin.ENVIRONMENT and not self.is_listed:
            return KeyStatus.UNLISTED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE

    @property
    def is_environment_admin(self) -> bool:
        """The one admin key that always works: the first of API_KEY, or the generated one."""
        return self.role is Role.ADMIN and self.origin is KeyOrigin.ENVIRONMENT and self.is_listed


class ClientKey(Struct, frozen=True):
    """A key that is known, by its id; who has it may do what its record says."""

    id: str
    record: KeyRecord

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def role(self) -> Role:
        return self.record.role

    def why_useless(self, now: float) -> str | None:
        """A sentence for who presents it; None for a key that works."""
        status = self.record.status(now)
        if status is KeyStatus.ACTIVE:
            return None
        match status:
            case KeyStatus.REVOKED:
                return "this API key was revoked"
            case KeyStatus.UNLISTED:
                return "this API key is not in use any more"
            case KeyStatus.EXPIRED:
                ended = datetime.fromtimestamp(self.record.expires_at or 0.0, UTC)
                return f"this API key expired at {ended:%Y-%m-%dT%H:%M:%SZ}"

    def check_endpoint(self, endpoint: str) -> None:
        """Raises NotAllowed."""
        allowed = self.record.allowed_endpoints
        if allowed and endpoint not in allowed:
            raise NotAllowed("endpoint", endpoint, allowed)

    def may_use_backend(self, *words: str) -> bool:
        """words: its name and its kind."""
        allowed = self.record.allowed_backends
        return not allowed or any(word in allowed for word in words)

    def may_use_model(self, names: Several[str]) -> bool:
        """names: all of one model, such as its id, its readable name, and both with the suffix that was asked for."""
        allowed = self.record.allowed_models
        if not allowed:
            return True
        folded = [name.casefold() for name in names]
        return any(fnmatchcase(name, pattern.casefold()) for pattern in allowed for name in folded)

    def check_model(self, names: Sequence[str]) -> None:
        """As `may_use_model`; the first name is the one to tell. Raises NotAllowed."""
        if not self.may_use_model(names):
            raise NotAllowed("model", names[0], self.record.allowed_models)


def key_digest(key: str, vault: Vault) -> str:
    return vault.digest(key, "key")


def key_id(digest: str) -> str:
    """Always the same for one key, so that who lists it again finds its record again."""
    return "key_" + digest[:ID_DIGITS]


def hint_of(key: str) -> str:
    """Such as `sk-…a1b2`."""
    start = "sk-" if key.startswith("sk-") else ""
    end = key[-HINT_CHARS:] if len(key) >= LEAST_CHARS_FOR_A_HINT else ""
    return f"{start}…{end}"


class Keys:
    """All keys that are kept, also those that do not work now."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._vault = vault
        self._collection = Collection(store, KEY, KeyRecord, vault)
        self._by_digest: dict[str, ClientKey] = {}
        self._digests: dict[str, str] = {}  # by id

    def subscribe(self, watch: Watch) -> None:
        watch.subscribe(KEY, self.take)

    def take(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        """New or changed ones, and ids of those that are gone. One that can't be read is no key."""
        for id in gone:
            self._forget(id)
        for record in records:
            self._forget(record.id)
        for entry in self._collection.readable(records):
            self._digests[entry.id] = entry.value.digest
            self._by_digest[entry.value.digest] = ClientKey(entry.id, entry.value)

    def find(self, presented: str) -> ClientKey | None:
        """Text no key can have is refused unread.

        What is looked up is an HMAC under a secret that no caller knows: however long the lookup takes, it tells
        nothing of how near a guess was.
        """
        if not KEY_SHAPE.fullmatch(presented):
            return None
        return self._by_digest.get(key_digest(presented, self._vault))

    def get(self, id: str) -> ClientKey | None:
        digest = self._digests.get(id)
        return None if digest is None else self._by_digest.get(digest)

    def _forget(self, id: str) -> None:
        if (digest := self._digests.pop(id, None)) is not None:
            self._by_digest.pop(digest, None)
