"""Every route of one HTTP server, made from the tables."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from aiohttp import web
from msgspec import Struct

from qwen_proxy import __version__
from qwen_proxy.admin.documents import DocumentRoutes
from qwen_proxy.admin.openapi import ClientRoute
from qwen_proxy.admin.routing import AdminRoute
from qwen_proxy.api.chat import ChatRoutes
from qwen_proxy.api.counting import CountRoutes
from qwen_proxy.api.fixed import fixed, not_offered
from qwen_proxy.api.health import HealthRoutes
from qwen_proxy.api.models import ModelRoutes
from qwen_proxy.api.responses import ROUTES as RESPONSES_ROUTES
from qwen_proxy.api.responses import ResponsesRoutes
from qwen_proxy.api.traces import TraceRoutes
from qwen_proxy.api.unknown import UnknownRoutes
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.gateway.backend import BackendKind
from qwen_proxy.gateway.permission import Scope
from qwen_proxy.protocols.base import Dialect, ModelsProtocol
from qwen_proxy.protocols.openai_chat import OpenAIChat
from qwen_proxy.protocols.openai_models import OpenAIModels
from qwen_proxy.protocols.table import (
    AREAS,
    COUNTERS,
    FIXED,
    MODEL_LISTS,
    PROTOCOLS,
    REFUSED,
    SHOWN,
    ModelsRoute,
    ProtocolRoute,
)
from qwen_proxy.serving.cors import Cors
from qwen_proxy.serving.endpoint import Access, Endpoints, Handler, Serve, expect

ADMIN: Final = "/api/admin/"  # amid Ollama's paths

CLIENT_ROUTES: Final = (  # as the OpenAPI document has them; a test holds them against those that are served
    ClientRoute(
        method="POST", path="/v1/chat/completions", summary="Chat completions, streamed or whole", access=Access.KEY
    ),
    ClientRoute(
        method="POST", path="/v1/messages", summary="Anthropic's Messages, streamed or whole", access=Access.KEY
    ),
    ClientRoute(
        method="POST", path="/v1/messages/count_tokens", summary="Counts a prompt, costs nothing", access=Access.KEY
    ),
    ClientRoute(method="POST", path="/v1/completions", summary="OpenAI's older completions", access=Access.KEY),
    ClientRoute(method="POST", path="/v1/embeddings", summary="Not offered: a 501 that says why", access=Access.KEY),
    ClientRoute(
        method="POST", path="/v1beta/models/{model}:generateContent", summary="Gemini's content", access=Access.KEY
    ),
    ClientRoute(
        method="POST",
        path="/v1beta/models/{model}:streamGenerateContent",
        summary="The same, streamed",
        access=Access.KEY,
    ),
    ClientRoute(
        method="POST",
        path="/v1beta/models/{model}:countTokens",
        summary="Counts a prompt, costs nothing",
        access=Access.KEY,
    ),
    ClientRoute(
        method="POST", path="/v1/models/{model}:generateContent", summary="Gemini's, its version 1", access=Access.KEY
    ),
    ClientRoute(
        method="POST", path="/v1/models/{model}:streamGenerateContent", summary="The same, streamed", access=Access.KEY
    ),
    ClientRoute(
        method="POST",
        path="/v1/models/{model}:countTokens",
        summary="Counts a prompt, costs nothing",
        access=Access.KEY,
    ),
    ClientRoute(method="GET", path="/v1beta/models", summary="The models, in Gemini's shape", access=Access.KEY),
    ClientRoute(method="GET", path="/v1beta/models/{id}", summary="One model, in Gemini's shape", access=Access.KEY),
    ClientRoute(method="POST", path="/api/chat", summary="Ollama's chat", access=Access.KEY),
    ClientRoute(method="POST", path="/api/generate", summary="Ollama's completions", access=Access.KEY),
    ClientRoute(method="GET", path="/api/tags", summary="The models, in Ollama's shape", access=Access.KEY),
    ClientRoute(method="POST", path="/api/show", summary="One model, in Ollama's shape", access=Access.KEY),
    ClientRoute(method="GET", path="/api/version", summary="This program's version", access=Access.KEY),
    ClientRoute(method="GET", path="/api/ps", summary="Ollama's list of loaded models: empty", access=Access.KEY),
    ClientRoute(method="POST", path="/api/embed", summary="Not offered: a 501 that says why", access=Access.KEY),
    ClientRoute(method="POST", path="/api/embeddings", summary="Not offered: a 501 that says why", access=Access.KEY),
    ClientRoute(
        method="POST", path="/v1/responses", summary="OpenAI's responses, streamed or whole", access=Access.KEY
    ),
    *(
        ClientRoute(method=route.method, path=route.path, summary=route.summary, access=Access.KEY)
        for route in RESPONSES_ROUTES
    ),
    ClientRoute(method="GET", path="/v1/models", summary="The models", access=Access.KEY),
    ClientRoute(method="GET", path="/v1/models/{id}", summary="One model, by any of its names", access=Access.KEY),
    ClientRoute(
        method="GET", path="/v1/requests/{id}/trace", summary="What became of a request of one's own", access=Access.KEY
    ),
    ClientRoute(method="GET", path="/models", summary="The models; MODELS_OPEN=false closes it", access=Access.OPEN),
    ClientRoute(
        method="POST", path="/cli/v1/chat/completions", summary="The same, of API backends only", access=Access.KEY
    ),
    ClientRoute(method="GET", path="/cli/v1/models", summary="The models of API backends", access=Access.KEY),
    ClientRoute(method="POST", path="/cli/v1/models", summary="The same, as the original has it", access=Access.KEY),
    ClientRoute(method="GET", path="/healthz", summary="The process answers", access=Access.OPEN),
    ClientRoute(method="GET", path="/readyz", summary="A chat would find an account now", access=Access.OPEN),
    ClientRoute(method="GET", path="/openapi.json", summary="This document", access=Access.OPEN),
    ClientRoute(method="GET", path="/docs", summary="This document as a page", access=Access.OPEN),
)


CLI: Final = Scope(
    kinds=frozenset((BackendKind.API,)),
    names=(("qwen3.5-plus", "coder-model"),),
    missing=(
        "no API backend is configured, and /cli/v1 serves no other: give one's key in MODEL_STUDIO_API_KEY or"
        " OPENROUTER_API_KEY, describe one in BACKENDS, or add one (qwen-proxy backends add); or set"
        " QWEN_CODE_ENABLED=true and sign in at Qwen Code (qwen-proxy qwen-code login), whose free tier has ended;"
        " /v1 serves the models of chat.qwen.ai"
    ),
)


class ClientHandlers(Struct, frozen=True):
    """What serves the protocols of `protocols.table`."""

    chat: ChatRoutes
    counts: CountRoutes
    models: ModelRoutes
    traces: TraceRoutes
    responses: ResponsesRoutes


def routes(
    live: LiveSettings,
    endpoints: Endpoints,
    clients: ClientHandlers,
    why_not_ready: Callable[[], str | None],
    admin: Sequence[AdminRoute],
) -> web.Application:
    settings = live.current
    general = OpenAIModels()  # errors of routes that belong to no protocol have OpenAI's shape
    app = web.Application(client_max_size=settings.max_body_bytes)
    cors = Cors(settings.cors_origins) if settings.cors_origins else None
    if cors is not None:
        app.on_response_prepare.append(cors.allow)
    _add_clients(app, endpoints, clients, lambda: Access.OPEN if live.current.models_open else Access.KEY)
    health = HealthRoutes(endpoints, why_not_ready)
    documents = DocumentRoutes(admin, CLIENT_ROUTES, __version__)
    for path, handler in (
        ("/healthz", health.live),
        ("/readyz", health.ready),
        ("/openapi.json", documents.openapi),
        ("/docs", documents.docs),
    ):
        app.router.add_get(path, endpoints.endpoint(handler, general, Access.OPEN))
    for route in admin:
        serve = endpoints.endpoint(route.serve, general, route.access)
        app.router.add_route(route.method, route.path, serve, expect_handler=expect)
    trace = endpoints.endpoint(clients.traces.one, general, Access.KEY)
    app.router.add_get("/v1/requests/{id}/trace", trace)
    unknown = UnknownRoutes(app)
    if cors is not None:
        preflight = endpoints.endpoint(cors.preflight(unknown.refuse), general, Access.OPEN)
        app.router.add_route("OPTIONS", "/{path:.*}", preflight)
    app.router.add_route("*", "/{path:.*}", _unknown(endpoints, unknown, general, admin))
    return app


def _unknown(endpoints: Endpoints, unknown: UnknownRoutes, general: Dialect, admin: Sequence[AdminRoute]) -> Serve:
    """Told in the words of the protocol whose path it is, else in those of who asks, as far as that can be known."""

    def refuse(dialect: Dialect) -> Serve:
        return endpoints.endpoint(unknown.refuse, dialect, Access.OPEN)

    operators = (ADMIN, *(route.path for route in admin if "{" not in route.path))
    for_operators = refuse(general)
    areas = [(area, refuse(area.dialect)) for area in AREAS]
    others = _by_header([(route.header, refuse(route.protocol)) for route in MODEL_LISTS if route.path == "/v1/models"])

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path.startswith(operators):
            return await for_operators(request)
        chosen = next((refusal for area, refusal in areas if area.has(request.path)), others)
        return await chosen(request)

    return serve


def _add_clients(
    app: web.Application, endpoints: Endpoints, clients: ClientHandlers, models_access: Callable[[], Access]
) -> None:
    for paths, group in groupby(PROTOCOLS, lambda route: (route.path, route.also)):
        has_places = any("{" in path for path in paths)
        serve = _by_query([(each.query, _chat(endpoints, each, clients, has_places=has_places)) for each in group])
        for path in filter(None, paths):
            app.router.add_post(_place(path), serve, expect_handler=expect)
            if not (has_places or app.on_response_prepare):  # what is to be done to every answer, aiohttp does
                endpoints.direct[path] = serve
    for beside in RESPONSES_ROUTES:
        responses = clients.responses
        handler = responses.handler(beside.method, beside.path)
        serve = endpoints.endpoint(handler, responses.protocol, Access.KEY, "responses")
        app.router.add_route(beside.method, beside.path, serve, expect_handler=expect)
    for count in COUNTERS:
        handler = endpoints.endpoint(clients.counts.handler(count.protocol), count.protocol, Access.KEY, count.word)
        for path in filter(None, (count.path, count.also)):
            app.router.add_post(_place(path), handler, expect_handler=expect)
    models = clients.models
    for path, group in groupby(MODEL_LISTS, lambda route: route.path):
        listing = list(group)
        app.router.add_get(path, _by_header([(each.header, _models(endpoints, each, models.all)) for each in listing]))
        if one_path := listing[0].one_path:
            app.router.add_get(
                _place(one_path), _by_header([(each.header, _models(endpoints, each, models.one)) for each in listing])
            )
    for shown in SHOWN:
        show = endpoints.endpoint(models.shown(shown.protocol), shown.protocol, Access.KEY, "models")
        app.router.add_post(shown.path, show, expect_handler=expect)
    for answer in FIXED:
        serve = endpoints.endpoint(fixed(answer.body), answer.dialect, Access.KEY, answer.word)
        app.router.add_get(answer.path, serve)
    for refused in REFUSED:
        refusal = not_offered(refused.what, refused.instead)
        serve = endpoints.endpoint(refusal, refused.dialect, Access.KEY, refused.word)
        app.router.add_post(refused.path, serve, expect_handler=expect)
    _add_cli(app, endpoints, clients)
    openai = OpenAIModels()
    app.router.add_get("/models", endpoints.endpoint(models.all(openai), openai, models_access, "models"))


def _add_cli(app: web.Application, endpoints: Endpoints, clients: ClientHandlers) -> None:
    """What the original serves of Qwen Code's accounts (upstream protocol §10.2), here of all API backends."""
    chat, models = OpenAIChat(), OpenAIModels()
    ask = endpoints.endpoint(clients.chat.handler(chat, CLI), chat, Access.KEY, "cli")
    listing = endpoints.endpoint(clients.models.all(models, CLI), models, Access.KEY, "cli")
    app.router.add_post("/cli/v1/chat/completions", ask, expect_handler=expect)
    app.router.add_get("/cli/v1/models", listing)
    app.router.add_post("/cli/v1/models", listing, expect_handler=expect)


