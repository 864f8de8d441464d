"""The simulated upstream as a server on loopback."""

import asyncio
import re
from collections.abc import Callable
from email.utils import formatdate
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

import qwen_proxy.simulator.auths as auths
import qwen_proxy.simulator.chats as chats
import qwen_proxy.simulator.completions as completions
import qwen_proxy.simulator.courtesy as courtesy
import qwen_proxy.simulator.oauth as oauth
import qwen_proxy.simulator.portal as portal
from qwen_proxy.simulator.completions import Generation
from qwen_proxy.simulator.records import Endpoint, SeenRequest, SimulatedChat
from qwen_proxy.simulator.replies import Reply, captcha_json, flat_error, waf_html
from qwen_proxy.simulator.scenario import Scenario
from qwen_proxy.simulator.sending import Sending, names_of
from qwen_proxy.simulator.site import Site

Answerer = Callable[[Site, SeenRequest], Reply | Generation]

ROUTES: tuple[tuple[str, str, Endpoint, Answerer], ...] = (
    ("POST", r"/api/v2/chat/completions", "completions", completions.complete),
    ("POST", r"/api/v2/chats/new", "chats_new", chats.new_chat),
    ("DELETE", r"/api/v2/chats/[^/]+", "chat_delete", chats.delete_chat),
    ("GET", r"/api/v2/chats/?", "chats_list", chats.list_chats),
    ("GET", r"/api/v2/chats/[^/]+", "chat_detail", chats.chat_detail),
    ("POST", r"/api/v2/chat/completions/stop", "stop", chats.stop),
    ("POST", r"/api/v1/auths/signin", "signin_v1", auths.signin_v1),
    ("POST", r"/api/v2/auths/signin", "signin_v2", auths.signin_v2),
    ("GET", r"/api/v1/auths/", "session", auths.session),
    ("GET", r"/api/v2/user/info", "user_info", auths.user_info),
    ("GET", r"/api/models", "models", chats.models),
    ("GET", r"/api/v2/models/", "models_v2", chats.models_v2),
    ("GET", r"/api/v2/users/user/settings", "settings", auths.read_settings),
    ("POST", r"/api/v2/users/user/settings/update", "settings_update", auths.update_settings),
    ("POST", r"/api/v1/oauth2/device/code", "oauth_device", oauth.begin),
    ("POST", r"/api/v1/oauth2/token", "oauth_token", oauth.token),
    ("POST", r"/api/v2/oauth2/authorize", "oauth_authorize", oauth.authorize),
    ("GET", r"/v1/models", "portal_models", portal.models),
    ("POST", r"/v1/chat/completions", "portal_chat", portal.complete),
)
"""Rows 1 to 12, 20, 22 and 23 of upstream protocol §0.5. Files and media tasks (rows 13 to 19) go here later."""

SHUTDOWN_SECONDS = 1.0
MAX_BODY_BYTES = 64 * 1024 * 1024


class SignInEmail(msgspec.Struct, frozen=True):
    email: str


class MessageType(msgspec.Struct, frozen=True):
    chat_type: str = "t2t"


class CompletionType(msgspec.Struct, frozen=True):
    messages: list[MessageType] = []


