"""Who is calling, and whether they may: the one place that decides, for every route and every carrier of a key.

| carrier | what it needs besides |
|---|---|
| `Authorization: Bearer KEY`, `Authorization: KEY`, `x-api-key: KEY`, `x-goog-api-key: KEY` | nothing |
| `?key=KEY` | a path of Gemini's API: `/v1beta/…`, `/v1/models/…` |
| the cookie of a session, in a request without any of those | a host name of this server |
| the same, but for GET and HEAD | also a page of this server as its origin, and the session's `x-csrf-token` |
"""

import ipaddress
from collections.abc import Collection, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Final, Protocol

from msgspec import Struct

from qwen_proxy.config.keys import ClientKey, Role
from qwen_proxy.ground.errors import OriginRefused, PermissionDenied, StoreUnavailable, Unauthenticated
from qwen_proxy.serving.origins import client_address, is_known_host, is_same_origin
from qwen_proxy.serving.sessions import Session, Sessions, token_in
from qwen_proxy.serving.throttle import Throttle

SAFE: Final = frozenset(("GET", "HEAD"))


class Access(Enum):
    OPEN = auto()
    KEY = auto()
    ADMIN = auto()


Caller = ClientKey  # the key that a request carries


class KeyRing(Protocol):
    """Keys that are known, also those that do not work any more."""

    def find(self, presented: str) -> Caller | None:
        """The key with this text."""
        ...

    def get(self, id: str) -> Caller | None:
        """The key with this id."""
        ...

    def why_useless(self, key: Caller) -> str | None:
        """A sentence about a key that was found and does not work now; None for one that works."""
        ...

    async def refresh(self) -> None:
        """Know what any process has written before this call, if that can be had."""
        ...


class Visit(Struct, frozen=True, kw_only=True):
    """What is known of a request before its body is read. peer: the address of the connection's other end.

    query_key: the key in the query, on routes where one may be.
    """

    method: str
    headers: Mapping[str, str]
    peer: str
    query_key: str = ""

    @property
    def host(self) -> str:
        return self.headers.get("Host", "")


class Admitted(Struct, frozen=True):
    """`session` is None for who has sent the key itself."""

    caller: Caller
    session: Session | None = None


class Doors(Struct, frozen=True, kw_only=True):
    """For callers other than programs with a key; what is None is shut.

    hosts: names of this server besides loopback and plain addresses, in lower case. trusted_proxies: as
    `ipaddress.ip_network` reads them.
    """

    sessions: Sessions | None = None
    throttle: Throttle | None = None
    hosts: Collection[str] = ()
    trusted_proxies: Collection[str] = ()


def presented_keys(headers: Mapping[str, str]) -> list[str]:
    """The keys a request carries, in every carrier we take, whatever the route.

    SDKs send either carrier; some send a dummy `Authorization` beside a right `x-api-key` (upstream protocol §10.1),
    so one right key among them is enough. The original takes `Authorization` without `Bearer` too.
    """
    found: list[str] = []
    if (authorization := headers.get("Authorization")) is not None:
        authorization = authorization.strip()
        scheme, _, rest = authorization.partition(" ")
        found.append(rest.lstrip() if scheme.casefold() == "bearer" else authorization)
    for name in ("x-api-key", "x-goog-api-key"):
        if (key := headers.get(name)) is not None:
            found.append(key.strip())
    return found


class Authenticator:
    def __init__(self, keys: KeyRing, doors: Doors | None = None) -> None:
        self._keys = keys
        self._doors = doors = doors or Doors()
        self._trusted = tuple(ipaddress.ip_network(network) for network in doors.trusted_proxies)

    async def admit(self, visit: Visit, access: Access) -> Admitted | None:
        """Who calls; None on an open route. Never touches the body.

        Raises Unauthenticated, PermissionDenied, OriginRefused; TooManyAttempts for a wrong key on an admin's route;
        StoreUnavailable where a session can't be looked up.
        """
        if access is Access.OPEN:
            return None
        presented = presented_keys(visit.headers)
        if visit.query_key:
            presented.append(visit.query_key)
        if any(presented):
            admitted = Admitted(self._known(presented) or await self._by_key(presented, visit, access))
        else:
            admitted = await self._by_session(visit)
        if access is Access.ADMIN and admitted.caller.role is not Role.ADMIN:
            raise PermissionDenied("the admin key")
        return admitted

    async def sign_in(self, presented: str, visit: Visit) -> Caller | None:
        """The key that someone has typed, or that a script tries; None for a wrong one.

        Raises TooManyAttempts and StoreUnavailable.
        """

        async def find() -> Caller | None:
            return self._known([presented]) or await self._known_anew([presented])

        if self._doors.throttle is None:
            return await find()
        return await self._doors.throttle.check(self.address(visit), find)

    def address(self, visit: Visit) -> str:
        """The client's, as far as it can be known."""
        if not self._trusted:
            return visit.peer
        forwarded = [value for name, value in visit.headers.items() if name.lower() == "x-forwarded-for"]
        return client_address(visit.peer, forwarded, self._trusted)

    def check_host(self, visit: Visit) -> None:
        """For requests that a foreign page could bring a browser to send. Raises OriginRefused."""
        if not is_known_host(visit.host, self._doors.hosts):
            raise OriginRefused("browsers may not sign in under this host name; the operator can add it to ADMIN_HOSTS")

    def check_page(self, visit: Visit) -> None:
        """As `check_host`, and that no browser says that a foreign page has sent this. Raises OriginRefused."""
        self.check_host(visit)
        tells = "Sec-Fetch-Site" in visit.headers or "Origin" in visit.headers
        if tells and not is_same_origin(visit.headers, visit.host):
            raise OriginRefused("pages of other servers may not sign in here")

    async def _by_key(self, presented: Collection[str], visit: Visit, access: Access) -> Caller:
        """For keys none of which works as far as is known here."""
        if (caller := await self._known_anew(presented)) is not None:
            return caller
        if access is Access.ADMIN and self._doors.throttle is not None:
            with suppress(StoreUnavailable):  # it is refused in any case
                await self._doors.throttle.wrong(self.address(visit))
        raise Unauthenticated(self._why_useless(presented))

    def _known(self, presented: Collection[str]) -> Caller | None:
        """The first of these that works."""
        for text in presented:
            key = self._keys.find(text)
            if key is not None and self._keys.why_useless(key) is None:
                return key
        return None

    async def _known_anew(self, presented: Collection[str]) -> Caller | None:
        """A key that is unknown may have been made a moment ago, in another process."""
        await self._keys.refresh()
        return self._known(presented)

    def _why_useless(self, presented: Collection[str]) -> str | None:
        """Of the first of these that is known."""
        for text in presented:
            if (key := self._keys.find(text)) is not None:
                return self._keys.why_useless(key)
        return None

    async def _by_session(self, visit: Visit) -> Admitted:
        token = token_in(visit.headers)
        if token is None or self._doors.sessions is None:
            raise Unauthenticated
        self.check_host(visit)
        session = await self._doors.sessions.find(token)
        caller = None if session is None else self._keys.get(session.key_id)
        if session is None or caller is None or self._keys.why_useless(caller) is not None:
            raise Unauthenticated
        if visit.method not in SAFE:
            if not is_same_origin(visit.headers, visit.host):
                raise OriginRefused("this request carries a session, and no page of this server has sent it")
            if not session.is_proven_by(visit.headers.get("x-csrf-token", "")):
                raise OriginRefused("this request carries a session, and lacks its right x-csrf-token")
        return Admitted(caller, session)
