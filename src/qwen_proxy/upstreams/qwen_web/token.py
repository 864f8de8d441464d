"""What a token says of itself. Source: upstream protocol §1.4. Pure."""

import base64
import binascii

from qwen_proxy.upstreams.qwen_web.wire import loads, members


def token_end(token: str) -> float | None:
    """The `exp` a JWT claims, in Unix seconds. It is not verified: only the upstream can."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = members(loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (ValueError, binascii.Error):
        return None
    end = claims.get("exp")
    return float(end) if isinstance(end, (int, float)) and 0 < end < 1e12 else None
