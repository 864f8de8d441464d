"""Tokens as the site issues them: HS256 JWTs, signed with a key of this instance (upstream protocol §1.4)."""

import base64
import hashlib
import hmac
import secrets

import msgspec


class Claims(msgspec.Struct, frozen=True):
    """The payload: account id, end and last password change, both in Unix seconds. There is no `iat`."""

    id: str
    exp: int
    last_password_change: int


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


HEADER = _encode(b'{"alg":"HS256","typ":"JWT"}')


class TokenMint:
    """Issues tokens and reads its own back."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def _sign(self, signed: str) -> str:
        return _encode(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())

    def issue(self, claims: Claims) -> str:
        signed = f"{HEADER}.{_encode(msgspec.json.encode(claims))}"
        return f"{signed}.{self._sign(signed)}"

    def read(self, token: str) -> Claims | None:
        """The claims of a token this mint issued, ended or not; None for any other text."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(signed).encode(), signature.encode(errors="replace")):
            return None
        return msgspec.json.decode(_decode(signed.partition(".")[2]), type=Claims)
