"""Every protocol's route that counts what a prompt would cost: here, at once, without an upstream or an account."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from aiohttp import web

from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.protocols.base import CountProtocol, ParseOptions
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming

MOST_KEPT: Final = 512
MOST_AT_ONCE: Final = 2  # Claude Code asks two dozen times at once; chats must not wait for threads that count


class CountRoutes:
    """Makes a handler per protocol. What was counted lately is known by a hash of its body, and not counted again."""

    def __init__(self, gateway: ChatGateway, options: Callable[[], ParseOptions]) -> None:
        self._gateway = gateway
        self._options = options
        self._counted: OrderedDict[bytes, int] = OrderedDict()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    def handler(self, protocol: CountProtocol) -> Handler:
        async def handle(exchange: Exchange) -> web.StreamResponse:
            asked, options = await incoming(exchange), self._options()
            content = f"{type(protocol).__name__} {asked.path} {options}".encode()
            key = blake2b(content + asked.body, digest_size=16).digest()
            async with self._turns:
                tokens = self._counted.get(key)
                if tokens is None:
                    tokens = await self._gateway.count_prompt(protocol.parse(asked, options))
                    self._keep(key, tokens)
            return web.Response(body=protocol.result(tokens), content_type="application/json")

        return handle

    def _keep(self, key: bytes, tokens: int) -> None:
        self._counted[key] = tokens
        if len(self._counted) > MOST_KEPT:
            self._counted.popitem(last=False)
