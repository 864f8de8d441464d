"""Routes whose answer is known before anybody asks: the same words each time, or why there are none."""

from aiohttp import web

from qwen_proxy.ground.errors import NotOffered
from qwen_proxy.serving.endpoint import Exchange, Handler


def fixed(body: bytes) -> Handler:
    """Answers with this JSON."""

    async def handle(exchange: Exchange) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return handle


def not_offered(what: str, instead: str) -> Handler:
    """Raises NotOffered, whatever is asked."""

    async def handle(exchange: Exchange) -> web.StreamResponse:
        raise NotOffered(what, instead)

    return handle
