"""The upstream as the settings describe it, for what the commands ask of it without a server of ours between."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.config.settings import Settings
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.headers import HeaderOptions
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.options import CleanupOptions, QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport, TransportOptions


def transport_for(settings: Settings) -> Transport:
    return Transport(
        SystemClock(),
        TransportOptions(
            connect_seconds=settings.connect_timeout_seconds,
            headers_seconds=settings.headers_timeout_seconds,
            idle_seconds=settings.idle_timeout_seconds,
            ca_file=None if settings.ca_file is None else str(settings.ca_file),
        ),
    )


def web_options(settings: Settings, base_url: str) -> QwenWebOptions:
    """An empty header setting leaves the adapter's own."""
    own = HeaderOptions()
    minutes = settings.cleanup_minutes
    return QwenWebOptions(
        base_url=base_url,
        exit=settings.proxy_url,
        headers=HeaderOptions(
            user_agent=settings.user_agent or own.user_agent,
            version=settings.web_version or own.version,
            accept_language=settings.accept_language or own.accept_language,
            credentials="cookie+bearer" if settings.send_bearer else "cookie",
            extra=settings.extra_headers,
        ),
        cleanup=CleanupOptions(delete_after_seconds=None if minutes is None else minutes * 60),
        max_prompt_bytes=settings.max_prompt_bytes,
    )


def site_for(settings: Settings, transport: Transport, base_url: str) -> Site:
    clock = SystemClock()
    return Site(transport, clock, SystemIds(), Drift(clock.now), web_options(settings, base_url))


@asynccontextmanager
async def signing_in(settings: Settings) -> AsyncGenerator[Callable[[Account], Awaitable[Credential]]]:
    async with transport_for(settings) as transport:
        yield SignIn(site_for(settings, transport, settings.chat_base_url))
