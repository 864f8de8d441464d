"""Builds every object from Settings, and closes them: the only composition.

Three parts, which one process holds together (`open_all`) or several share: the *door* (one upstream and the way to
it), the *pool* (one for all processes), and the *service* (one HTTP server a worker).
"""

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web
from msgspec import Struct

from qwen_proxy import __version__
from qwen_proxy.accounts.leasing import Leasing, Overview
from qwen_proxy.accounts.model import DIRECT, Account
from qwen_proxy.accounts.pool import AccountPool, PoolOptions
from qwen_proxy.admin.diagnostics import DiagnosticsBody, DiagnosticsRoutes, DriftBody, UpstreamBody, WorkerBody
from qwen_proxy.api.chat import ChatRoutes
from qwen_proxy.api.health import HealthRoutes
from qwen_proxy.api.models import ModelRoutes
from qwen_proxy.api.unknown import UnknownRoutes
from qwen_proxy.chat.models import Model
from qwen_proxy.config.choices import ModelNames
from qwen_proxy.config.credentials import Keys
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.chat import ChatGateway, GatewayOptions
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.protocols.base import ParseOptions
from qwen_proxy.protocols.openai_chat import OpenAIChat
from qwen_proxy.protocols.table import PROTOCOLS
from qwen_proxy.runtime.clock import Clock, SystemClock
from qwen_proxy.runtime.ids import Ids, SystemIds, system_random
from qwen_proxy.runtime.logs import set_level
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.auth import Authenticator
from qwen_proxy.serving.cors import Cors
from qwen_proxy.serving.endpoint import Access, Endpoints, expect
from qwen_proxy.serving.server import HttpServer
from qwen_proxy.serving.streaming import Heartbeats
from qwen_proxy.storage.memory import MemoryAccountStore
from qwen_proxy.tokens import QwenTokens
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.headers import HeaderOptions
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.options import CleanupOptions, QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport, TransportOptions

MOST_OTHER_EXITS: Final = 2  # that are tried for the model list: each may take its time to fail


class Machine(Struct, frozen=True):
    """Time, identifiers, and nothing else: what tests replace."""

    clock: Clock = SystemClock()
    ids: Ids = SystemIds()


class Door(Struct, frozen=True):
    """The way to chat.qwen.ai, or to what stands in for it."""

    base_url: str
    upstream: QwenWeb
    site: Site
    sign_in: SignIn
    drift: Drift


DriftSource = Callable[[], Awaitable[Sequence[DriftBody]]]
WorkersSource = Callable[[], Awaitable[Sequence[WorkerBody]]]


@asynccontextmanager
async def open_door(settings: Settings, base_url: str, machine: Machine) -> AsyncGenerator[Door]:
    """base_url: where the upstream is, which is not `settings.chat_base_url` when the simulator stands in."""
    drift = Drift(machine.clock.now)
    async with Transport(machine.clock, transport_options(settings)) as transport:
        site = Site(transport, machine.clock, machine.ids, drift, web_options(settings, base_url))
        async with QwenWeb(site) as upstream:
            yield Door(base_url=base_url, upstream=upstream, site=site, sign_in=SignIn(site), drift=drift)


def transport_options(settings: Settings) -> TransportOptions:
    return TransportOptions(
        connect_seconds=settings.connect_timeout_seconds,
        headers_seconds=settings.headers_timeout_seconds,
        idle_seconds=settings.idle_timeout_seconds,
        watch_interval_seconds=min(
            1.0,
            settings.connect_timeout_seconds / 4,
            settings.headers_timeout_seconds / 4,
            settings.idle_timeout_seconds / 4,
            settings.request_deadline_seconds / 4,
        ),
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
    )


def web_options(settings: Settings, base_url: str) -> QwenWebOptions:
    usual = HeaderOptions()
    general, own = general_exit(settings), dict.fromkeys(line.exit for line in settings.accounts)
    return QwenWebOptions(
        base_url=base_url,
        exit=general,
        other_exits=tuple(exit for exit in own if exit not in ("", general))[:MOST_OTHER_EXITS],
        headers=HeaderOptions(
            user_agent=settings.user_agent or usual.user_agent,
            version=settings.web_version or usual.version,
            accept_language=settings.accept_language or usual.accept_language,
            credentials="cookie+bearer" if settings.send_bearer else "cookie",
            extra=settings.extra_headers,
        ),
        cleanup=CleanupOptions(delete_after_seconds=_delete_after_seconds(settings)),
        max_prompt_bytes=settings.max_prompt_bytes,
    )


def _delete_after_seconds(settings: Settings) -> float | None:
    return None if settings.cleanup_minutes is None else settings.cleanup_minutes * 60