class Simulator:
    """A server that plays chat.qwen.ai on the wire. Enter it with `async with`, or start() and stop() it.

    `open_generations` counts completion requests whose answer is not finished and whose client is still there.
    `scenario` may be replaced or changed between requests. After stop() it may start again on the same port, with all
    it remembers: an outage. It must run under an AppRunner with `handler_cancellation=True` (start() does), else it
    does not notice at once that a client left.
    """

    def __init__(self, scenario: Scenario | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._site = Site(scenario or Scenario())
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self.base_url = ""
        self.open_generations = 0

    @property
    def scenario(self) -> Scenario:
        return self._site.scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._site.scenario = scenario

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request in order; the last 10,000."""
        return self._site.requests

    @property
    def chats(self) -> dict[str, SimulatedChat]:
        """Chats by id, deleted ones too; the last 20,000."""
        return self._site.chats

    @property
    def warnings(self) -> list[str]:
        """Where requests departed from the ordinary web client without being refused, once each (§9.1)."""
        return self._site.warnings

    def revoke_tokens(self, email: str | None = None) -> None:
        """Refuse all tokens issued so far, to one account or to everybody, before their end (§1.4)."""
        self._site.revoke_tokens(email)

    def issue_token(self, email: str, lifetime_seconds: int | None = None) -> str:
        """A token as a sign-in would give it; a negative lifetime makes one that has ended."""
        default = self.scenario.token_lifetime_seconds
        return self._site.issue_token(email, default if lifetime_seconds is None else lifetime_seconds)

    def seen(self, endpoint: Endpoint) -> list[SeenRequest]:
        """The requests one endpoint got."""
        return [seen for seen in self.requests if seen.endpoint == endpoint]

    def app(self) -> web.Application:
        """The application, for another runner (which must have `handler_cancellation=True`)."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._visit)
        app.on_shutdown.append(self._on_shutdown)
        app.on_response_prepare.append(self._on_prepare)
        return app

    async def start(self) -> None:
        """Listen; `base_url` is valid afterwards. Raises OSError if the port is taken."""
        self._stopping = asyncio.Event()
        runner = web.AppRunner(
            self.app(), handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS, access_log=None
        )
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await self.stop()
            raise
        # The port stays the same over a stop and a start.
        self._port = int(runner.addresses[0][1])
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"http://{host}:{self._port}{self.scenario.path_prefix}"

    async def stop(self) -> None:
        """Close every connection, open streams too, and free the port. Harmless when not running."""
        runner, self._runner = self._runner, None
        self._stopping.set()
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _on_shutdown(self, app: web.Application) -> None:
        self._stopping.set()

    async def _on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.scenario.clock_offset_seconds:
            response.headers["Date"] = formatdate(self._site.now(), usegmt=True)

    async def _visit(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen = self._record(request, body)
        answerer = self._route(seen)
        counts = int(seen.endpoint == "completions")
        self.open_generations += counts
        try:
            return await self._answer(request, seen, answerer)
        except (asyncio.CancelledError, ConnectionError):
            seen.closed_early = not self._stopping.is_set()
            raise
        finally:
            self.open_generations -= counts

    def _record(self, request: web.Request, body: bytes) -> SeenRequest:
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        peer: tuple[str, int] = ("", 0)
        if request.transport is not None:
            peer = request.transport.get_extra_info("peername")[:2]
        query = dict(request.query)
        seen = SeenRequest(request.method, request.path, query, headers, body, self._site.now(), peer)
        self._site.remember(seen)
        return seen

    async def _answer(self, request: web.Request, seen: SeenRequest, answerer: Answerer) -> web.StreamResponse:
        site = self._site
        courtesy.note(site, seen)
        latency_seconds = site.scenario.latency.get(seen.endpoint, 0.0)
        if latency_seconds:
            await asyncio.sleep(latency_seconds)
        if (gate := site.scenario.gates.get(seen.endpoint)) is not None:
            await gate.wait()
        answer = self._refuse(seen) or answerer(site, seen)
        if isinstance(answer, Generation):
            return await self._generate(request, answer)
        return await Sending(request, answer, names_of(site.now()), self._stopping, _never).run()

    def _route(self, seen: SeenRequest) -> Answerer:
        """Find who answers, and fill in whom and what the request is about."""
        answerer = _unknown
        prefix = self.scenario.path_prefix
        path = seen.path.removeprefix(prefix) if seen.path.startswith(prefix) else ""
        for method, pattern, endpoint, candidate in ROUTES:
            if method == seen.method and re.fullmatch(pattern, path):
                seen.endpoint, answerer = endpoint, candidate
                break
        if seen.endpoint in ("signin_v1", "signin_v2"):
            seen.account = _email(seen.body)
        else:
            seen.account = self._site.owner(seen.cookies.get("token") or seen.bearer)
        if seen.endpoint == "completions":
            seen.feature = _feature(seen.body)
        return answerer

    def _refuse(self, seen: SeenRequest) -> Reply | None:
        """What the firewall refuses before the site sees it, then the scenario's faults."""
        if not seen.headers.get("user-agent"):
            return waf_html(403)  # §8.1 and §9.1: without a User-Agent the firewall refuses
        if len(seen.body) >= self.scenario.body_limit_bytes:
            return captcha_json()  # §3.2: near 128 KiB
        for fault in self.scenario.faults:
            if fault.takes(seen):
                return fault.reply
        return None

    async def _generate(self, request: web.Request, generation: Generation) -> web.StreamResponse:
        """Send a generation, keeping the chat blocked meanwhile, and a while longer if it was not read to its end."""
        site, chat = self._site, generation.chat
        names = names_of(
            site.now(),
            chat_id=chat.id,
            parent_id=generation.prompt_id,
            message_id=generation.response_id,
            response_id=generation.response_id,
            other_response_id=generation.other_response_id,
        )
        generation.begin(site.now())
        busy_until = site.monotonic() + site.scenario.dropped_generation_seconds
        try:
            response = await Sending(request, generation.reply, names, self._stopping, lambda: chat.stop_asked).run()
            busy_until = 0.0
            return response
        finally:
            generation.end(busy_until)


def _never() -> bool:
    return False


def _unknown(site: Site, seen: SeenRequest) -> Reply:
    """Any other route (§0.4, flat form)."""
    return flat_error(404, "Not Found")


def _email(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=SignInEmail).email
    except msgspec.MsgspecError:
        return None


def _feature(body: bytes) -> str | None:
    try:
        messages = msgspec.json.decode(body, type=CompletionType).messages
    except msgspec.MsgspecError:
        return None
    return completions.feature(messages[0].chat_type) if messages else None
