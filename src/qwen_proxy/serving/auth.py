"""Who is calling: the one place that reads a key from a request."""

from collections.abc import Mapping

from qwen_proxy.config.credentials import KeyInfo, Keys, Role
from qwen_proxy.ground.errors import PermissionDenied, Unauthenticated


def presented_keys(headers: Mapping[str, str]) -> list[str]:
    """The keys a request carries, in every carrier we take, whatever the route.

    SDKs send either carrier; some send a dummy `Authorization` beside a right `x-api-key` (upstream protocol §10.1),
    so one right key among them is enough. The original takes `Authorization` without `Bearer` too.
    """
    found: list[str] = []
    if (authorization := headers.get("Authorization")) is not None:
        scheme, _, rest = authorization.strip().partition(" ")
        found.append(rest.strip() if scheme.casefold() == "bearer" else authorization.strip())
    if (api_key := headers.get("x-api-key")) is not None:
        found.append(api_key.strip())
    return found


class Authenticator:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def identify(self, headers: Mapping[str, str]) -> KeyInfo:
        """The key that was presented. Raises Unauthenticated. Never touches the body."""
        for presented in presented_keys(headers):
            if (info := self._keys.find(presented)) is not None:
                return info
        raise Unauthenticated

    def require_admin(self, headers: Mapping[str, str]) -> KeyInfo:
        """Raises Unauthenticated or PermissionDenied."""
        info = self.identify(headers)
        if info.role is not Role.ADMIN:
            raise PermissionDenied("the admin key")
        return info
