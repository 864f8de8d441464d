"""All that is kept, exported from every kind of store and imported into every other."""

import io
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.admin.audit import TOPIC
from qwen_proxy.app.commons import DEMO
from qwen_proxy.config.keybook import KeyBook, NewKey
from qwen_proxy.config.keys import Keys
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.offline import Opened, ServersRunning
from qwen_proxy.operations.transfer.bundle import (
    FRAME_BYTES,
    Beginning,
    BundleReader,
    BundleUnreadable,
    BundleWriter,
    CarriedRecord,
    Ending,
    Records,
)
from qwen_proxy.operations.transfer.exporting import TOPICS, Carried, export
from qwen_proxy.operations.transfer.importing import Import, ImportPlan, NotEmpty, is_empty
from qwen_proxy.operations.transfer.target import KindCount, Way
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.state.kinds import ACCOUNT, BATCH, BATCH_LINE, EXIT, KEY, SESSION
from qwen_proxy.state.store import (
    DAY_SECONDS,
    Append,
    Change,
    Conflict,
    ProcessRow,
    Put,
    Store,
    UsageCounts,
    UsageKey,
    Written,
)
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.opening import load_vault
from tests.conformance.stores import STORES, Place
from tests.support.clock import FakeClock

PASSPHRASE = Secret("correct horse")
TODAY = 1_800_000_000 // DAY_SECONDS * DAY_SECONDS
CLIENT_KEY = Secret("sk-0123456789abcdef")


class House(Struct, frozen=True):
    """An opened place, and how to work with it."""

    place: Place
    opened: Opened
    secret: Secret

    @property
    def store(self) -> Store:
        return self.opened.store

    @property
    def book(self) -> AccountBook:
        return AccountBook(self.store, self.opened.vault)

    def importing(self, data: bytes, passphrase: Secret = PASSPHRASE) -> Import:
        return Import(self.opened, BundleReader(io.BytesIO(data), passphrase), _clock(self.place))


class _At:
    """The place's time as a clock."""

    def __init__(self, place: Place) -> None:
        self.now = place.now
        self.monotonic = place.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def _clock(place: Place) -> _At:
    return _At(place)


@asynccontextmanager
async def house(kind: str, secret: str = "a secret of sixteen") -> AsyncGenerator[House]:
    async with STORES[kind]() as place, place.open() as store:
        yield House(place, Opened(store, await load_vault(store, Secret(secret))), Secret(secret))


async def furnish(house: House) -> None:
    """One of everything."""
    store, vault, clock = house.store, house.opened.vault, _clock(house.place)
    account = Account(id="a@x.example", email="A@x.example", password=Secret("canary-pw"), note="пометка")
    token = Credential(account_id=account.id, token=Secret("canary-token"), expires_at=5e9)
    await house.book.put(account, credential=token)
    await house.book.put(Account(id=DEMO, email=DEMO, password=Secret("x")))
    await KeyBook(store, vault, clock, SystemIds()).create(NewKey(name="k"), given=CLIENT_KEY)
    watch = Watch(store, clock)
    live = LiveSettings(load({}, None), store, vault, watch)
    await live.change({"CHAT_RETRY_COUNT": "3"}, by="me")
    await store.write(
        [
            Put(kind=EXIT, id=house.book.exit_id("http://h:1"), value=b"\x80"),
            Put(kind=SESSION, id="s", value=b"session"),
            Put(kind=BATCH, id="b", value=b"batch"),
            Put(kind=BATCH_LINE, id="b:1", value=vault.seal(b"line", "batch_line", "b:1"), lasts_seconds=500.0),
            Put(kind=BATCH_LINE, id="b:2", value=vault.seal(b"line", "batch_line", "b:2"), lasts_seconds=50.0),
            *(Append(topic=TOPIC, value=b"%d" % number, at=1000.0 + number) for number in range(3)),
        ]
    )
    await store.add_usage({key(hour=1): UsageCounts(requests=1), key(hour=2, feature="image"): UsageCounts(requests=2)})
    await store.add_usage({key(hour=5, days=-40): UsageCounts(requests=3, prompt_tokens=7)})
    await store.prune_usage(TODAY - DAY_SECONDS)  # its hours are gone, its day is kept


def key(*, hour: int = 0, days: int = 0, feature: str = "chat") -> UsageKey:
    starts_at = TODAY + days * DAY_SECONDS + hour * 3600
    return UsageKey(starts_at=starts_at, key="k", account="a@x.example", model="m", feature=feature)


