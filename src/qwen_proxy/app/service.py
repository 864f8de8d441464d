"""One HTTP server."""

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from msgspec import Struct

from qwen_proxy import __version__
from qwen_proxy.accounts.leasing import Overview
from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.admin.diagnostics import DiagnosticsBody, DiagnosticsRoutes, DriftBody, UpstreamBody, WorkerBody
from qwen_proxy.admin.routes import unmapped
from qwen_proxy.api.chat import ChatRoutes
from qwen_proxy.api.counting import CountRoutes
from qwen_proxy.api.models import ModelRoutes
from qwen_proxy.api.traces import TraceRoutes
from qwen_proxy.app.admin import admin_routes, admission
from qwen_proxy.app.backends import ApiBackends
from qwen_proxy.app.commons import Commons
from qwen_proxy.app.door import Door, delete_after_seconds
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.prompted import Prompted, prompted
from qwen_proxy.app.responses import responses_routes
from qwen_proxy.app.routes import ClientHandlers, routes
from qwen_proxy.chat.models import Model
from qwen_proxy.config.choices import ModelNames
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.backend import WEB, Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.gateway.run import GatewayOptions
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.protocols.base import ParseOptions
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.logs import set_level
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.serving.endpoint import Endpoints
from qwen_proxy.serving.server import HttpServer
from qwen_proxy.serving.streaming import Heartbeats
from qwen_proxy.tokens import QwenTokens
from qwen_proxy.upstreams.base import Upstream
from qwen_proxy.upstreams.qwen_web.client import QwenWeb

DriftSource = Callable[[], Awaitable[Sequence[DriftBody]]]
WorkersSource = Callable[[], Awaitable[Sequence[WorkerBody]]]


class Service(Struct, frozen=True):
    server: HttpServer
    gateway: ChatGateway
    catalogue: CatalogueSource


def web_backend(settings: Settings, door: Door, upstream: Upstream, pool: AccountPool, machine: Machine) -> Backend:
    """chat.qwen.ai, or what stands in for it. `upstream` is that of the door, with tools and formats of output."""

    async def fetch() -> Sequence[Model]:
        deadline = machine.clock.monotonic() + settings.headers_timeout_seconds
        return await door.upstream.models(None, deadline)

    return Backend(
        name=WEB,
        kind=BackendKind.WEB,
        upstream=upstream,
        leasing=pool,
        catalogue=CatalogueSource(fetch, clock=machine.clock, ttl_seconds=settings.models_cache_ttl_seconds),
        shortage=pool.shortage,
    )


class AllBackends:
    """Fits `gateway.backend.Backends`: the site is one of them while it has an account, or while there is no other."""

    def __init__(self, site: Backend, pool: AccountPool, others: ApiBackends) -> None:
        self._site = site
        self._pool = pool
        self._others = others
        self._found: tuple[Backend, ...] = ()
        self._with_site: tuple[Backend, ...] = (site,)

    def __call__(self) -> tuple[Backend, ...]:
        found = self._others.current()
        if found and not self._pool.has_accounts:
            return found
        if found is not self._found:
            self._found, self._with_site = found, (self._site, *found)
        return self._with_site


def why_not_ready(pool: AccountPool, others: ApiBackends) -> str | None:
    """None where some backend would take a chat request; else what keeps the site from it, or the first of the others
    where the site has no account."""
    refusals = [refusal for each in others.current() if (refusal := each.shortage()) is not None]
    if len(refusals) < len(others.current()):
        return None
    why = pool.why_not_ready()
    return str(refusals[0]) if why is not None and refusals and not pool.has_accounts else why


def open_gateway(settings: Settings, router: Router, machine: Machine) -> ChatGateway:
    tokens = QwenTokens()
    return ChatGateway(
        router,
        clock=machine.clock,
        ids=machine.ids,
        tokens=tokens,
        load_tokens=tokens.load,
        options=gateway_options(settings),
    )


def naming(settings: Settings) -> Naming:
    return Naming(
        rules=settings.model_routes,
        aliases=settings.model_map,
        others=settings.other_model_names,
        order=settings.backend_order,
    )


def gateway_options(settings: Settings) -> GatewayOptions:
    return GatewayOptions(
        retry_count=settings.chat_retry_count,
        ask_again_count=settings.ask_again_count,
        retry_backoff_seconds=settings.chat_retry_backoff_ms / 1000,
        queue_seconds=settings.queue_seconds,
        overflow_seconds=settings.overflow_seconds,
        deadline_seconds=settings.request_deadline_seconds,
        challenge_rest_seconds=settings.challenge_rest_seconds,
        result_bytes=settings.max_tool_result_bytes,
        delivery=Delivery(
            show_reasoning=settings.output_think,
            reasoning_in_content=settings.legacy_reasoning_in_content,
            search_info=settings.search_info,
        ),
    )


