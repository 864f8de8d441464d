"""A way to models: what a request can be sent to."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.leasing import Leasing
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.ground.errors import NoAccountUsable
from qwen_proxy.upstreams.base import Upstream

WEB: Final = "web"  # the name of the backend that is chat.qwen.ai


class BackendKind(StrEnum):
    """What policies of keys speak of: the site, a paid API, a server of one's own."""

    WEB = "web"
    API = "api"
    LOCAL = "local"


def nothing_known() -> NoAccountUsable | None:
    return None


class Backend(Struct, frozen=True, kw_only=True, eq=False):
    """`name` is unique, as the operator chose it. catalogue: its own list, with its own ids.

    prefix: put before its models' ids in the public list; empty where they stand as they are. shortage: what a lease
    would be refused with now, or waits for (AccountsBusy); None where it would be had. It asks nobody.
    """

    name: str
    kind: BackendKind
    upstream: Upstream
    leasing: Leasing
    catalogue: CatalogueSource
    prefix: str = ""
    shortage: Callable[[], NoAccountUsable | None] = nothing_known


# Those that are there now, the preferred first; never empty. Asked several times a request: while nothing changes it
# best gives the same object.
Backends = Callable[[], tuple[Backend, ...]]


def account_name(backend: str, account_id: str) -> str:
    """As usage, traces and logs name an account: the site's by its own id, others behind their backend's name."""
    return account_id if backend == WEB else f"{backend}/{account_id}"
