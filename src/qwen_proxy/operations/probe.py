"""One cheap call through each exit: is it open, and what time is it at the other end?"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.errors import ProxyError, UpstreamChallenged
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.upstreams.transport import Transport

PROBE_SECONDS: Final = 20.0


class Probed(Struct, frozen=True, kw_only=True):
    """error: why the exit can't be used, None when it can. clock_offset_seconds: the upstream's clock minus ours."""

    error: ProxyError | None = None
    clock_offset_seconds: float | None = None


async def probe(transport: Transport, base_url: str, exit: str, headers: Mapping[str, str], clock: Clock) -> Probed:
    """Ask who we are, without a token (upstream protocol §1.5): any JSON answer, a 401 too, shows an open way.

    Costs no quota and no sign-in.
    """
    try:
        response = await transport.request(
            exit, "GET", f"{base_url}/api/v1/auths/", headers=headers, timeout_seconds=PROBE_SECONDS
        )
    except ProxyError as error:
        return Probed(error=error)
    challenged = response.headers.get("Content-Type", "").startswith("text/html")
    return Probed(
        error=UpstreamChallenged("html") if challenged else None,
        clock_offset_seconds=clock_offset(response.headers.get("Date", ""), clock.now()),
    )


def clock_offset(date: str, now: float) -> float | None:
    """Of a `Date` header, which is good to a second; None for one that can't be read."""
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return None
