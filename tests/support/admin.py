"""The admin API of a running gateway: clients with each key, and the table of its routes."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec

from qwen_proxy.admin.diagnostics import DiagnosticsBody, DiagnosticsRoutes
from qwen_proxy.admin.routing import AdminRoute
from qwen_proxy.app.admin import admin_routes, admission
from qwen_proxy.app.machine import Machine
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.serving.streaming import Heartbeats
from tests.support.http import ADMIN_KEY
from tests.support.running import Running

T = TypeVar("T")
Json = dict[str, Any]  # JSON enters here


@asynccontextmanager
async def as_admin(gateway: Running) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as client:
        yield client


def table(gateway: Running) -> Sequence[AdminRoute]:
    """Every route, for its declared types."""

    async def gather() -> DiagnosticsBody:
        raise AssertionError

    admitted = admission(gateway.settings, gateway.commons, Machine())
    heartbeats = Heartbeats(Machine().clock, header_commit_seconds=1, heartbeat_seconds=1)
    gathering = DiagnosticsRoutes(gather)
    commons, clock = gateway.commons, Machine().clock
    router = Router(lambda: (), Naming())
    limits = Admission(commons.allowances, commons.purse, clock, LimitDefaults())
    return admin_routes(
        gateway.live,
        commons,
        gateway.pool,
        admitted,
        gathering,
        Machine(),
        heartbeats,
        router,
        limits,
        gateway.others.qwen_code.parts(),
        gateway.others,
    )


async def answer(client: aiohttp.ClientSession, method: str, path: str, kind: type[T], **options: Any) -> T:
    """The answer of a call that goes well."""
    async with client.request(method, path, **options) as response:
        body = await response.read()
        assert response.status < 300, body
        assert response.headers["Cache-Control"] == "no-store"
        return msgspec.json.decode(body, type=kind)
