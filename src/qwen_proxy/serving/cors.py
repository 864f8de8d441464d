"""Pages of the origins that the operator named may call the API from a browser; those of others may not."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from qwen_proxy.serving.endpoint import Exchange, Handler

METHODS = "GET, POST, PUT, PATCH, DELETE"
EXPOSED = ", ".join(
    ("x-request-id", "request-id", "x-should-retry", "retry-after")
    + tuple(f"x-qwen-proxy-{word}" for word in ("ignored", "warnings", "backend", "model", "tools"))
    + tuple(f"x-ratelimit-{word}-{kind}" for kind in ("requests", "tokens") for word in ("limit", "remaining", "reset"))
    + tuple(
        f"anthropic-ratelimit-{kind}-{word}"
        for kind in ("requests", "tokens")
        for word in ("limit", "remaining", "reset")
    )
)
PREFLIGHT_SECONDS = "600"


class Cors:
    """origins: exact, as browsers send them, or `*` for all. Keys travel in headers, never in cookies: no credentials
    are allowed for. Source: the Fetch standard, §3.2 (CORS protocol)."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    async def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """For `on_response_prepare`: every answer, streams and errors too, says whether its origin may read it."""
        origin = request.headers.get("Origin", "")
        response.headers.add("Vary", "Origin")
        if self._takes(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED

    def preflight(self, otherwise: Handler) -> Callable[[Exchange], Awaitable[web.StreamResponse]]:
        """A handler for OPTIONS: a browser's question in advance; what is none goes to `otherwise`."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            asked = exchange.http.headers
            if "Access-Control-Request-Method" not in asked or not self._takes(asked.get("Origin", "")):
                return await otherwise(exchange)
            headers = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": PREFLIGHT_SECONDS}
            if wanted := asked.get("Access-Control-Request-Headers"):
                headers["Access-Control-Allow-Headers"] = wanted[:2000]
            return web.Response(status=204, headers=headers)

        return handle

    def _takes(self, origin: str) -> bool:
        return origin != "" and ("*" in self._origins or origin.lower() in self._origins)