def _place(path: str) -> str:
    """As aiohttp wants it: a model's name may hold a slash."""
    return path.replace("{id}", "{id:.+}").replace("{model}", "{model:.+}")


def _chat(endpoints: Endpoints, route: ProtocolRoute, clients: ClientHandlers, *, has_places: bool) -> Serve:
    handler = clients.responses.create if route.is_kept else clients.chat.handler(route.protocol)
    return endpoints.endpoint(handler, route.protocol, Access.KEY, route.word, has_places=has_places)


def _models(endpoints: Endpoints, route: ModelsRoute, handler: Callable[[ModelsProtocol], Handler]) -> Serve:
    return endpoints.endpoint(handler(route.protocol), route.protocol, Access.KEY, "models")


def _by_header(served: Sequence[tuple[str, Serve]]) -> Serve:
    """The first of them whose header the request has; the last one wants none, and is named by an empty one."""

    async def serve(request: web.Request) -> web.StreamResponse:
        chosen = next(serve for header, serve in served if not header or header in request.headers)
        return await chosen(request)

    return serve


def _by_query(served: Sequence[tuple[str, Serve]]) -> Serve:
    """The first of them whose `name=value` the request's query has; the last one wants none."""
    if len(served) == 1:
        return served[0][1]

    async def serve(request: web.Request) -> web.StreamResponse:
        asked = {f"{name}={value}" for name, value in request.query.items()}
        chosen = next(serve for wanted, serve in served if not wanted or wanted in asked)
        return await chosen(request)

    return serve
