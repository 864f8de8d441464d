"""Sessions of the web page: a cookie in place of the key, so that no script and no storage of the browser has the key.

The cookie is a random token, of which only a digest is kept. A session ends after SLIDING_SECONDS without use, after
LONGEST_SECONDS in any case, when it is signed out, and when its key works no more.
"""

import hmac
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import SESSION
from qwen_proxy.state.store import Append, Store
from qwen_proxy.state.vault import Vault

COOKIE: Final = "qwen_proxy_session"
TOKEN_DIGITS: Final = 64
SLIDING_SECONDS: Final = 12 * 3600.0
LONGEST_SECONDS: Final = 7 * 86400.0
TOUCH_SECONDS: Final = 300.0  # so much of its time goes by before a use is written down


class SessionDocument(Struct, frozen=True, kw_only=True):
    """used_at: as it was last written down."""

    key_id: str
    created_at: float
    used_at: float


class Session(Struct, frozen=True, kw_only=True):
    """csrf: what a page has to send as x-csrf-token; made of the token, and of no use without it."""

    id: str
    key_id: str
    csrf: str
    ends_at: float

    def is_proven_by(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode(errors="backslashreplace"))


class Sessions:
    """Every method raises StoreUnavailable."""

    def __init__(self, store: Store, vault: Vault, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._documents = Collection(store, SESSION, SessionDocument, vault)

    async def begin(self, key_id: str, *also: Append) -> tuple[str, Session]:
        """The token for the cookie, and the session; `also` is written in the same step."""
        now = self._clock.now()
        token = self._ids.token(TOKEN_DIGITS)
        document = SessionDocument(key_id=key_id, created_at=now, used_at=now)
        put = self._documents.put(self._id(token), document, expect=0, lasts_seconds=SLIDING_SECONDS)
        await self._store.write([put, *also])
        return token, self._session(token, document)

    async def find(self, token: str) -> Session | None:
        """The live session of a token. Its time begins anew."""
        if len(token) != TOKEN_DIGITS or not token.isalnum() or not token.isascii():
            return None
        entry = await self._documents.get(self._id(token))
        if entry is None:
            return None
        now, document = self._clock.now(), entry.value
        left_seconds = document.created_at + LONGEST_SECONDS - now
        if left_seconds <= 0:
            return None
        if now - document.used_at >= TOUCH_SECONDS:
            document = replace(document, used_at=now)
            lasts_seconds = min(SLIDING_SECONDS, left_seconds)
            # Without `expect` a session that is ended at this very moment would come to life again.
            await self._documents.update(
                entry.id, lambda there: None if there is None else document, lasts_seconds=lasts_seconds
            )
        return self._session(token, document)

    async def end(self, session: Session, *also: Append) -> None:
        await self._store.write([self._documents.delete(session.id), *also])

    def _id(self, token: str) -> str:
        return self._vault.digest(token, "session")

    def _session(self, token: str, document: SessionDocument) -> Session:
        return Session(
            id=self._id(token),
            key_id=document.key_id,
            csrf=self._vault.digest(token, "csrf"),
            ends_at=min(document.used_at + SLIDING_SECONDS, document.created_at + LONGEST_SECONDS),
        )


def token_in(headers: Mapping[str, str]) -> str | None:
    """Of a request's Cookie header (RFC 6265 §5.4). Others' cookies of the same host may be of any form."""
    for pair in headers.get("Cookie", "").split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == COOKIE:
            return value.strip()
    return None


def cookie_header(token: str, *, is_secure: bool, max_age_seconds: float = LONGEST_SECONDS) -> str:
    """For Set-Cookie; an empty token and no age takes it away."""
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={int(max_age_seconds)}; HttpOnly; SameSite=Strict{secure}"