class Tunable(Struct, frozen=True):
    """What a change of settings is told to, besides the account pool."""

    upstream: QwenWeb
    prompted: Prompted
    gateway: ChatGateway
    catalogue: CatalogueSource
    router: Router
    chat: ChatRoutes
    models: ModelRoutes
    limits: Admission

    def apply(self, settings: Settings) -> None:
        """Requests under way go on as they began."""
        set_level(settings.log_level.value)
        self.upstream.cleanup.delete_after(delete_after_seconds(settings))
        self.prompted.apply(settings)
        self.gateway.options = gateway_options(settings)
        self.catalogue.configure(ttl_seconds=settings.models_cache_ttl_seconds)
        self.router.naming = naming(settings)
        self.chat.options = parse_options(settings)
        self.limits.defaults = limit_defaults(settings)
        self.models.configure(
            display_names=settings.model_names is ModelNames.DISPLAY, variants=not settings.simple_model_map
        )


def limit_defaults(settings: Settings) -> LimitDefaults:
    return LimitDefaults(
        requests_per_minute=settings.key_rpm,
        tokens_per_minute=settings.key_tpm,
        tokens_per_day=settings.key_tokens_per_day,
        tokens_per_month=settings.key_tokens_per_month,
        api_tokens_per_day=settings.key_api_tokens_per_day,
        concurrent_requests=settings.key_concurrency,
        token_reserve=settings.key_token_reserve,
    )


def parse_options(settings: Settings) -> ParseOptions:
    return ParseOptions(strict=settings.strict_fields, max_choices=settings.max_choices)


@asynccontextmanager
async def open_service(
    live: LiveSettings,
    commons: Commons,
    door: Door,
    pool: AccountPool,
    others: ApiBackends,
    listener: socket.socket,
    machine: Machine,
    *,
    drift: DriftSource | None = None,
    workers: WorkersSource | None = None,
    warms_up: bool = True,
) -> AsyncGenerator[HttpServer]:
    """Serve on a bound socket while open. `drift` and `workers` tell of all processes where there are several.

    warms_up: whether the model list is fetched before anybody asks for it.
    """
    clock, settings = machine.clock, live.current
    admitted = admission(settings, commons, machine)
    endpoints = Endpoints(
        admitted.authenticator, clock=clock, ids=machine.ids, read_seconds=settings.request_read_seconds
    )
    site_prompts = prompted(door.upstream, machine.ids, settings)
    site = web_backend(settings, door, site_prompts.upstream, pool, machine)
    router = Router(AllBackends(site, pool, others), naming(settings))
    gateway = open_gateway(settings, router, machine)
    models = ModelRoutes(
        router,
        display_names=settings.model_names is ModelNames.DISPLAY,
        variants=not settings.simple_model_map,
    )
    heartbeats = Heartbeats(
        clock,
        header_commit_seconds=settings.header_commit_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    limits = Admission(commons.allowances, commons.purse, clock, limit_defaults(settings))
    diagnostics = _diagnostics(door, pool, router, clock, drift, workers)
    chat = ChatRoutes(
        gateway,
        heartbeats,
        limits,
        commons.usage,
        commons.traces,
        parse_options(settings),
        clock=clock,
        ids=machine.ids,
    )
    admin = admin_routes(
        live,
        commons,
        pool,
        admitted,
        diagnostics,
        machine,
        heartbeats,
        router,
        limits,
        others.qwen_code.parts(),
        others,
    )
    counts = CountRoutes(gateway, lambda: chat.options)
    responses = responses_routes(live, commons, pool, chat, gateway, limits, heartbeats, machine)
    clients = ClientHandlers(chat, counts, models, TraceRoutes(commons.traces), responses)
    app = routes(live, endpoints, clients, lambda: why_not_ready(pool, others), admin)
    live.on_change(Tunable(door.upstream, site_prompts, gateway, site.catalogue, router, chat, models, limits).apply)
    async with (
        commons.usage,
        commons.traces,
        router,
        responses,
        Tasks() as tasks,
        HttpServer(app, endpoints, listener, responses.settle) as server,
    ):
        tasks.spawn(heartbeats.run(), name="heartbeats")
        tasks.spawn(server.close_silent(clock, settings.request_read_seconds), name="silent connections")
        if warms_up:
            tasks.spawn(_warm_up(router), name="model list")
        yield server


async def _warm_up(router: Router) -> None:
    """So that the first request need not wait for a list; one that fails will be tried again by that request."""
    with suppress(ProxyError):
        await router.directory(router.backends())


def _diagnostics(
    door: Door,
    overview: Overview,
    router: Router,
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
                simulated=door.is_simulated,
                clock_offset_seconds=door.site.clock_offset_seconds,
            ),
            unmapped_models=unmapped(router),
        )

    return DiagnosticsRoutes(gather)
