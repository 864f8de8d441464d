"""What a key may do, and the copy of all keys that a process keeps."""

import msgspec
import pytest

from qwen_proxy.config.keybook import NewKey
from qwen_proxy.config.keys import ClientKey, KeyLimits, KeyOrigin, KeyRecord, Role, hint_of
from qwen_proxy.ground.errors import NotAllowed
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import Put
from tests.support.clock import FakeClock
from tests.support.keys import KeyHouse, client_key

GOOD = "sk-first-key-of-this-test"


@pytest.mark.parametrize(
    "presented", ["", "sk-first", GOOD + " ", GOOD.upper(), GOOD + "\n", "é" * 9, "x" * 513, "' OR 1=1 --", "%%%"]
)
async def test_only_a_key_is_a_key(presented: str):
    house = KeyHouse(FakeClock())
    await house.adopt(GOOD)
    assert await house.works(GOOD)
    assert await house.find(presented) is None


async def test_no_key_is_kept_in_clear():
    house = KeyHouse(FakeClock())
    await house.adopt("sk-canary-of-the-environment")
    await house.book.create(NewKey(), given=Secret("sk-canary-of-an-admin-0001"))
    await house.watch.load()
    kept = b"".join(record.value for record in await house.store.find(KEY)) + repr(vars(house.keys)).encode()
    assert b"canary" not in kept
    assert b"0001" in kept  # its last four characters are


@pytest.mark.parametrize(
    ("key", "hint"),
    [("sk-0123456789abcdef", "sk-…cdef"), ("0123456789abcdef", "…cdef"), ("sk-123456789", "sk-…"), ("password1", "…")],
)
def test_a_hint_never_shows_more_than_the_last_four_of_a_long_key(key: str, hint: str):
    assert hint_of(key) == hint


async def test_a_change_elsewhere_is_known_here_once_heard_of():
    house = KeyHouse(FakeClock())
    key, secret = await house.other().book.create(NewKey())
    found = await house.find(secret.reveal())
    assert found is not None and found.id == key.id
    await house.other().book.change(key.id, lambda record: msgspec.structs.replace(record, note="hers"))
    found = await house.find(secret.reveal())
    assert found is not None and found.record.note == "hers"
    await house.other().book.delete(key.id)
    assert await house.find(secret.reveal()) is None
    assert vars(house.keys)["_digests"] == {}


async def test_a_record_that_cannot_be_read_is_no_key_and_keeps_no_other_from_its_change():
    house = KeyHouse(FakeClock())
    await house.adopt(GOOD, "sk-second-key-of-this-test")
    assert await house.works(GOOD)
    await house.store.write([Put(kind=KEY, id=house.book.id_of(GOOD), value=b"\xc1")])
    await house.book.revoke(house.book.id_of("sk-second-key-of-this-test"))
    assert await house.find(GOOD) is None
    assert not await house.works("sk-second-key-of-this-test")


def test_a_record_of_an_older_version_lacks_fields_and_is_read():
    old = {"name": "n", "digest": "d", "hint": "h", "role": "user", "origin": "added", "created_at": 1.0}
    record = msgspec.msgpack.decode(msgspec.msgpack.encode(old | {"of_a_newer_version": 1}), type=KeyRecord)
    assert record == KeyRecord(
        name="n", digest="d", hint="h", role=Role.USER, origin=KeyOrigin.ADDED, created_at=1.0, limits=KeyLimits()
    )


def test_why_a_key_does_not_work():
    key = client_key(expires_at=1_800_000_000.0)
    assert key.why_useless(1_799_999_999.0) is None
    assert key.why_useless(1_800_000_000.0) == "this API key expired at 2027-01-15T08:00:00Z"

    def but(**fields: object) -> str | None:
        return ClientKey("k", msgspec.structs.replace(key.record, **fields)).why_useless(0.0)

    assert but(revoked_at=5.0) == "this API key was revoked"
    assert but(is_listed=False) is None  # it never was of the environment
    assert but(is_listed=False, origin=KeyOrigin.ENVIRONMENT) == "this API key is not in use any more"


@pytest.mark.parametrize(
    ("patterns", "names", "may"),
    [
        ([], ["qwen3.7-plus"], True),
        (["qwen3.7-plus"], ["qwen3.7-plus", "Qwen3.7-Plus", "qwen3.7-plus-search"], True),
        (["QWEN3.7-*"], ["qwen3.7-plus"], True),
        (["Qwen3.7 Plus"], ["qwen3.7-plus", "qwen3.7 plus"], True),
        (["*-search"], ["qwen3.7-plus", "qwen3.7-plus-search"], True),
        (["*-search"], ["qwen3.7-plus", "qwen3.7-plus-thinking"], False),
        (["qwen3.7"], ["qwen3.7-plus"], False),
        (["qwen3-*", "qwen2*"], ["qwen3.7-plus"], False),
    ],
)
def test_a_key_for_some_models(patterns: list[str], names: list[str], may: bool):
    key = client_key(models=patterns)
    assert key.may_use_model(names) is may
    if may:
        key.check_model(names)
    else:
        with pytest.raises(NotAllowed, match=r"may not use the model 'qwen3\.7-plus'; it may use: "):
            key.check_model(names)


def test_a_key_for_some_endpoints():
    key = client_key(endpoints=["chat", "models"])
    key.check_endpoint("chat")
    client_key().check_endpoint("chat")
    with pytest.raises(NotAllowed, match="may not use the endpoint 'images'; it may use: chat, models"):
        key.check_endpoint("images")