def general_exit(settings: Settings) -> str:
    """The way out of calls that no account makes, such as the model list.

    PROXY_URL; without one, direct, unless every account has a proxy of its own: then nothing is to go direct.
    """
    if settings.proxy_url:
        return settings.proxy_url
    exits = [line.exit for line in settings.accounts]
    return exits[0] if exits and all(exits) else DIRECT


@asynccontextmanager
async def open_pool(
    settings: Settings, accounts: Sequence[Account], door: Door, machine: Machine
) -> AsyncGenerator[AccountPool]:
    """The one pool: signs in and refreshes in the background while it is open."""
    store = MemoryAccountStore()
    for account in accounts:
        await store.upsert(account)
    options = PoolOptions(
        account_concurrency=settings.account_concurrency,
        signin_spacing_seconds=settings.signin_spacing_seconds,
        refresh_before_seconds=settings.refresh_before_hours * 3600 if settings.auto_refresh else 0.0,
        refresh_jitter_seconds=PoolOptions().refresh_jitter_seconds if settings.auto_refresh else 0.0,
        challenge_rest_seconds=settings.challenge_rest_seconds,
    )
    async with AccountPool(store, door.sign_in, machine.clock, system_random(), options) as pool:
        yield pool


def accounts_of(settings: Settings) -> list[Account]:
    """ACCOUNTS as accounts; one without a proxy of its own goes out through PROXY_URL."""
    return [
        Account(
            id=line.email.lower(),
            email=line.email,
            password=line.password,
            exit=line.exit or settings.proxy_url or DIRECT,
        )
        for line in settings.accounts
    ]


class Service(Struct, frozen=True):
    server: HttpServer
    gateway: ChatGateway
    catalogue: CatalogueSource


def open_gateway(
    settings: Settings, door: Door, leasing: Leasing, machine: Machine
) -> tuple[ChatGateway, CatalogueSource]:
    async def fetch() -> Sequence[Model]:
        deadline = machine.clock.monotonic() + settings.headers_timeout_seconds
        return await door.upstream.models(None, deadline)

    catalogue = CatalogueSource(
        fetch, clock=machine.clock, ttl_seconds=settings.models_cache_ttl_seconds, aliases=settings.model_map
    )
    tokens = QwenTokens()
    gateway = ChatGateway(
        door.upstream,
        leasing,
        catalogue,
        clock=machine.clock,
        tokens=tokens,
        load_tokens=tokens.load,
        options=gateway_options(settings),
    )
    return gateway, catalogue


def gateway_options(settings: Settings) -> GatewayOptions:
    return GatewayOptions(
        retry_count=settings.chat_retry_count,
        retry_backoff_seconds=settings.chat_retry_backoff_ms / 1000,
        queue_seconds=settings.queue_seconds,
        deadline_seconds=settings.request_deadline_seconds,
        challenge_rest_seconds=settings.challenge_rest_seconds,
        delivery=Delivery(
            show_reasoning=settings.output_think,
            reasoning_in_content=settings.legacy_reasoning_in_content,
            search_info=settings.search_info,
        ),
    )


class Tunable(Struct, frozen=True):
    """What a change of settings is told to, besides the account pool."""

    upstream: QwenWeb
    gateway: ChatGateway
    catalogue: CatalogueSource
    chat: ChatRoutes
    models: ModelRoutes

    def apply(self, settings: Settings) -> None:
        """Requests under way go on as they began."""
        set_level(settings.log_level.value)
        self.upstream.cleanup.delete_after(_delete_after_seconds(settings))
        self.gateway.options = gateway_options(settings)
        self.catalogue.configure(ttl_seconds=settings.models_cache_ttl_seconds, aliases=settings.model_map)
        self.chat.options = parse_options(settings)
        self.models.configure(
            display_names=settings.model_names is ModelNames.DISPLAY, variants=not settings.simple_model_map
        )


def parse_options(settings: Settings) -> ParseOptions:
    return ParseOptions(strict=settings.strict_fields, max_choices=settings.max_choices)


