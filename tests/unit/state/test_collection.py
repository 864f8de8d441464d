"""Typed documents over a store: what others do meanwhile, what can't be read, and what must not be written."""

from collections.abc import Coroutine
from contextlib import aclosing

import msgspec
import pytest
from msgspec import Struct

from qwen_proxy.ground.errors import Unreadable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.collection import Collection, Entry
from qwen_proxy.state.store import Append, Conflict, Kind, Put
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

OPEN = Kind(name="open")
SEALED = Kind(name="sealed", is_sealed=True)


class Document(Struct, frozen=True):
    number: int = 0
    password: Secret | None = None


class Renamed(Struct, frozen=True):
    number: str


@pytest.fixture
def vault() -> Vault:
    return Vault(new_document())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(FakeClock())


@pytest.fixture
def plain(store: MemoryStore, vault: Vault) -> Collection[Document]:
    return Collection(store, OPEN, Document, vault)


@pytest.fixture
def sealed(store: MemoryStore, vault: Vault) -> Collection[Document]:
    return Collection(store, SEALED, Document, vault)


async def test_a_document_comes_back_as_it_was(store: MemoryStore, sealed: Collection[Document]) -> None:
    document = Document(7, Secret("canary"))
    await store.write([sealed.put("a", document)])
    assert await sealed.get("a") == Entry("a", 1, document)
    assert await sealed.get("b") is None
    record = await store.get(SEALED, "a")
    assert record is not None and b"canary" not in record.value and b"number" not in record.value


async def test_a_secret_is_refused_where_it_would_lie_open(store: MemoryStore, plain: Collection[Document]) -> None:
    with pytest.raises(TypeError, match="not sealed") as raised:
        plain.put("a", Document(1, Secret("canary")))
    assert "canary" not in str(raised.value)
    await store.write([plain.put("a", Document(1))])
    assert await plain.get("a") == Entry("a", 1, Document(1))


def test_what_is_no_document_is_not_written(store: MemoryStore, vault: Vault) -> None:
    with pytest.raises(NotImplementedError):
        Collection(store, SEALED, object, vault).put("a", object())


async def test_a_document_of_another_form_is_unreadable(
    store: MemoryStore, vault: Vault, plain: Collection[Document], sealed: Collection[Document]
) -> None:
    await store.write([plain.put("a", Document(1)), Put(kind=OPEN, id="b", value=b"\xa2\xff\xfe")])
    for id, type in (("a", Renamed), ("b", Document), ("b", str)):
        with pytest.raises(Unreadable, match=f"open {id} has a form"):
            await Collection(store, OPEN, type, vault).get(id)
    packed = vault.seal(msgspec.msgpack.encode({"number": 1, "password": 5}), "sealed", "a")
    await store.write([Put(kind=SEALED, id="a", value=packed)])
    with pytest.raises(Unreadable):
        await sealed.get("a")


async def test_a_field_of_a_later_version_is_passed_over(store: MemoryStore, plain: Collection[Document]) -> None:
    await store.write([Put(kind=OPEN, id="a", value=msgspec.msgpack.encode({"number": 3, "later": [1]}))])
    assert await plain.get("a") == Entry("a", 1, Document(3))


async def test_a_sealed_document_of_another_record_does_not_open(
    store: MemoryStore, sealed: Collection[Document]
) -> None:
    put = sealed.put("a", Document(1))
    await store.write([Put(kind=SEALED, id="b", value=put.value)])
    with pytest.raises(Unreadable, match="sealed b does not open"):
        await sealed.get("b")


async def test_what_is_said_of_a_damaged_document_has_no_whole_email_in_it(
    store: MemoryStore, plain: Collection[Document], sealed: Collection[Document]
) -> None:
    other = Collection(store, SEALED, Document, Vault(new_document()))
    for id, document in (("alice@x.org", other), ("carol@x.org", sealed)):
        put = document.put(id, Document(1))
        value = put.value if document is other else sealed.put("elsewhere", Document(1)).value
        await store.write([Put(kind=SEALED, id=id, value=value), Put(kind=OPEN, id=id, value=b"\xc1")])
        for collection in (plain, sealed):
            with pytest.raises(Unreadable, match=rf"(open|sealed) {id[:2]}\*\*\*@x\.org ") as raised:
                await collection.get(id)
            assert id not in f"{raised.value} {raised.value.__cause__}"


async def test_those_that_can_be_read_are_read_and_the_log_tells_of_the_others(
    store: MemoryStore, sealed: Collection[Document], caplog: pytest.LogCaptureFixture
) -> None:
    await store.write([sealed.put(id, Document(number)) for number, id in enumerate(("a", "bob@x.org", "c"))])
    await store.write([sealed.put("c", Document(7))])
    await store.write([Put(kind=SEALED, id="bob@x.org", value=b"\x01damaged")])
    assert await sealed.all_readable() == [Entry("a", 1, Document(0)), Entry("c", 2, Document(7))]
    (told,) = caplog.records
    assert told.__dict__["kind"] == "sealed" and "bo***@x.org" in told.__dict__["reason"]
    assert await sealed.versions() == {"a": 1, "bob@x.org": 2, "c": 2}
    with pytest.raises(Unreadable):
        await sealed.all()


