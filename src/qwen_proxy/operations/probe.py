"""One cheap call through each exit: is the way open, and what time is it at the other end?"""

from typing import Final

from msgspec import Struct

from qwen_proxy.ground.errors import ProxyError, UpstreamChallenged
from qwen_proxy.upstreams.qwen_web.site import Site

PROBE_SECONDS: Final = 20.0


class Probed(Struct, frozen=True, kw_only=True):
    """error: why the exit can't be used, None when it can. clock_offset_seconds: the upstream's clock minus ours."""

    error: ProxyError | None = None
    clock_offset_seconds: float | None = None


async def probe(site: Site, exit: str) -> Probed:
    """Ask who we are, without a token (upstream protocol §1.5): any answer but a page, a 401 too, shows an open way.

    Costs no quota and no sign-in.
    """
    try:
        response = await site.call(
            "GET", "/api/v1/auths/", page="/", credential=None, exit=exit, timeout_seconds=PROBE_SECONDS
        )
    except ProxyError as error:
        return Probed(error=error)
    is_page = response.body.lstrip().startswith(b"<")
    return Probed(error=UpstreamChallenged("html") if is_page else None, clock_offset_seconds=site.clock_offset_seconds)
