"""The upstream side: what every adapter offers the gateway."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT, Credential
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.config.backends import Thinking


class Upstream(Protocol):
    """has_native_tools, has_native_output: whether it takes tools, and formats of output, itself.
    forwards_fields: whether it speaks a client protocol itself: it honours sampling, `max_tokens` with it, and passes
    `ChatRequest.extra` on.
    """

    @property
    def name(self) -> str: ...
    @property
    def has_native_tools(self) -> bool: ...
    @property
    def has_native_output(self) -> bool: ...
    @property
    def forwards_fields(self) -> bool: ...

    def check(self, request: ChatRequest) -> None:
        """Whether it could be asked at all, told before an account is taken for it; costs next to nothing.

        Raises PromptTooLong or UnsupportedParameter.
        """
        ...

    def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask, and hand out the reply as one batch a read, in the order of chat/grammar.py.

        Entering starts the request; leaving closes everything that it opened, whoever leaves. `deadline` is
        monotonic seconds. A reply that broke off, was empty or told of an error raises, wherever it was; it never
        ends as if it were well. Raises ProxyError.
        """
        ...

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        """The upstream's list, in its order: the first is its default. Raises ProxyError."""
        ...


class ServerUpstream(Upstream, Protocol):
    """One of a server that an operator describes (`config.backends`)."""

    async def listed(self, credential: Credential | None, deadline: float) -> list[Model]:
        """What the server itself lists, whatever is configured; a proof of its address. Raises ProxyError."""
        ...


class ApiOptions(Struct, frozen=True, kw_only=True):
    """What an operator decides about one server.

    base_url: what `/chat/completions` is put behind, mostly ending in `/v1`. models: its ids, where the list is not
    to be asked for; usual_models: where it has none. headers: sent with every request. exit: of calls without a key.
    """

    name: str
    base_url: str
    models: tuple[str, ...] = ()
    usual_models: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    thinking: Thinking = Thinking.EFFORT
    exit: str = DIRECT
    models_seconds: float = 20
    drain_seconds: float = 1

    def url(self, path: str) -> str:
        """By concatenation: a prefix path stays (§0.3)."""
        return self.base_url.rstrip("/") + path