async def exported(house: House) -> bytes:
    file = io.BytesIO()
    carried = await export(house.opened, _clock(house.place), file, PASSPHRASE)
    (ending,) = [frame for frame in BundleReader(file, PASSPHRASE).frames() if isinstance(frame, Ending)]
    assert carried == Carried(ending.records, ending.lines, ending.usage)
    return file.getvalue()


async def check_furnished(house: House, now_secret: str = "a secret of sixteen") -> None:
    """As `furnish` left it, read as a process that starts now reads it."""
    vault = await load_vault(house.store, Secret(now_secret))
    stored = await AccountBook(house.store, vault).get("a@x.example")
    assert stored is not None and stored.credential is not None
    assert (stored.account.password, stored.account.note) == (Secret("canary-pw"), "пометка")
    assert stored.credential.token == Secret("canary-token")
    keys = Keys(house.store, vault)
    keys.take(await house.store.find(KEY), ())
    assert keys.find(CLIENT_KEY.reveal()) is not None
    watch = Watch(house.store, _clock(house.place))
    live = LiveSettings(load({}, None), house.store, vault, watch)
    await watch.load()
    assert live.current.chat_retry_count == 3 and len(await live.history()) == 1
    done, *lines = await house.store.log(TOPIC)
    assert b"import" in done.value
    assert [(line.value, line.at) for line in lines] == [(b"2", 1002.0), (b"1", 1001.0), (b"0", 1000.0)]
    days = await house.store.usage(0, 1e10, by_day=True)
    assert {each: counts.requests for each, counts in days.items()} == {
        key(): 1,
        key(feature="image"): 2,
        key(days=-40): 3,
    }
    hours = await house.store.usage(TODAY, 1e10)
    assert {each.starts_at - TODAY for each in hours} == {3600, 7200}
    assert await house.store.get(SESSION, "s") is None
    assert await AccountBook(house.store, vault).get(DEMO) is None


@pytest.mark.parametrize("source", STORES)
@pytest.mark.parametrize("target", STORES)
async def test_everything_but_sessions_goes_from_any_store_into_any_other(source: str, target: str) -> None:
    async with house(source) as old, house(target, "another secret, as long") as new:
        await furnish(old)
        data = await exported(old)
        assert b"canary" not in data
        await new.place.pass_time(100)
        told: list[tuple[str, int]] = []
        plan = await new.importing(data).plan(None)
        assert plan.way is Way.REPLACE
        assert {each.kind: each.added for each in plan.kinds} == {
            "account": 1, "key": 1, "settings": 1, "exit": 1, "batch": 1, "batch_line": 1,
        }  # fmt: skip
        assert (plan.lines, plan.usage, plan.notes) == (4, 3, ())
        assert await is_empty(new.opened)
        await new.importing(data).carry_out(plan.way, new.secret, lambda what, count: told.append((what, count)))
        await check_furnished(new, "another secret, as long")
        assert dict(told) == {"records": 7, "log lines": 4, "usage": 3}
        left = await new.store.find(BATCH_LINE)
        assert [each.id for each in left] == ["b:1"]  # the other has ended meanwhile
        assert left[0].expires_at == pytest.approx(new.place.now() - 100 + 500, abs=1)


# --- rules, on the plainest store ---------------------------------------------------------------------------


def counts(plan: ImportPlan) -> dict[str, KindCount]:
    return {each.kind: each for each in plan.kinds}


async def snapshot(house: House) -> object:
    kept: dict[str, list[bytes]] = {}
    for kind in (BATCH, BATCH_LINE, KEY, EXIT):
        kept[kind.name] = [record.value for record in await house.store.find(kind)]
    stored = await house.book.all()
    logs = [await house.store.log(topic) for topic in (TOPIC, "settings")]
    return kept, stored, logs, await house.store.usage(0, 1e10), await house.store.usage(0, 1e10, by_day=True)


async def test_what_is_there_is_only_replaced_when_asked_for() -> None:
    async with house("memory") as old, house("memory") as new:
        await furnish(old)
        data = await exported(old)
        await new.book.put(Account(id="mine@x.example", email="mine@x.example", password=Secret("pw")))
        await new.store.write([Append(topic=TOPIC, value=b"mine")])
        assert not await is_empty(new.opened)
        with pytest.raises(NotEmpty, match="--replace"):
            await new.importing(data).plan(None)
        plan = await new.importing(data).plan(Way.REPLACE)
        await new.importing(data).carry_out(plan.way, new.secret)
        await check_furnished(new)
        assert await new.book.get("mine@x.example") is None


