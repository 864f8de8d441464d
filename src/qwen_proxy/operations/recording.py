"""Records one real exchange with the upstream, redacted, in the form of tests/recordings/."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.app import transport_options, web_options
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.catalogue import Catalogue
from qwen_proxy.ground.errors import NoAccountUsable, ProxyError
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.recorder import Exchange, redact
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Stream, Transport, TransportOptions

COMPLETIONS: Final = "/api/v2/chat/completions?"


class Wish(Struct, frozen=True, kw_only=True):
    """model: empty takes the upstream's first; suffixes such as -thinking work."""

    prompt: str
    model: str = ""


class Captured(Struct, frozen=True, kw_only=True):
    """failure: how the exchange failed, which is worth a recording all the same; empty when it did not."""

    exchange: Exchange
    failure: str = ""


async def capture(settings: Settings, wish: Wish, clock: Clock, ids: Ids) -> Captured:
    """Sign in with the first account, ask once, and keep what came. Raises ProxyError when nothing did."""
    failure: ProxyError | None = None
    async with (
        open_destination(settings) as destination,
        _TappedTransport(clock, transport_options(destination.settings)) as transport,
    ):
        if not destination.accounts:
            raise NoAccountUsable("there is no account: set ACCOUNTS to email:password")
        account = destination.accounts[0]
        options = web_options(destination.settings, destination.base_url)
        site = Site(transport, clock, ids, Drift(clock.now), options)
        credential = await SignIn(site)(account)
        try:
            await _ask(site, credential, wish, settings)
        except ProxyError as error:
            failure = error
    if transport.status is None:
        raise failure or NoAccountUsable("nothing was asked")
    exchange = Exchange(
        status=transport.status,
        headers=transport.headers,
        chunks=tuple(transport.chunks),
        secrets=_secrets(account, credential),
    )
    return Captured(exchange=exchange, failure="" if failure is None else str(failure))


def save(captured: Captured, folder: Path, name: str, *, keep_text: bool) -> list[Path]:
    """Redact and write; the files. Raises OSError, FileExistsError rather than overwrite one."""
    folder.mkdir(parents=True, exist_ok=True)
    return redact(captured.exchange, keep_text).write(folder, name)


async def _ask(site: Site, credential: Credential, wish: Wish, settings: Settings) -> None:
    deadline = site.clock.monotonic() + settings.request_deadline_seconds
    async with QwenWeb(site) as upstream:
        models = await upstream.models(credential, deadline)
        resolved = Catalogue(models, settings.model_map).resolve(wish.model)
        request = ChatRequest(model=resolved.name, messages=(Message(Role.USER, (TextPart(wish.prompt),)),))
        async with upstream.open(request, resolved.model, credential, deadline) as batches:
            async for _ in batches:
                pass


def _secrets(account: Account, credential: Credential) -> tuple[str, ...]:
    hidden = (account.password, account.cookies, credential.token, credential.cookies)
    return (account.email, *(secret.reveal() for secret in hidden if secret is not None))


class _TappedStream(Stream):
    """Keeps the chunks as they pass."""

    __slots__ = ("_chunks", "_inner")

    def __init__(self, inner: Stream, chunks: list[bytes]) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._inner = inner
        self._chunks = chunks

    async def read(self) -> bytes:
        chunk = await self._inner.read()
        self._chunks.append(chunk)
        return chunk


class _TappedTransport(Transport):
    """Keeps the answer to a completion; other calls pass unseen."""

    def __init__(self, clock: Clock, options: TransportOptions) -> None:
        super().__init__(clock, options)
        self.status: int | None = None
        self.headers: tuple[tuple[str, str], ...] = ()
        self.chunks: list[bytes] = []

    def stream(
        self, exit: str, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        stream = super().stream(exit, method, url, headers=headers, body=body, deadline=deadline)
        return self._tapped(stream) if COMPLETIONS in url else stream

    @asynccontextmanager
    async def _tapped(self, opening: AbstractAsyncContextManager[Stream]) -> AsyncGenerator[Stream]:
        async with opening as stream:
            self.status, self.headers = stream.status, tuple(stream.headers.items())
            yield _TappedStream(stream, self.chunks)
