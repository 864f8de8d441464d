"""What stands around every route: the request's identity, its caller, its body, its errors, its log line."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web
from msgspec import Struct

from qwen_proxy.gateway.trace import Trace
from qwen_proxy.ground.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    KeyLimitReached,
    ProxyError,
    RequestTooSlow,
    ShuttingDown,
)
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.request_id import RANDOM_DIGITS
from qwen_proxy.ground.request_id import request_id as new_request_id
from qwen_proxy.protocols.base import Dialect, Incoming
from qwen_proxy.protocols.table import KEY_IN_QUERY
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.frequent_line import FrequentLine
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.runtime.logs import request_id_var
from qwen_proxy.serving.auth import SAFE, Access, Authenticator, Caller, Visit
from qwen_proxy.serving.sessions import Session
from qwen_proxy.serving.streaming import StreamedReply
from qwen_proxy.serving.unpacking import unpacked

log = logging.getLogger(__name__)
request_line = FrequentLine(log, "request")

LAST_WORDS_SECONDS = 2.0  # for writing the error to those that a drain ends
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Exchange(Struct, kw_only=True):
    """One request while it is served. `caller` is None on an open route, `session` for who has sent a key.

    address: the client's. read_seconds: the time the body may take. limits: of the caller's key, once they are known.

    A handler that streams sets `stream` and `tell`, so that a failure behind the headers is told in the stream.
    before_end: what has to be done before a client learns that its stream has come to its end.
    """

    http: web.Request
    trace: Trace
    started_at: float
    caller: Caller | None
    path: str
    address: str
    read_seconds: float
    session: Session | None = None
    limits: LimitFacts | None = None
    stream: StreamedReply | None = None
    tell: Callable[[ProxyError], bytes] | None = None
    before_end: Callable[[], Awaitable[None]] | None = None
    has_places: bool = True

    @property
    def request_id(self) -> str:
        return self.trace.request_id


Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoints:
    """Makes aiohttp handlers out of ours, the same way for every route."""

    def __init__(self, authenticator: Authenticator, *, clock: Clock, ids: Ids, read_seconds: float = 60) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._ids = ids
        self._read_seconds = read_seconds
        self._active: set[asyncio.Task[object]] = set()
        self._expired = False
        self.draining = False  # answers then close their connection
        # By path: of POST, without places and queries. The server asks these without aiohttp's router.
        self.direct: dict[str, Serve] = {}
        self.asked: set[object] = set()  # connections on which a request has come; the server takes out what has gone

    @property
    def active(self) -> int:
        """How many requests are being served."""
        return len(self._active)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for every request to end; those that have not after so long are told so, and ended."""
        self.draining = True
        deadline = self._clock.monotonic() + timeout_seconds
        while self._active and (left := deadline - self._clock.monotonic()) > 0:
            await asyncio.wait(tuple(self._active), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self._expired = True
        for task in tuple(self._active):
            task.cancel()
        if self._active:
            await asyncio.wait(tuple(self._active), timeout=LAST_WORDS_SECONDS)

    def endpoint(
        self,
        handler: Handler,
        dialect: Dialect,
        access: Access | Callable[[], Access],
        word: str = "",
        *,
        has_places: bool = True,
    ) -> Serve:
        """`access` may be a question that is asked anew for each request.

        word: of `config.keys.ENDPOINTS`, for what a key may be limited to; empty: every key may. has_places: whether
        the path has parts that have a name.
        """
        access_now = access if callable(access) else lambda: access
        own_header = dialect.request_id_header

        async def serve(request: web.Request) -> web.StreamResponse:
            """Answer, whatever happens but for the client leaving."""
            visit = visit_of(request)
            exchange = self._begun(request, visit, has_places=has_places)
            response: web.StreamResponse | None = None
            task = asyncio.current_task()
            assert task is not None
            self._active.add(task)
            access = access_now()
            try:
                await self._admit(exchange, visit, access, word)
                answer = response = await handler(exchange)
            except (Exception, asyncio.CancelledError) as error:
                answer = response = await self._failed(exchange, dialect, self._told(error, exchange))
            finally:
                self._active.discard(task)
                is_probe = access is Access.OPEN and request.method in SAFE
                self._log(exchange, response, logging.DEBUG if is_probe else logging.INFO)
            if not answer.prepared:
                answer.headers["x-request-id"] = exchange.trace.request_id
                if own_header != "x-request-id":
                    answer.headers[own_header] = exchange.trace.request_id
            if self.draining:
                answer.force_close()
            return answer

        return serve

    def _begun(self, request: web.Request, visit: Visit, *, has_places: bool) -> Exchange:
        request_id = new_request_id(self._clock.now(), self._ids.token(RANDOM_DIGITS))
        request_id_var.set(request_id)
        self.asked.add(request.protocol)
        return Exchange(
            http=request,
            trace=Trace(request_id),
            started_at=self._clock.monotonic(),
            caller=None,
            path=request.rel_url.raw_path,
            address=self._authenticator.address(visit),
            read_seconds=self._read_seconds,
            has_places=has_places,
        )

    async def _admit(self, exchange: Exchange, visit: Visit, access: Access, word: str) -> None:
        admitted = await self._authenticator.admit(visit, access)
        if admitted is not None:
            exchange.caller, exchange.session = admitted.caller, admitted.session
            if word:
                admitted.caller.check_endpoint(word)

    def _told(self, error: BaseException, exchange: Exchange) -> ProxyError:
        """What a client is to be told of it. Raises it where the client has left: nobody is there to be told."""
        if isinstance(error, ProxyError):
            return error
        if isinstance(error, asyncio.CancelledError) and self._expired:
            return ShuttingDown()
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            raise error
        log.error("request failed", exc_info=error, extra={"path": exchange.path})
        return InternalError()

    async def _failed(self, exchange: Exchange, dialect: Dialect, error: ProxyError) -> web.StreamResponse:
        stream = exchange.stream
        if stream is None or exchange.tell is None or not stream.headers_sent:
            response = self.refusal(dialect, error, exchange.request_id)
            limits = error.facts if isinstance(error, KeyLimitReached) else exchange.limits
            if limits is not None:
                response.headers.extend(dialect.limit_headers(limits))
            return response
        await stream.end(exchange.tell(error))
        return stream.response

    def refusal(self, dialect: Dialect, error: ProxyError, request_id: str) -> web.Response:
        reply = dialect.error(error, request_id)
        response = web.Response(status=reply.status, body=reply.body, content_type="application/json")
        for name, value in reply.headers:
            response.headers[name] = value
        return response

    def _log(self, exchange: Exchange, response: web.StreamResponse | None, level: int) -> None:
        """One line a request; probes of open routes, which come every few seconds, only where all is wanted."""
        if not log.isEnabledFor(level):
            return
        trace, usage = exchange.trace, exchange.trace.usage
        request_line.tell(
            level,
            {
                "method": exchange.http.method,
                "path": exchange.path,
                "status": _status(exchange, response),
                "ms": round((self._clock.monotonic() - exchange.started_at) * 10_000) / 10,
                "key": "" if exchange.caller is None else exchange.caller.record.name,
                "model": trace.model,
                "backend": trace.backend,
                "account": _account(trace),
                "tries": trace.tries,
                "failures": ",".join(trace.failures),
                "tokens": 0 if usage is None else usage.prompt_tokens + usage.completion_tokens,
            },
        )


def _account(trace: Trace) -> str:
    """An account of the site is an email; others have names that tell nothing of anybody."""
    return masked_email(trace.account_id) if "@" in trace.account_id else trace.account_id


def visit_of(request: web.Request) -> Visit:
    return Visit(
        method=request.method,
        headers=request.headers,
        peer=request.remote or "",
        query_key=request.query.get("key", "") if request.path.startswith(KEY_IN_QUERY) else "",
    )


def _status(exchange: Exchange, response: web.StreamResponse | None) -> int:
    """499 is the usual word for a client that left; not for one that left with the whole reply."""
    if response is not None:
        return response.status
    return 200 if exchange.stream is not None and exchange.stream.ended else 499


async def expect(request: web.Request) -> None:
    """The route's answer to an Expect header: none yet. `incoming` says `100 Continue`, once the caller is known."""


async def incoming(exchange: Exchange) -> Incoming:
    """Read the body whole (aiohttp notices a client that left only then). Raises BodyTooLarge, InvalidRequest,
    RequestTooSlow."""
    request, headers, query = exchange.http, exchange.http.headers, NOTHING
    if headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if request.content.is_eof():  # all of it came with the head, as small ones do: nothing is to be waited for
            body = request.content.read_nowait()
            if 0 < request.client_max_size < len(body):
                raise BodyTooLarge(request.client_max_size)
        else:
            async with asyncio.timeout(exchange.read_seconds):
                body = await request.read()
    except TimeoutError as error:
        raise RequestTooSlow(exchange.read_seconds) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLarge(request.client_max_size) from error
    except (web.RequestPayloadError, web.HTTPException, ValueError) as error:
        raise InvalidRequest("the request body can't be read: its transfer broke off or is broken") from error
    if encoding := headers.get("Content-Encoding"):
        body = unpacked(body, encoding, request.client_max_size)
    if request.rel_url.raw_query_string:
        query = request.query
    return Incoming(
        path=exchange.path,
        query=query,
        headers=headers,
        body=body,
        variables=request.match_info if exchange.has_places else NOTHING,
    )
