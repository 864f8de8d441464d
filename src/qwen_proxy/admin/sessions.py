"""/api/admin/session: signing the web page in and out. The key goes over the wire once; a cookie stands for it then."""

from aiohttp import web
from msgspec import Struct

from qwen_proxy.admin.audit import Author, audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, json_response, raw_route, route
from qwen_proxy.config.keys import Role
from qwen_proxy.ground.errors import PermissionDenied, Unauthenticated
from qwen_proxy.serving.auth import Access, Authenticator, Caller
from qwen_proxy.serving.endpoint import Exchange, visit_of
from qwen_proxy.serving.sessions import Session, Sessions, cookie_header

PATH = "/api/admin/session"
TAG = "session"


class SignInBody(Struct, frozen=True, forbid_unknown_fields=True):
    """api_key: an admin's."""

    api_key: str

    def __repr__(self) -> str:
        return "SignInBody(***)"


class SessionBody(Struct, frozen=True, kw_only=True):
    """Who is signed in. csrf_token, ends_at (Unix seconds): null for who has sent the key itself, and no cookie."""

    key_id: str
    key_name: str
    role: str
    csrf_token: str | None = None
    ends_at: float | None = None


class SessionRoutes:
    def __init__(self, authenticator: Authenticator, sessions: Sessions) -> None:
        self._authenticator = authenticator
        self._sessions = sessions

    def table(self) -> tuple[AdminRoute, ...]:
        return (
            raw_route("POST", PATH, "Sign in", self.begin, tag=TAG, answer=SessionBody, status=201, access=Access.OPEN),
            route("GET", PATH, "Who is signed in", self.show, tag=TAG),
            raw_route("DELETE", PATH, "Sign out", self.end, tag=TAG, status=204),
        )

    async def begin(self, call: Call[Nothing, SignInBody]) -> web.StreamResponse:
        """Raises Unauthenticated, PermissionDenied, OriginRefused, TooManyAttempts."""
        visit = visit_of(call.exchange.http)
        self._authenticator.check_page(visit)
        caller = await self._authenticator.sign_in(call.body.api_key.strip(), visit)
        if caller is None:
            raise Unauthenticated
        if caller.role is not Role.ADMIN:
            raise PermissionDenied("the admin key")
        by = Author.of(call.exchange, caller)
        token, session = await self._sessions.begin(caller.id, audit_line(by, "session.begin", caller.id))
        response = json_response(201, _body(caller, session))
        response.headers["Set-Cookie"] = cookie_header(token, is_secure=_is_secure(call.exchange))
        return response

    async def show(self, call: Call[Nothing, Nothing]) -> SessionBody:
        caller = call.exchange.caller
        assert caller is not None
        return _body(caller, call.exchange.session)

    async def end(self, call: Call[Nothing, Nothing]) -> web.StreamResponse:
        """Also for who has sent a key, and has no session to end."""
        if call.exchange.session is not None:
            line = audit_line(call.by, "session.end", call.exchange.session.key_id)
            await self._sessions.end(call.exchange.session, line)
        response = web.Response(status=204)
        response.headers["Set-Cookie"] = cookie_header("", is_secure=_is_secure(call.exchange), max_age_seconds=0)
        return response


def _body(caller: Caller, session: Session | None) -> SessionBody:
    return SessionBody(
        key_id=caller.id,
        key_name=caller.name,
        role=caller.role.value,
        csrf_token=None if session is None else session.csrf,
        ends_at=None if session is None else session.ends_at,
    )


def _is_secure(exchange: Exchange) -> bool:
    """A lie about X-Forwarded-Proto harms only who tells it: the cookie is then not sent back over plain HTTP."""
    return exchange.http.secure or exchange.http.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"
