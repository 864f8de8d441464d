"""Values that only the right keys open, at their own place."""

import hmac

import msgspec
import pytest

from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.vault import Vault, Wrapped, WrongSecret, new_document, rotated, unwrap, wrap

SECRET = Secret("the operator's secret")
OTHER = Secret("somebody else's secret")


def test_what_was_sealed_opens_and_shows_nothing() -> None:
    vault = Vault(new_document())
    sealed = vault.seal(b"canary", "account", "a@x")
    assert b"canary" not in sealed
    assert vault.open(sealed, "account", "a@x") == b"canary"
    assert vault.seal(b"canary", "account", "a@x") != sealed
    assert vault.open(vault.seal(b"", "account", ""), "account", "") == b""


@pytest.mark.parametrize(("kind", "id"), [("account", "b@x"), ("settings", "a@x"), ("account\0a@x", ""), ("", "a@x")])
def test_a_value_that_was_moved_to_another_record_does_not_open(kind: str, id: str) -> None:
    vault = Vault(new_document())
    with pytest.raises(WrongSecret, match="another record"):
        vault.open(vault.seal(b"canary", "account", "a@x"), kind, id)


def test_a_value_with_any_bit_changed_or_cut_short_does_not_open() -> None:
    vault = Vault(new_document())
    sealed = vault.seal(b"value", "kind", "id")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(WrongSecret):
            vault.open(bytes(changed), "kind", "id")
        with pytest.raises(WrongSecret):
            vault.open(sealed[:place], "kind", "id")


def test_another_vault_does_not_open_it() -> None:
    sealed = Vault(new_document()).seal(b"value", "kind", "id")
    with pytest.raises(WrongSecret, match="a key that is not here"):
        Vault(new_document()).open(sealed, "kind", "id")


def test_behind_a_rotation_new_values_have_the_new_key_and_old_ones_open() -> None:
    document = new_document()
    old = Vault(document)
    new = Vault(rotated(document))
    before, after = old.seal(b"before", "kind", "id"), new.seal(b"after", "kind", "id")
    assert new.open(before, "kind", "id") == b"before"
    assert new.open(after, "kind", "id") == b"after"
    assert (new.is_current(before), new.is_current(after), old.is_current(before)) == (False, True, True)
    with pytest.raises(WrongSecret):
        old.open(after, "kind", "id")


def test_a_digest_is_the_same_for_all_who_have_the_pepper_and_only_for_them() -> None:
    document = new_document()
    digest = Vault(document).digest("sk-canary", "key")
    assert Vault(rotated(document)).digest("sk-canary", "key") == digest
    assert digest == hmac.new(document.pepper, b"key\0sk-canary", "sha256").hexdigest()
    assert "canary" not in digest
    others = {
        Vault(new_document()).digest("sk-canary", "key"),
        Vault(document).digest("sk-canary", "session"),
        Vault(document).digest("sk-canarz", "key"),
    }
    assert len(others | {digest}) == 4


@pytest.mark.parametrize("is_passphrase", [False, True])
def test_the_operators_secret_wraps_and_no_other_unwraps(is_passphrase: bool) -> None:
    wrapped = wrap(b"canary", SECRET, is_passphrase=is_passphrase)
    assert b"canary" not in wrapped
    assert unwrap(wrapped, SECRET) == b"canary"
    assert wrap(b"canary", SECRET, is_passphrase=is_passphrase) != wrapped
    with pytest.raises(WrongSecret):
        unwrap(wrapped, OTHER)


def test_a_passphrase_is_made_slow_to_guess() -> None:
    assert msgspec.msgpack.decode(wrap(b"", SECRET), type=Wrapped).derivation == "hkdf"
    assert msgspec.msgpack.decode(wrap(b"", SECRET, is_passphrase=True), type=Wrapped).derivation == "scrypt"


def test_what_is_no_wrapped_value_is_refused_the_same_way() -> None:
    good = msgspec.msgpack.decode(wrap(b"value", SECRET), type=Wrapped)
    wrong = [
        b"",
        b"\xc1",
        b"\xff" * 40,
        msgspec.msgpack.encode("text"),
        msgspec.msgpack.encode(msgspec.structs.replace(good, derivation="none")),
        msgspec.msgpack.encode(msgspec.structs.replace(good, nonce=b"")),
        msgspec.msgpack.encode(msgspec.structs.replace(good, sealed=b"")),
        msgspec.msgpack.encode({**msgspec.structs.asdict(good), "derivation": 7}),
    ]
    for value in wrong:
        with pytest.raises(WrongSecret):
            unwrap(value, SECRET)


def test_keys_are_not_printed() -> None:
    document = rotated(new_document())
    shown = repr(document) + repr(document.keys)
    for key in document.keys:
        assert repr(key.key) not in shown and key.key.hex() not in shown
    assert repr(document.pepper) not in shown and document.pepper.hex() not in shown
