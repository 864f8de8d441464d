import pytest

from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.serving.sessions import (
    COOKIE,
    LONGEST_SECONDS,
    SLIDING_SECONDS,
    TOUCH_SECONDS,
    Sessions,
    cookie_header,
    token_in,
)
from qwen_proxy.state.kinds import SESSION
from qwen_proxy.state.store import Append, Delete, Kind, Record
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock


class House:
    def __init__(self, store: MemoryStore | None = None, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore(self.clock)
        self.sessions = Sessions(self.store, Vault(new_document()), self.clock, SystemIds())

    async def versions(self) -> list[int]:
        return [record.version for record in await self.store.find(SESSION)]


async def test_a_session_is_found_by_its_token_and_what_is_kept_is_not_the_token() -> None:
    house = House()
    token, begun = await house.sessions.begin("key_1")
    assert await house.sessions.find(token) == begun
    assert (begun.key_id, begun.ends_at) == ("key_1", house.clock.now() + SLIDING_SECONDS)
    (record,) = await house.store.find(SESSION)
    kept = record.id.encode() + record.value
    assert token.encode() not in kept and begun.csrf.encode() not in kept
    assert len(token) * 4 >= 128


@pytest.mark.parametrize("token", ["", "x", "0" * 63, "0" * 64, "ф" * 64, "' OR 1=1 --".ljust(64), "0" * 100_000])
async def test_any_other_token_is_nobodys(token: str) -> None:
    house = House()
    await house.sessions.begin("key_1")
    assert await house.sessions.find(token) is None


async def test_the_csrf_token_belongs_to_its_session_only() -> None:
    house = House()
    _, one = await house.sessions.begin("key_1")
    _, other = await house.sessions.begin("key_1")
    assert one.is_proven_by(one.csrf)
    for wrong in (other.csrf, "", one.csrf[:-1], "\udcff"):
        assert not one.is_proven_by(wrong)


async def test_use_prolongs_a_session_and_is_written_down_now_and_then() -> None:
    house = House()
    token, _ = await house.sessions.begin("key_1")
    await house.sessions.find(token)
    assert await house.versions() == [1]
    await house.clock.advance(TOUCH_SECONDS)
    found = await house.sessions.find(token)
    assert found is not None and found.ends_at == house.clock.now() + SLIDING_SECONDS
    assert await house.versions() == [2]
    await house.clock.advance(SLIDING_SECONDS - 1)
    assert await house.sessions.find(token) is not None
    await house.clock.advance(SLIDING_SECONDS)
    assert await house.sessions.find(token) is None


async def test_a_session_ends_in_the_end_however_much_it_is_used() -> None:
    house = House()
    token, _ = await house.sessions.begin("key_1")
    for _ in range(int(LONGEST_SECONDS / SLIDING_SECONDS * 2) - 1):
        await house.clock.advance(SLIDING_SECONDS / 2)
        found = await house.sessions.find(token)
        assert found is not None and found.ends_at <= FakeClock().now() + LONGEST_SECONDS
    await house.clock.advance(SLIDING_SECONDS / 2)
    assert await house.sessions.find(token) is None


class Rivalled(MemoryStore):
    """While `is_rivalled`, whoever reads a session finds it ended by someone else a moment later."""

    is_rivalled = False

    async def get(self, kind: Kind, id: str) -> Record | None:
        record = await super().get(kind, id)
        if self.is_rivalled:
            await self.write([Delete(kind=kind, id=id)])
        return record


async def test_a_use_does_not_bring_a_session_back_that_has_ended() -> None:
    clock = FakeClock()
    store = Rivalled(clock)
    house = House(store, clock)
    token, _ = await house.sessions.begin("key_1")
    await clock.advance(TOUCH_SECONDS)
    store.is_rivalled = True
    await house.sessions.find(token)
    store.is_rivalled = False
    assert await house.sessions.find(token) is None


async def test_what_is_written_along_comes_with_the_session() -> None:
    house = House()
    token, session = await house.sessions.begin("key_1", Append(topic="audit", value=b"in"))
    await house.sessions.end(session, Append(topic="audit", value=b"out"))
    assert await house.sessions.find(token) is None
    assert [line.value for line in await house.store.log("audit")] == [b"out", b"in"]


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (f"{COOKIE}=abc", "abc"),
        (f"theme=dark; {COOKIE}=abc; x", "abc"),
        (f'bad"{{}}=1;{COOKIE} = abc ', "abc"),
        (f"x{COOKIE}=abc", None),
        (f"{COOKIE}", ""),
        ("", None),
    ],
)
def test_the_cookie_is_found_among_others(header: str, token: str | None) -> None:
    assert token_in({"Cookie": header}) == token


def test_no_script_reads_the_cookie_and_no_other_site_sends_it() -> None:
    header = cookie_header("abc", is_secure=False)
    assert header == f"{COOKIE}=abc; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict"
    assert cookie_header("", is_secure=True, max_age_seconds=0).endswith("Max-Age=0; HttpOnly; SameSite=Strict; Secure")
