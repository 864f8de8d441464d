"""What became of a request, for whose it was, and for admins."""

import msgspec
from aiohttp import web

from qwen_proxy.config.keys import Role
from qwen_proxy.gateway.traces import TraceBook
from qwen_proxy.ground.errors import NotFound
from qwen_proxy.serving.endpoint import Exchange


class TraceRoutes:
    def __init__(self, traces: TraceBook) -> None:
        self._traces = traces

    async def one(self, exchange: Exchange) -> web.StreamResponse:
        """Raises NotFound, also where the request was another's: nobody learns that it was."""
        request_id, caller = exchange.http.match_info["id"], exchange.caller
        assert caller is not None  # the route wants a key
        found = await self._traces.find(request_id)
        if found is None or (found.key_id != caller.id and caller.role is not Role.ADMIN):
            raise NotFound(f"trace of a request {request_id[:64]!r}; they are kept for an hour")
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")