@asynccontextmanager
async def open_service(
    live: LiveSettings | Settings,
    keys: Keys,
    door: Door,
    leasing: Leasing,
    overview: Overview,
    listener: socket.socket,
    machine: Machine,
    *,
    drift: DriftSource | None = None,
    workers: WorkersSource | None = None,
) -> AsyncGenerator[HttpServer]:
    """Serve on a bound socket while open. `drift` and `workers` tell of all processes where there are several.

    Live settings are followed; plain ones stay as they are.
    """
    clock = machine.clock
    settings = live.current if isinstance(live, LiveSettings) else live
    endpoints = Endpoints(Authenticator(keys), clock=clock, ids=machine.ids, read_seconds=settings.request_read_seconds)
    gateway, catalogue = open_gateway(settings, door, leasing, machine)
    models = ModelRoutes(
        catalogue,
        display_names=settings.model_names is ModelNames.DISPLAY,
        variants=not settings.simple_model_map,
    )
    heartbeats = Heartbeats(
        clock,
        header_commit_seconds=settings.header_commit_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    diagnostics = _diagnostics(door, overview, settings, clock, drift, workers)
    chat = ChatRoutes(gateway, heartbeats, parse_options(settings), clock=clock, ids=machine.ids)
    app = _routes(live, endpoints, chat, models, overview, diagnostics)
    if isinstance(live, LiveSettings):
        live.on_change(Tunable(door.upstream, gateway, catalogue, chat, models).apply)
    async with Tasks() as tasks, HttpServer(app, endpoints, listener) as server:
        tasks.spawn(heartbeats.run(), name="heartbeats")
        tasks.spawn(server.close_silent(clock, settings.request_read_seconds), name="silent connections")
        tasks.spawn(_warm_up(catalogue), name="model list")
        yield server


async def _warm_up(catalogue: CatalogueSource) -> None:
    """So that the first request need not wait for the list; one that fails will be tried again by that request."""
    with suppress(ProxyError):
        await catalogue.get()


def _routes(
    live: LiveSettings | Settings,
    endpoints: Endpoints,
    chat: ChatRoutes,
    models: ModelRoutes,
    overview: Overview,
    diagnostics: DiagnosticsRoutes,
) -> web.Application:
    settings = live.current if isinstance(live, LiveSettings) else live

    def models_access() -> Access:
        current = live.current if isinstance(live, LiveSettings) else live
        return Access.OPEN if current.models_open else Access.KEY

    async def why_not_ready() -> str | None:
        return (await overview.status()).why_not_ready

    health = HealthRoutes(endpoints, why_not_ready)
    general = OpenAIChat()  # errors of routes that belong to no protocol have OpenAI's shape
    app = web.Application(client_max_size=settings.max_body_bytes)
    for route in PROTOCOLS:
        handler = endpoints.endpoint(chat.handler(route.protocol), route.protocol, Access.KEY)
        app.router.add_post(route.path, handler, expect_handler=expect)
    for path, handler, access in (
        ("/v1/models", models.list, Access.KEY),
        ("/v1/models/{id}", models.one, Access.KEY),
        ("/models", models.list, models_access),
        ("/healthz", health.live, Access.OPEN),
        ("/readyz", health.ready, Access.OPEN),
        ("/api/admin/diagnostics", diagnostics.show, Access.ADMIN),
    ):
        app.router.add_get(path, endpoints.endpoint(handler, general, access))
    unknown = UnknownRoutes(app)
    if settings.cors_origins:
        cors = Cors(settings.cors_origins)
        app.on_response_prepare.append(cors.allow)
        preflight = endpoints.endpoint(cors.preflight(unknown.refuse), general, Access.OPEN)
        app.router.add_route("OPTIONS", "/{path:.*}", preflight)
    app.router.add_route("*", "/{path:.*}", endpoints.endpoint(unknown.refuse, general, Access.OPEN))
    return app


def _diagnostics(
    door: Door,
    overview: Overview,
    settings: Settings,
    clock: Clock,
    drift: DriftSource | None,
    workers: WorkersSource | None,
) -> DiagnosticsRoutes:
    started_at = clock.monotonic()

    async def own_drift() -> Sequence[DriftBody]:
        return [DriftBody(kind=note.kind, name=note.name, count=note.count) for note in door.drift.snapshot()]

    async def gather() -> DiagnosticsBody:
        status = await overview.status()
        return DiagnosticsBody(
            version=__version__,
            uptime_seconds=round(clock.monotonic() - started_at, 1),
            accounts=status.accounts,
            exits=status.exits,
            drift=tuple(await (drift or own_drift)()),
            workers=() if workers is None else tuple(await workers()),
            upstream=UpstreamBody(
                base_url=door.base_url,
                simulated=settings.uses_simulator,
                clock_offset_seconds=door.site.clock_offset_seconds,
            ),
        )

    return DiagnosticsRoutes(gather)


@asynccontextmanager
async def open_all(
    settings: Settings,
    keys: Keys,
    listener: socket.socket,
    *,
    base_url: str | None = None,
    accounts: Sequence[Account] | None = None,
    machine: Machine | None = None,
) -> AsyncGenerator[HttpServer]:
    """Everything in this process: for tests and for the commands that need no second process."""
    machine = machine or Machine()
    async with (
        open_door(settings, base_url or settings.chat_base_url, machine) as door,
        open_pool(settings, accounts_of(settings) if accounts is None else accounts, door, machine) as pool,
        open_service(settings, keys, door, pool, pool, listener, machine) as server,
    ):
        yield server
