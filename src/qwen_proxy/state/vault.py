"""Encryption of what is kept: values are sealed with AES-256-GCM before a store sees them.

Two levels, so that the operator's secret can be changed without writing everything anew. The *vault document* holds
random data keys and the random *pepper* of client keys' digests; it is wrapped with a key made of the operator's
secret (SECRET_KEY, or DATA_DIR/secret.key) by HKDF-SHA256, or by scrypt for a passphrase that a person thought of.

A sealed value: one byte of form (1), four bytes of data key id, 12 of nonce, then ciphertext and tag. The kind and id
of its record are authenticated with it: a value that was moved to another record does not open.
"""

import hashlib
import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.secret import Secret

FORM: Final = b"\x01"
KEY_ID_BYTES: Final = 4
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16


class WrongSecret(Exception):
    """The secret is not the one that this was sealed with, or the sealed bytes were changed."""


class DataKey(Struct, frozen=True):
    id: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"DataKey({self.id.hex()})"


class VaultDocument(Struct, frozen=True, kw_only=True):
    """keys: the first seals, all open. pepper: of the digests of client keys; it never changes."""

    keys: tuple[DataKey, ...]
    pepper: bytes

    def __repr__(self) -> str:
        return f"VaultDocument({len(self.keys)} keys)"


class Wrapped(Struct, frozen=True, kw_only=True):
    """derivation: "hkdf" or "scrypt"."""

    derivation: str
    salt: bytes
    nonce: bytes
    sealed: bytes


def new_document() -> VaultDocument:
    return VaultDocument(keys=(_new_key(),), pepper=os.urandom(KEY_BYTES))


def rotated(document: VaultDocument) -> VaultDocument:
    """With a new data key for what is sealed from now on; the old ones still open."""
    return replace(document, keys=(_new_key(), *document.keys))


def wrap(value: bytes, secret: Secret, *, is_passphrase: bool = False) -> bytes:
    """Seal under the operator's secret. is_passphrase: a person thought of it, so guessing has to be slow."""
    derivation, salt, nonce = "scrypt" if is_passphrase else "hkdf", os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = AESGCM(_derived(secret, derivation, salt)).encrypt(nonce, value, None)
    return msgspec.msgpack.encode(Wrapped(derivation=derivation, salt=salt, nonce=nonce, sealed=sealed))


def unwrap(value: bytes, secret: Secret) -> bytes:
    """Raises WrongSecret, also for what is no wrapped value."""
    try:
        wrapped = msgspec.msgpack.decode(value, type=Wrapped)
        return AESGCM(_derived(secret, wrapped.derivation, wrapped.salt)).decrypt(wrapped.nonce, wrapped.sealed, None)
    except (msgspec.DecodeError, ValueError, InvalidTag) as error:
        raise WrongSecret("this was sealed with another secret") from error


class Vault:
    """Seals and opens values, and digests client keys."""

    def __init__(self, document: VaultDocument) -> None:
        self.document = document
        self._ciphers = {key.id: AESGCM(key.key) for key in document.keys}
        self._first = document.keys[0].id
        # HMAC (RFC 2104) with its keyed blocks, of the 32 bytes of pepper, read beforehand: `hmac` takes twice as long.
        block = document.pepper.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def seal(self, value: bytes, kind: str, id: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return FORM + self._first + nonce + self._ciphers[self._first].encrypt(nonce, value, _place(kind, id))

    def open(self, sealed: bytes, kind: str, id: str) -> bytes:
        """Raises WrongSecret."""
        key_id, rest = sealed[1 : 1 + KEY_ID_BYTES], sealed[1 + KEY_ID_BYTES :]
        cipher = self._ciphers.get(key_id)
        if sealed[:1] != FORM or cipher is None:
            raise WrongSecret(f"{record_name(kind, id)} was sealed with a key that is not here")
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _place(kind, id))
        except (InvalidTag, ValueError) as error:
            name = record_name(kind, id)
            raise WrongSecret(f"{name} does not open: it was changed, or belongs to another record") from error

    def is_current(self, sealed: bytes) -> bool:
        """Whether it is sealed with the newest data key."""
        return sealed[1 : 1 + KEY_ID_BYTES] == self._first

    def digest(self, text: str, purpose: str) -> str:
        """HMAC-SHA256 under the pepper, hex: for what has to be found again but never read, such as client keys."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"{purpose}\0{text}".encode())
        outer.update(inner.digest())
        return outer.hexdigest()


def record_name(kind: str, id: str) -> str:
    """For sentences, which may come into a log: an account's id is an email."""
    return f"{kind} {masked_email(id) if '@' in id else id}"


def _new_key() -> DataKey:
    return DataKey(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))


def _place(kind: str, id: str) -> bytes:
    return f"{kind}\0{id}".encode()


def _derived(secret: Secret, derivation: str, salt: bytes) -> bytes:
    """Raises ValueError for a derivation that is none of ours."""
    material = secret.reveal().encode()
    if derivation == "hkdf":
        return HKDF(SHA256(), KEY_BYTES, salt, b"qwen-proxy vault 1").derive(material)
    if derivation == "scrypt":
        return Scrypt(salt=salt, length=KEY_BYTES, n=2**15, r=8, p=1).derive(material)
    raise ValueError(derivation)
