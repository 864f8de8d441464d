"""What no route takes: a 404, or a 405 that says what the path does take."""

from aiohttp import web

from qwen_proxy.ground.errors import MethodNotAllowed, RouteNotFound
from qwen_proxy.serving.endpoint import Exchange


class UnknownRoutes:
    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def refuse(self, exchange: Exchange) -> web.StreamResponse:
        """Raises RouteNotFound or MethodNotAllowed."""
        method, path = exchange.http.method, exchange.path[:200]
        allowed = sorted({method for method in await self._methods(exchange.http) if method not in ("*", "HEAD")})
        if allowed:
            raise MethodNotAllowed(method, path, allowed)
        raise RouteNotFound(method, path)

    async def _methods(self, request: web.Request) -> set[str]:
        found: set[str] = set()
        for resource in self._app.router.resources():
            if resource.canonical != "/{path}":
                _, methods = await resource.resolve(request)
                found |= methods
        return found