@pytest.mark.parametrize("what", ["added key", "settings", "usage"])
async def test_a_store_with_anything_an_operator_made_is_not_empty(what: str) -> None:
    async with house("memory") as new:
        keys = KeyBook(new.store, new.opened.vault, _clock(new.place), SystemIds())
        await keys.adopt([Secret("sk-the-admins-key-1")])
        await new.book.put(Account(id=DEMO, email=DEMO, password=Secret("x")))
        assert await is_empty(new.opened)  # as a first start leaves it
        match what:
            case "added key":
                await keys.create(NewKey())
            case "settings":
                live = LiveSettings(load({}, None), new.store, new.opened.vault, Watch(new.store, _clock(new.place)))
                await live.change({"CHAT_RETRY_COUNT": "3"}, by="me")
            case _:
                await new.store.add_usage({key(days=-300): UsageCounts(requests=1)})
        assert not await is_empty(new.opened)


async def test_nothing_is_replaced_under_a_running_process() -> None:
    async with house("memory") as old, house("memory") as new:
        await furnish(old)
        data = await exported(old)
        row = ProcessRow(id="p", host="h", pid=7, started_at=0.0, beat_at=0.0, is_hungry=False, status=b"")
        await new.store.join(row, [])
        for way in (None, Way.REPLACE):
            with pytest.raises(ServersRunning, match="h:7"):
                await new.importing(data).plan(way)
        with pytest.raises(ServersRunning):
            await new.importing(data).carry_out(Way.REPLACE, new.secret)
        assert (await new.importing(data).plan(Way.MERGE)).way is Way.MERGE


async def test_a_damaged_file_changes_nothing() -> None:
    async with house("memory") as old, house("memory") as new:
        await furnish(old)
        await furnish(new)
        data = await exported(old)
        before = await snapshot(new)
        for broken in (data[:-1], data[:-100] + b"x" + data[-99:]):
            for way in Way:
                with pytest.raises(BundleUnreadable):
                    await new.importing(broken).plan(way)
        file = io.BytesIO()
        writer = BundleWriter(file, PASSPHRASE)
        for frame in BundleReader(io.BytesIO(data), PASSPHRASE).frames():
            writer.add(replace(frame, usage=frame.usage + 1) if isinstance(frame, Ending) else frame)
        with pytest.raises(BundleUnreadable, match="as much as it says"):
            await new.importing(file.getvalue()).plan(Way.MERGE)
        assert await snapshot(new) == before


async def copied(old: House, new: House) -> None:
    data = await exported(old)
    await new.importing(data).carry_out(Way.REPLACE, new.secret)


async def test_merging_a_copy_adds_what_is_new_and_keeps_what_differs() -> None:
    async with house("memory") as old, house("memory") as made:
        await furnish(old)
        await copied(old, made)
        new = House(made.place, Opened(made.store, await load_vault(made.store, made.secret)), made.secret)
        again = await new.importing(await exported(old)).plan(Way.MERGE)
        assert counts(again)["account"] == KindCount(kind="account", same=1)
        assert counts(again)["key"] == KindCount(kind="key", same=1)
        assert (again.lines, again.usage) == (0, 0)
        await new.book.change("a@x.example", lambda account: replace(account, note="mine"))
        await old.book.put(Account(id="b@x.example", email="b@x.example", password=Secret("pw-b")))
        await old.store.write([Append(topic=TOPIC, value=b"theirs")])
        await old.store.add_usage({key(hour=1): UsageCounts(requests=4), key(hour=3, days=1): UsageCounts(requests=5)})
        await old.store.add_usage({key(hour=5, days=-40): UsageCounts(requests=1)})
        data = await exported(old)
        plan = await new.importing(data).plan(Way.MERGE)
        assert counts(plan)["account"] == KindCount(kind="account", added=1, kept=1)
        assert counts(plan)["batch"] == KindCount(kind="batch", left_out=1)
        assert plan.notes == ("batches are not merged: they would be signed in twice",)
        assert (plan.lines, plan.usage) == (0, 3)
        await new.importing(data).carry_out(Way.MERGE, new.secret)
        first, second = await new.book.all()
        assert (first.account.note, second.account.password) == ("mine", Secret("pw-b"))
        days = await new.store.usage(0, 1e10, by_day=True)
        assert [counts.requests for counts in days.values()] == [4, 5, 2, 5]
        before = await snapshot(new)
        await new.store.prune_usage(1e10)  # hours that are gone are no reason to count a day again
        await new.importing(data).carry_out(Way.MERGE, new.secret)
        after = await snapshot(new)
        assert isinstance(before, tuple) and isinstance(after, tuple)
        assert (after[:2], after[4]) == (before[:2], before[4])


