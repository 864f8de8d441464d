"""Keys made, changed, revoked and deleted, and those of the environment taken over at each start."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace

from qwen_proxy.config.credentials import SAMPLE_KEYS
from qwen_proxy.config.keybook import KeyChange, NewKey
from qwen_proxy.config.keys import KeyLimits, KeyOrigin, KeyRecord, KeyStatus, Role
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound, PermissionDenied
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import KEY
from qwen_proxy.state.store import Append, Change, Put, Written
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.keys import KeyHouse

ADMIN = "sk-the-admins-key-0001"
FIRST = "sk-first-of-the-users-01"
SECOND = "sk-second-of-the-users-2"


@pytest.fixture
def house() -> KeyHouse:
    return KeyHouse(FakeClock())


def line(change: KeyChange) -> list[Append]:
    before = "" if change.before is None else change.before.record.note
    after = "" if change.after is None else change.after.record.note
    return [Append(topic="audit", value=f"{before}>{after}".encode())]


async def audited(house: KeyHouse) -> list[bytes]:
    return [each.value for each in await house.store.log("audit")]


# --- made --------------------------------------------------------------------------------------------------


async def test_a_new_key_is_random_told_once_and_works(house: KeyHouse):
    key, secret = await house.book.create(NewKey(name="phone", note="hers"), line)
    assert secret.reveal().startswith("sk-") and len(secret.reveal()) == 51
    assert (key.name, key.record.hint, key.role) == ("phone", "sk-…" + secret.reveal()[-4:], Role.USER)
    assert key.record.origin is KeyOrigin.ADDED
    assert key.record.created_at == house.clock.now()
    assert await house.works(secret.reveal())
    assert [each.id for each in await house.book.all()] == [key.id] == [house.book.id_of(secret.reveal())]
    assert await audited(house) == [b">hers"]


async def test_a_key_without_a_name_is_called_by_its_hint(house: KeyHouse):
    key, _ = await house.book.create(NewKey())
    assert key.name == key.record.hint


async def test_the_callers_own_text_may_be_a_key_once(house: KeyHouse):
    _, secret = await house.book.create(NewKey(), given=Secret(FIRST))
    assert secret == Secret(FIRST)
    assert await house.works(FIRST)
    with pytest.raises(AlreadyExists):
        await house.book.create(NewKey(), line, given=Secret(FIRST))
    assert await audited(house) == []


@pytest.mark.parametrize(
    "key", [*sorted(SAMPLE_KEYS)[:3], "brief", "", "two words of a key", "ключ-ключ-ключ", "x" * 513]
)
async def test_what_anyone_could_guess_and_what_no_key_can_be_is_refused(house: KeyHouse, key: str):
    with pytest.raises(InvalidRequest) as caught:
        await house.book.create(NewKey(), given=Secret(key))
    assert caught.value.param == "key"
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (NewKey(name="x" * 101), "name"),
        (NewKey(name="a\r\nb"), "name"),
        (NewKey(note="x" * 1001), "note"),
        (NewKey(expires_at=1_700_000_000.0), "expires_at"),
        (NewKey(allowed_models=("qwen*",) * 101), "allowed_models"),
        (NewKey(allowed_models=("qwen*", "")), "allowed_models[1]"),
        (NewKey(allowed_models=("x" * 201,)), "allowed_models[0]"),
        (NewKey(allowed_endpoints=("chat", "chats")), "allowed_endpoints[1]"),
        (NewKey(allowed_backends=("web", "not a name")), "allowed_backends[1]"),
        (NewKey(allowed_backends=("web",) * 101), "allowed_backends"),
        (NewKey(limits=KeyLimits(api_tokens_per_day=-1)), "limits.api_tokens_per_day"),
        (NewKey(limits=KeyLimits(requests_per_minute=-1)), "limits.requests_per_minute"),
        (NewKey(limits=KeyLimits(tokens_per_month=10**13)), "limits.tokens_per_month"),
    ],
)
async def test_a_wish_that_cannot_be_names_its_field(house: KeyHouse, wish: NewKey, param: str):
    with pytest.raises(InvalidRequest) as caught:
        await house.book.create(wish)
    assert caught.value.param == param
    assert await house.book.all() == []


# --- changed, revoked, deleted -----------------------------------------------------------------------------


async def test_a_change_takes_what_an_admin_may_change_and_nothing_else(house: KeyHouse):
    key, secret = await house.book.create(NewKey(note="old"))
    limits = KeyLimits(requests_per_minute=5)

    def change(record: KeyRecord) -> KeyRecord:
        return replace(
            record, name="n", note="new", role=Role.ADMIN, limits=limits, allowed_models=("q*",), digest="x", hint="x"
        )

    changed = await house.book.change(key.id, change, line)
    assert changed.record == replace(
        key.record, name="n", note="new", role=Role.ADMIN, limits=limits, allowed_models=("q*",)
    )
    assert (await house.book.get(key.id)) == changed
    assert await house.works(secret.reveal())
    assert await audited(house) == [b"old>new"]


async def test_a_change_that_changes_nothing_is_not_audited(house: KeyHouse):
    key, _ = await house.book.create(NewKey())
    assert await house.book.change(key.id, lambda record: record, line) == key
    assert await audited(house) == []


async def test_a_key_that_has_expired_may_be_changed_and_given_more_time(house: KeyHouse):
    key, secret = await house.book.create(NewKey(expires_at=house.clock.now() + 60))
    await house.clock.advance(100)
    assert not await house.works(secret.reveal())
    await house.book.change(key.id, lambda record: replace(record, note="late"))
    with pytest.raises(InvalidRequest):
        await house.book.change(key.id, lambda record: replace(record, expires_at=house.clock.now() - 1))
    await house.book.change(key.id, lambda record: replace(record, expires_at=house.clock.now() + 1))
    assert await house.works(secret.reveal())


async def test_a_revoked_key_works_again_only_when_it_is_restored(house: KeyHouse):
    key, secret = await house.book.create(NewKey(note="n"))
    revoked = await house.book.revoke(key.id, line)
    assert revoked.record.status(house.clock.now()) is KeyStatus.REVOKED
    assert not await house.works(secret.reveal())
    assert await house.book.revoke(key.id, line) == revoked
    await house.book.restore(key.id, line)
    assert await house.works(secret.reveal())
    assert await audited(house) == [b"n>n", b"n>n"]


async def test_a_deleted_key_is_gone(house: KeyHouse):
    key, secret = await house.book.create(NewKey(note="n"))
    await house.book.delete(key.id, line)
    assert await house.find(secret.reveal()) is None
    assert await house.book.all() == []
    assert await audited(house) == [b"n>"]


async def test_a_key_that_is_not_there_is_told_as_such(house: KeyHouse):
    book = house.book
    for attempt in (
        book.get("key_9"),
        book.revoke("key_9"),
        book.restore("key_9"),
        book.delete("key_9"),
        book.change("key_9", lambda record: record),
    ):
        with pytest.raises(NotFound, match="there is no key 'key_9'"):
            await attempt


async def test_a_given_key_that_does_not_work_becomes_what_is_wished(house: KeyHouse):
    key, _ = await house.book.create(NewKey(name="old", role=Role.ADMIN), given=Secret(FIRST))
    await house.book.revoke(key.id)
    again, _ = await house.book.create(NewKey(name="new"), given=Secret(FIRST))
    assert (again.id, again.name, again.role) == (key.id, "new", Role.USER)
    assert await house.works(FIRST)


class Meddled(MemoryStore):
    """Before the next write, something else happens, once."""

    first: Callable[[], Awaitable[object]] | None = None

    async def write(self, changes: Sequence[Change]) -> Written:
        first, self.first = self.first, None
        if first is not None:
            await first()
        return await super().write(changes)


async def test_what_came_in_between_is_not_undone():
    clock = FakeClock()
    store = Meddled(clock)
    house = KeyHouse(clock, store)
    key, secret = await house.book.create(NewKey(note="old"))
    store.first = lambda: house.other().book.change(key.id, lambda record: replace(record, name="theirs"))
    changed = await house.book.change(key.id, lambda record: replace(record, note="ours"), line)
    assert (changed.name, changed.record.note) == ("theirs", "ours")
    store.first = lambda: house.other().book.change(key.id, lambda record: replace(record, note="theirs"))
    await house.book.delete(key.id, line)
    assert await audited(house) == [b"theirs>", b"old>ours"]
    store.first = lambda: house.other().book.create(NewKey(), given=secret)
    with pytest.raises(AlreadyExists):
        await house.book.create(NewKey(), given=secret)


# --- of the environment ------------------------------------------------------------------------------------


async def test_the_first_key_is_the_admins_and_the_others_are_users(house: KeyHouse):
    assert await house.adopt(ADMIN, FIRST, FIRST, SECOND) == (["key-1", "key-2", "key-4"], [])
    admin, first = await house.find(ADMIN), await house.find(FIRST)
    assert admin is not None and (admin.name, admin.role) == ("key-1", Role.ADMIN)
    assert first is not None and (first.name, first.role) == ("key-2", Role.USER)


async def test_the_same_keys_at_the_next_start_change_nothing(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    generation = await house.store.generation()
    assert await house.adopt(ADMIN, FIRST) == (["key-1", "key-2"], [])
    assert await house.store.generation() == generation


async def test_a_key_that_is_not_listed_any_more_stops_working_and_keeps_its_record(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    await house.book.change(house.book.id_of(FIRST), lambda record: replace(record, name="phone", note="hers"))
    assert await house.adopt(ADMIN) == (["key-1"], ["phone"])
    assert not await house.works(FIRST)
    assert await house.adopt(ADMIN) == (["key-1"], [])
    assert await house.adopt(ADMIN, FIRST) == (["key-1", "phone"], [])
    assert await house.works(FIRST)
    record = await house.record(FIRST)
    assert record is not None and record.note == "hers"


async def test_an_added_key_lives_on_whatever_the_environment_says(house: KeyHouse):
    _, secret = await house.book.create(NewKey())
    await house.adopt(ADMIN)
    assert await house.works(secret.reveal())


async def test_another_order_makes_another_admin(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    await house.adopt(FIRST, ADMIN)
    first, admin = await house.find(FIRST), await house.find(ADMIN)
    assert first is not None and first.role is Role.ADMIN
    assert admin is not None and admin.role is Role.USER


async def test_a_new_key_in_the_place_of_a_named_one_has_a_name_of_its_own(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    assert (await house.adopt(ADMIN, SECOND))[0] == ["key-1", "key-2 (sk-…rs-2)"]


async def test_a_revoked_key_of_the_environment_stays_revoked_until_it_is_restored(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    id = house.book.id_of(FIRST)
    await house.book.revoke(id)
    await house.adopt(ADMIN, FIRST)
    assert not await house.works(FIRST)
    await house.adopt(ADMIN)
    await house.adopt(ADMIN, FIRST)
    assert not await house.works(FIRST)
    await house.book.restore(id)
    assert await house.works(FIRST)


async def test_a_listed_key_that_is_deleted_is_revoked_else_the_next_start_would_bring_it_back(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    await house.book.delete(house.book.id_of(FIRST), line)
    await house.adopt(ADMIN, FIRST)
    assert not await house.works(FIRST)
    assert await audited(house) == [b">"]
    await house.adopt(ADMIN)
    await house.book.delete(house.book.id_of(FIRST))
    assert await house.record(FIRST) is None


async def test_a_revoked_key_of_the_environment_may_be_added_again(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    await house.book.revoke(house.book.id_of(FIRST))
    key, _ = await house.book.create(NewKey(name="again", role=Role.ADMIN), given=Secret(FIRST))
    assert (key.record.origin, key.role) == (KeyOrigin.ENVIRONMENT, Role.USER)
    assert await house.works(FIRST)
    await house.adopt(ADMIN)
    assert not await house.works(FIRST)
    key, _ = await house.book.create(NewKey(), given=Secret(FIRST))
    assert key.record.origin is KeyOrigin.ADDED
    await house.adopt(ADMIN)
    assert await house.works(FIRST)


async def test_there_is_a_way_in_whatever_was_done_before(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    id = house.book.id_of(FIRST)
    await house.book.change(id, lambda record: replace(record, expires_at=house.clock.now() + 1))
    await house.book.revoke(id)
    await house.clock.advance(10)
    await house.adopt(FIRST)
    assert await house.works(FIRST)
    with pytest.raises(PermissionDenied, match="API_KEY"):
        await house.book.revoke(id)
    with pytest.raises(PermissionDenied):
        await house.book.delete(id)
    with pytest.raises(PermissionDenied):
        await house.book.change(id, lambda record: replace(record, expires_at=house.clock.now() + 60))
    with pytest.raises(PermissionDenied):
        await house.book.change(id, lambda record: replace(record, role=Role.USER))
    await house.book.change(id, lambda record: replace(record, limits=KeyLimits(requests_per_minute=9)))
    assert await house.works(FIRST)


async def test_the_role_of_a_listed_key_is_its_place(house: KeyHouse):
    await house.adopt(ADMIN, FIRST)
    with pytest.raises(PermissionDenied, match="order"):
        await house.book.change(house.book.id_of(FIRST), lambda record: replace(record, role=Role.ADMIN))


async def test_a_key_of_the_environment_whose_record_is_damaged_gets_another(house: KeyHouse):
    await house.adopt(ADMIN, FIRST, SECOND)
    lost, _ = await house.book.create(NewKey(name="phone"))
    damaged = [house.book.id_of(FIRST), lost.id]
    await house.store.write([Put(kind=KEY, id=id, value=b"\xc1") for id in damaged])
    assert {each.name for each in await house.book.all()} == {"key-1", "key-3"}
    assert await house.adopt(ADMIN, FIRST, SECOND) == (["key-1", "key-2", "key-3"], [])
    assert [await house.works(key) for key in (ADMIN, FIRST, SECOND)] == [True, True, True]
    assert await house.adopt(ADMIN, FIRST) == (["key-1", "key-2"], ["key-3"])
    record = await house.store.get(KEY, lost.id)
    assert record is not None and record.value == b"\xc1"


async def test_two_machines_that_start_at_once_agree():
    clock = FakeClock()
    store = Meddled(clock)
    house = KeyHouse(clock, store)
    store.first = lambda: house.other().adopt(ADMIN, SECOND)
    assert await house.adopt(ADMIN, FIRST) == (["key-1", "key-2 (sk-…s-01)"], ["key-2"])
    assert [await house.works(key) for key in (ADMIN, FIRST, SECOND)] == [True, True, False]
