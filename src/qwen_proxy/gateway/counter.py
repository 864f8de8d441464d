"""Tokens that are counted here: of prompts, and of replies whose upstream told no usage."""

import asyncio
from collections.abc import Callable
from typing import Final

from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import Usage, UsageOrigin
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.tokens import count_request, counted_characters

# Above this many characters the tokenizer would hold the event loop for milliseconds: it runs in a thread then.
COUNT_IN_THREAD_CHARS: Final = 16_384


class Counter:
    """load: makes `tokens` ready; it may take half a second, and is called once, in a thread."""

    def __init__(self, tokens: TokenCounter, load: Callable[[], None]) -> None:
        self.tokens: Final = tokens
        self._load = load
        self._is_ready = False

    async def ready(self) -> TokenCounter:
        if not self._is_ready:
            await asyncio.to_thread(self._load)
            self._is_ready = True
        return self.tokens

    async def prompt(self, request: ChatRequest) -> int:
        await self.ready()
        if counted_characters(request) > COUNT_IN_THREAD_CHARS:
            return await asyncio.to_thread(count_request, self.tokens, request)
        return count_request(self.tokens, request)

    async def usage(self, request: ChatRequest, shaper: ReplyShaper) -> Usage:
        """Of a reply for which the upstream gave none, or that was cut short here."""
        prompt_tokens = await self.prompt(request)
        reasoning_tokens = await self._count(shaper.reasoning)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=await self._count(shaper.text + shaper.calls) + reasoning_tokens,
            reasoning_tokens=reasoning_tokens,
            origin=UsageOrigin.COUNTED,
        )

    async def _count(self, text: str) -> int:
        if len(text) > COUNT_IN_THREAD_CHARS:
            return await asyncio.to_thread(self.tokens.count, text)
        return self.tokens.count(text)