async def test_expectations_and_lifetimes_go_to_the_store(store: MemoryStore, plain: Collection[Document]) -> None:
    await store.write([plain.put("a", Document(1), expect=0, lasts_seconds=5.0)])
    record = await store.get(OPEN, "a")
    assert record is not None and record.expires_at is not None
    with pytest.raises(Conflict):
        await store.write([plain.put("a", Document(1), expect=0)])
    with pytest.raises(Conflict):
        await store.write([plain.delete("a", expect=2)])
    await store.write([plain.delete("a", expect=1)])
    assert await plain.get("a") is None


# --- all of them -------------------------------------------------------------------------------------------


async def test_all_are_read_by_id_over_any_number_of_pages(store: MemoryStore, plain: Collection[Document]) -> None:
    await store.write([plain.put(f"{n:05}", Document(n)) for n in range(2000)])
    assert [entry.value.number for entry in await plain.all()] == list(range(2000))
    assert [entry.value.number for entry in await plain.all_readable()] == list(range(2000))
    assert list(await plain.versions()) == [f"{n:05}" for n in range(2000)]
    await store.write([plain.put("2", Document(-1))])
    assert len(await plain.all()) == 2001


async def test_those_with_a_prefix_are_found_among_others(store: MemoryStore, plain: Collection[Document]) -> None:
    names = ["a", "b", "b:1", "b:2", "ba", "b\N{PILE OF POO}", "c"]
    await store.write([plain.put(name, Document()) for name in names])
    assert [entry.id for entry in await plain.all("b")] == ["b", "b:1", "b:2", "ba", "b\N{PILE OF POO}"]
    assert [entry.id for entry in await plain.all("b:")] == ["b:1", "b:2"]
    assert await plain.all("d") == []
    assert await plain.all("0") == []


async def test_reading_may_end_early(store: MemoryStore, plain: Collection[Document]) -> None:
    await store.write([plain.put(f"{n}", Document(n)) for n in range(5)])
    async with aclosing(plain.each()) as entries:
        async for entry in entries:
            assert entry.id == "0"
            break


# --- updates -----------------------------------------------------------------------------------------------


def at_once(coroutine: Coroutine[object, None, object]) -> None:
    """To its end, which it reaches without waiting for anything."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def plus_one(before: Document | None) -> Document:
    return Document(1 if before is None else before.number + 1)


async def test_an_update_makes_changes_and_deletes(store: MemoryStore, plain: Collection[Document]) -> None:
    assert await plain.update("a", plus_one) == Entry("a", 1, Document(1))
    assert await plain.update("a", plus_one) == Entry("a", 2, Document(2))
    assert await plain.update("a", lambda before: None) is None
    assert await plain.get("a") is None
    assert await plain.update("a", lambda before: None) is None


async def test_an_update_that_changes_nothing_writes_nothing(store: MemoryStore, plain: Collection[Document]) -> None:
    await store.write([plain.put("a", Document(1))])
    line = Append(topic="t", value=b"line")
    assert await plain.update("a", lambda before: Document(1), line) == Entry("a", 1, Document(1))
    assert await store.log("t") == []
    await plain.update("a", plus_one, line)
    await plain.update("a", lambda before: None, line)
    assert len(await store.log("t")) == 2


async def test_an_update_begins_anew_when_another_came_in_between(
    store: MemoryStore, plain: Collection[Document]
) -> None:
    seen: list[Document | None] = []

    def changed(before: Document | None) -> Document:
        seen.append(before)
        if len(seen) < 4:  # another process writes between our reading and our writing
            at_once(store.write([plain.put("a", Document(10 * len(seen)))]))
        return plus_one(before)

    assert await plain.update("a", changed, Append(topic="t", value=b"")) == Entry("a", 4, Document(31))
    assert seen == [None, Document(10), Document(20), Document(30)]
    assert len(await store.log("t")) == 1


async def test_what_an_update_writes_may_have_a_lifetime(store: MemoryStore, plain: Collection[Document]) -> None:
    await plain.update("a", plus_one, lasts_seconds=60.0)
    record = await store.get(OPEN, "a")
    assert record is not None and record.expires_at is not None


async def test_a_default_stands_for_what_cannot_be_read(store: MemoryStore, plain: Collection[Document]) -> None:
    assert await plain.get_or("a", Document(7)) is None
    await store.write([plain.put("a", Document(1))])
    assert await plain.get_or("a", Document(7)) == Entry("a", 1, Document(1))
    await store.write([Put(kind=OPEN, id="a", value=b"broken")])
    assert await plain.get_or("a", Document(7)) == Entry("a", 2, Document(7))
