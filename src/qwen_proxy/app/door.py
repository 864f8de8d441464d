"""The way to chat.qwen.ai, built from the settings."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.settings import Settings
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.headers import HeaderOptions
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.options import CleanupOptions, QwenWebOptions
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport, TransportOptions

MOST_OTHER_EXITS: Final = 2  # that are tried for the model list: each may take its time to fail


class Door(Struct, frozen=True):
    """The way to chat.qwen.ai, or to what stands in for it."""

    base_url: str
    is_simulated: bool
    upstream: QwenWeb
    site: Site
    sign_in: SignIn
    drift: Drift


@asynccontextmanager
async def open_door(
    settings: Settings, base_url: str, machine: Machine, *, is_simulated: bool = False
) -> AsyncGenerator[Door]:
    """base_url: where the upstream is, which is not `settings.chat_base_url` when the simulator stands in."""
    drift = Drift(machine.clock.now)
    async with Transport(machine.clock, transport_options(settings)) as transport:
        site = Site(transport, machine.clock, machine.ids, drift, web_options(settings, base_url))
        async with QwenWeb(site) as upstream:
            yield Door(
                base_url=base_url,
                is_simulated=is_simulated,
                upstream=upstream,
                site=site,
                sign_in=SignIn(site),
                drift=drift,
            )


def transport_options(settings: Settings) -> TransportOptions:
    return TransportOptions(
        connect_seconds=settings.connect_timeout_seconds,
        headers_seconds=settings.headers_timeout_seconds,
        idle_seconds=settings.idle_timeout_seconds,
        watch_interval_seconds=min(
            1.0,
            settings.connect_timeout_seconds / 4,
            settings.headers_timeout_seconds / 4,
            settings.idle_timeout_seconds / 4,
            settings.request_deadline_seconds / 4,
        ),
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
    )


def web_options(settings: Settings, base_url: str) -> QwenWebOptions:
    usual = HeaderOptions()
    exits = general_exits(settings, [line.exit for line in settings.accounts])
    return QwenWebOptions(
        base_url=base_url,
        exit=exits[0],
        other_exits=exits[1:],
        headers=HeaderOptions(
            user_agent=settings.user_agent or usual.user_agent,
            version=settings.web_version or usual.version,
            accept_language=settings.accept_language or usual.accept_language,
            credentials="cookie+bearer" if settings.send_bearer else "cookie",
            extra=settings.extra_headers,
        ),
        cleanup=CleanupOptions(delete_after_seconds=delete_after_seconds(settings)),
        max_prompt_bytes=settings.max_prompt_bytes,
    )


def delete_after_seconds(settings: Settings) -> float | None:
    return None if settings.cleanup_minutes is None else settings.cleanup_minutes * 60


def general_exits(settings: Settings, own: Sequence[str]) -> tuple[str, ...]:
    """The ways out of calls that no account makes, such as the model list, in the order in which they are tried.

    own: each account's own proxy, empty where it has none. The first is PROXY_URL; without one, direct, unless every
    account has a proxy of its own: then nothing is to go direct.
    """
    general = settings.proxy_url or (own[0] if own and all(own) else DIRECT)
    others = [exit for exit in dict.fromkeys(own) if exit not in ("", general)]
    return (general, *others[:MOST_OTHER_EXITS])
