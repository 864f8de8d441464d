"""GET /healthz and /readyz, for load balancers and supervisors. Both cost nothing upstream."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from qwen_proxy.serving.endpoint import Endpoints, Exchange


class HealthRoutes:
    """why_not_ready: None when at least one account is usable, else a clause that says why none is."""

    def __init__(self, endpoints: Endpoints, why_not_ready: Callable[[], str | None]) -> None:
        self._endpoints = endpoints
        self._why_not_ready = why_not_ready

    async def live(self, exchange: Exchange) -> web.StreamResponse:
        """The process answers."""
        return _answer(200, {"status": "ok"})

    async def ready(self, exchange: Exchange) -> web.StreamResponse:
        """A chat request would find an account now."""
        if self._endpoints.draining:
            return _answer(503, {"status": "draining"})
        if (why := self._why_not_ready()) is not None:
            return _answer(503, {"status": "not_ready", "reason": why})
        return _answer(200, {"status": "ready"})


def _answer(status: int, body: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