async def test_another_installation_has_no_use_for_keys_and_exits() -> None:
    async with house("memory") as old, house("memory") as new:
        await furnish(old)
        await new.book.put(Account(id="mine@x.example", email="mine@x.example", password=Secret("pw")))
        data = await exported(old)
        plan = await new.importing(data).plan(Way.MERGE)
        assert counts(plan)["key"].left_out == counts(plan)["exit"].left_out == 1
        assert plan.notes[:2] == (
            "what is known of exits is not merged: it is learned anew",
            "client keys can't be merged into another installation: make new ones",
        )
        await new.importing(data).carry_out(Way.MERGE, new.secret)
        assert [each.account.id for each in await new.book.all()] == ["a@x.example", "mine@x.example"]
        assert await new.store.find(KEY) == [] and await new.store.find(EXIT) == []
        assert len(await new.store.log(TOPIC)) == 3 + 1  # there was none; and that of the import
        assert (await new.store.usage(0, 1e10, by_day=True)).keys() == {key(), key(feature="image"), key(days=-40)}


class Overtaken(MemoryStore):
    """Another process adds the account just before our write; with 2 it took it away again the first time."""

    times = 0

    async def write(self, changes: Sequence[Change]) -> Written:
        accounts = [change for change in changes if isinstance(change, Put) and change.kind is ACCOUNT]
        if self.times and accounts:
            self.times -= 1
            if self.times:
                raise Conflict("account", accounts[0].id)
            await super().write([replace(account, value=b"theirs") for account in accounts])
        return await super().write(changes)


@pytest.mark.parametrize("times", [1, 2])
async def test_what_another_process_adds_meanwhile_stays(times: int) -> None:
    async with house("memory") as old:
        await furnish(old)
        data = await exported(old)
        store = Overtaken(FakeClock())
        secret = Secret("a secret of sixteen")
        new = House(old.place, Opened(store, await load_vault(store, secret)), secret)
        store.times = times
        await new.importing(data).carry_out(Way.MERGE, new.secret)
        (record,) = await store.find(ACCOUNT)
        assert record.value == b"theirs"


async def test_what_is_too_much_for_one_part_of_the_file_is_carried_in_several() -> None:
    async with house("memory") as old, house("memory") as new:
        large = b"x" * (FRAME_BYTES * 2 // 3)
        await old.store.write([Put(kind=BATCH, id=f"b{number}", value=large) for number in range(3)])
        await old.store.write([Put(kind=BATCH, id="c", value=large * 2)])
        data = await exported(old)
        parts = [each for each in BundleReader(io.BytesIO(data), PASSPHRASE).frames() if isinstance(each, Records)]
        assert [[record.id for record in part.records] for part in parts] == [["b0"], ["b1"], ["b2"], ["c"]]
        await new.importing(data).carry_out((await new.importing(data).plan(None)).way, new.secret)
        assert len(await new.store.find(BATCH)) == 4


async def test_records_that_a_newer_version_knows_are_left_out() -> None:
    async with house("memory") as new:
        file = io.BytesIO()
        writer = BundleWriter(file, PASSPHRASE)
        records = (CarriedRecord("d", b"dream", None),)
        for frame in (Beginning(program="9", made_at=0.0, pepper=b"p"), Records("dream", records), Ending(1, 0, 0)):
            writer.add(frame)
        plan = await new.importing(file.getvalue()).plan(None)
        assert plan.kinds == (KindCount(kind="dream", left_out=1),)
        assert plan.notes == ("records of kind 'dream' are left out: this version does not know them",)
        await new.importing(file.getvalue()).carry_out(plan.way, new.secret)


def test_every_topic_of_the_log_is_carried() -> None:
    sources = (Path(__file__).parents[2] / "src").rglob("*.py")
    named = {
        name for path in sources for name in re.findall(r'^TOPIC: Final = "(\w+)"', path.read_text(), re.MULTILINE)
    }
    assert named == set(TOPICS)
