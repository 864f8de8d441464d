"""What we give a client to send back to us, opaque to it: `encrypted_content` of reasoning and compaction items. Pure.

It holds nothing that the client may not read: what it must not be is changed, by whoever cut or re-encoded it, so a
digest goes with it. What another server wrote is told apart by its beginning.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final

_MARK: Final = "qp1."
_DIGEST_BYTES: Final = 12


def sealed(text: str) -> str:
    said = text.encode(errors="surrogatepass")
    return _MARK + urlsafe_b64encode(_digest(said) + said).decode()


def opened(content: str) -> str | None:
    """The text; None for what is not ours, or not whole."""
    if not content.startswith(_MARK):
        return None
    try:
        packed = urlsafe_b64decode(content[len(_MARK) :].encode(errors="replace"))
    except (binascii.Error, ValueError):
        return None
    digest, said = packed[:_DIGEST_BYTES], packed[_DIGEST_BYTES:]
    return said.decode(errors="surrogatepass") if digest == _digest(said) else None


def _digest(said: bytes) -> bytes:
    return blake2b(said, digest_size=_DIGEST_BYTES).digest()
