"""GET /openapi.json and /docs: open to all, since they tell nothing that the source does not."""

from collections.abc import Sequence

from aiohttp import web

from qwen_proxy.admin.openapi import ClientRoute, document
from qwen_proxy.admin.page import POLICY, page
from qwen_proxy.admin.routing import JSON, AdminRoute
from qwen_proxy.serving.endpoint import Exchange


class DocumentRoutes:
    """Both are made once, here."""

    def __init__(self, admin: Sequence[AdminRoute], clients: Sequence[ClientRoute], version: str) -> None:
        self._document = document(admin, clients, version)
        self._page = page(self._document).encode()

    async def openapi(self, exchange: Exchange) -> web.StreamResponse:
        return web.Response(body=self._document, content_type=JSON)

    async def docs(self, exchange: Exchange) -> web.StreamResponse:
        response = web.Response(body=self._page, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response
