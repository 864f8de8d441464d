import logging
from collections.abc import Sequence

import pytest

from qwen_proxy.config.choices import SearchInfo
from qwen_proxy.config.runtime import ID, TOPIC, LiveSettings, LiveValues
from qwen_proxy.config.settings import Settings, Source, load
from qwen_proxy.config.variables import LIVE
from qwen_proxy.ground.errors import InvalidRequest, NotFound, StoreUnavailable
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import SETTINGS
from qwen_proxy.state.store import Append, Change, Changes, Put, Store, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

BASE = load({"MAX_CHOICES": "4"}, None)
OLD = "an older version's"


class Process:
    """One of those that share a store: its settings, and what it was told of changes."""

    def __init__(self, store: Store, vault: Vault, base: Settings = BASE) -> None:
        self.store = store
        self.watch = Watch(store, FakeClock())
        self.live = LiveSettings(base, store, vault, self.watch)
        self.told: list[Settings] = []
        self.live.on_change(self.told.append)

    async def set(self, **changes: str | None) -> list[tuple[str, str | None, str | None]]:
        made = await self.live.change(changes, by="key-1", request_id="req_1")
        return [(each.name, each.before, each.after) for each in made]

    async def undo(self, number: int | None = None) -> None:
        await self.live.undo(number, by="key-1")


class Racing(MemoryStore):
    """Lets another write come in between the reading and the writing of the first change."""

    def __init__(self, rival: Put) -> None:
        super().__init__(FakeClock())
        self._rivals = [rival]

    async def write(self, changes: Sequence[Change]) -> Written:
        if self._rivals:
            await super().write([self._rivals.pop()])
        return await super().write(changes)


class DeafAfterwards(MemoryStore):
    async def changes(self, since: int) -> Changes:
        raise StoreUnavailable("connection lost")


def process(store: Store | None = None, vault: Vault | None = None, base: Settings = BASE) -> Process:
    return Process(store or MemoryStore(FakeClock()), vault or Vault(new_document()), base)


async def test_a_value_set_at_run_time_wins_and_taking_it_back_gives_the_old_one() -> None:
    one = process()
    assert await one.set(MAX_CHOICES="5", SEARCH_INFO_MODE=" Table ") == [
        ("MAX_CHOICES", None, "5"),
        ("SEARCH_INFO_MODE", None, "Table"),
    ]
    now = one.live.current
    assert (now.max_choices, now.search_info) == (5, SearchInfo.TABLE)
    assert (now.sources["MAX_CHOICES"], now.texts["MAX_CHOICES"]) == (Source.RUNTIME, "5")
    assert one.live.base.max_choices == 4
    assert await one.set(MAX_CHOICES=None, SEARCH_INFO_MODE=None) == [
        ("MAX_CHOICES", "5", None),
        ("SEARCH_INFO_MODE", "Table", None),
    ]
    assert one.live.current == BASE
    assert [each.max_choices for each in one.told] == [5, 4]


async def test_an_empty_text_is_a_value_where_the_variable_takes_one() -> None:
    one = process(base=load({"MODEL_MAP": "gpt-*=qwen3.7-plus"}, None))
    await one.set(MODEL_MAP="")
    assert one.live.current.model_map == ()
    with pytest.raises(InvalidRequest, match="MAX_CHOICES='' can't be used"):
        await one.set(MAX_CHOICES="")


async def test_every_process_hears_of_a_change_and_one_that_starts_later_finds_it() -> None:
    store, vault = MemoryStore(FakeClock()), Vault(new_document())
    one, other = process(store, vault), process(store, vault)
    await other.watch.load()
    await one.set(CHAT_RETRY_COUNT="0")
    assert other.told == []
    await other.watch.catch_up()
    assert [each.chat_retry_count for each in other.told] == [0]
    late = process(store, vault)
    await late.watch.load()
    assert late.live.current.chat_retry_count == 0


async def test_changes_of_two_processes_add_up() -> None:
    vault = Vault(new_document())
    rival = Collection(MemoryStore(FakeClock()), SETTINGS, LiveValues, vault).put(
        ID, LiveValues({"QUEUE_SECONDS": "1"})
    )
    one = process(Racing(rival), vault)
    assert await one.set(MAX_CHOICES="5") == [("MAX_CHOICES", None, "5")]
    assert one.live.values == {"MAX_CHOICES": "5", "QUEUE_SECONDS": "1"}


async def test_a_text_is_made_of_the_one_in_force_also_where_two_do_so_at_once() -> None:
    vault = Vault(new_document())
    rival = Collection(MemoryStore(FakeClock()), SETTINGS, LiveValues, vault).put(ID, LiveValues({"MODEL_MAP": "a=b"}))
    one = process(Racing(rival), vault)
    made = await one.live.amend("MODEL_MAP", lambda text: f"{text},c=d".lstrip(","), by="key-1")
    assert [(each.before, each.after) for each in made] == [("a=b", "a=b,c=d")]
    assert one.live.current.model_map == (("a", "b"), ("c", "d"))
    other = process(base=load({"MODEL_MAP": "x=y"}, None))
    await other.live.amend("MODEL_MAP", lambda text: f"{text},c=d", by="key-1")
    assert other.live.current.model_map == (("x", "y"), ("c", "d"))


async def test_a_text_that_can_not_be_used_or_made_changes_nothing() -> None:
    one = process()

    def fail(text: str) -> str:
        raise NotFound("route 'x'")

    with pytest.raises(NotFound):
        await one.live.amend("MODEL_ROUTES", fail, by="key-1")
    with pytest.raises(InvalidRequest) as caught:
        await one.live.amend("MODEL_ROUTES", lambda text: "fast=", by="key-1")
    assert caught.value.param == "MODEL_ROUTES" and "'fast'" in str(caught.value)
    assert one.live.values == {} and one.told == []


async def test_what_changes_nothing_writes_and_tells_nothing() -> None:
    one = process()
    await one.set(MAX_CHOICES="5")
    generation = await one.store.generation()
    assert await one.set(MAX_CHOICES="5", QUEUE_SECONDS=None) == []
    assert await one.store.generation() == generation
    assert len(await one.live.history()) == len(one.told) == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("MAX_CHOICES", "many", "MAX_CHOICES='many' can't be used: it should be a whole number from 1 to 128"),
        (
            "SERVICE_PORT",
            "80",
            "SERVICE_PORT can't be changed while the server runs: set it in the environment or .env",
        ),
        ("API_KEY", None, "API_KEY can't be changed while the server runs"),
        ("MAX_CHOICE", "3", "there is no setting 'MAX_CHOICE'; did you mean MAX_CHOICES?"),
        ("COLOUR", "red", "there is no setting 'COLOUR'; GET /api/admin/settings lists them"),
    ],
)
async def test_a_refusal_names_the_variable_and_changes_nothing(name: str, text: str | None, says: str) -> None:
    one = process()
    with pytest.raises(InvalidRequest) as caught:
        await one.set(**{"QUEUE_SECONDS": "1", name: text})
    assert str(caught.value).startswith(says)
    assert caught.value.param == name
    assert (one.live.current, await one.live.history()) == (BASE, [])


async def test_history_says_who_changed_what_newest_first() -> None:
    one = process()
    await one.set(MAX_CHOICES="5")
    await one.set(MAX_CHOICES="6", OUTPUT_THINK="false")
    newest, oldest = await one.live.history()
    assert [(each.name, each.before, each.after) for each in newest.line.changes] == [
        ("MAX_CHOICES", "5", "6"),
        ("OUTPUT_THINK", None, "false"),
    ]
    assert (newest.line.by, newest.line.request_id) == ("key-1", "req_1")
    assert newest.at == FakeClock().now()
    assert await one.live.history(before=newest.number) == [oldest]
    assert await one.live.history(limit=1) == [newest]


async def test_undo_takes_back_the_newest_change_and_is_itself_a_change() -> None:
    one = process()
    await one.set(MAX_CHOICES="5")
    await one.set(MAX_CHOICES="6", OUTPUT_THINK="false", QUEUE_SECONDS="1")
    await one.undo()
    assert one.live.values == {"MAX_CHOICES": "5"}
    await one.undo()
    assert one.live.values == {"MAX_CHOICES": "6", "OUTPUT_THINK": "false", "QUEUE_SECONDS": "1"}
    assert len(await one.live.history()) == 4


async def test_undo_goes_back_to_any_entry() -> None:
    one = process()
    for count in ("5", "6", "7"):
        await one.set(MAX_CHOICES=count)
    first = (await one.live.history())[-1]
    await one.undo(first.number)
    assert one.live.values == {"MAX_CHOICES": "5"}


@pytest.mark.parametrize("number", [None, 1, 99])
async def test_undo_of_what_is_not_in_the_history_is_refused(number: int | None) -> None:
    one = process()
    if number == 1:  # a line of another topic has that number
        await one.store.write([Append(topic="audit", value=b"")])
        await one.set(MAX_CHOICES="5")
    with pytest.raises(InvalidRequest, match="no such entry"):
        await one.undo(number)


async def test_what_is_written_along_comes_with_the_change() -> None:
    one = process()
    line = Append(topic="audit", value=b"who")
    await one.live.change({"MAX_CHOICES": "5"}, line, by="key-1")
    await one.live.undo(None, line, by="key-1")
    assert [each.value for each in await one.store.log("audit")] == [b"who", b"who"]
    assert len(await one.store.log(TOPIC)) == 2


async def test_values_of_another_version_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    one = process()
    values = {"MAX_CHOICES": "a million", "SERVICE_PORT": "80", "OF_TOMORROW": "1", "QUEUE_SECONDS": "1"}
    vault = Vault(new_document())
    two = process(one.store, vault)
    await one.store.write([Collection(one.store, SETTINGS, LiveValues, vault).put(ID, LiveValues(values))])
    with caplog.at_level(logging.WARNING):
        await two.watch.load()
    assert two.live.values == {"QUEUE_SECONDS": "1"}
    assert (two.live.current.queue_seconds, two.live.current.max_choices) == (1.0, 4)
    ignored = [record.__dict__["variable"] for record in caplog.records if record.message == "setting ignored"]
    assert ignored == ["MAX_CHOICES", "SERVICE_PORT", "OF_TOMORROW"]
    await two.set(CHAT_RETRY_COUNT="2")  # a change here leaves alone what only others understand
    stored = await Collection(one.store, SETTINGS, LiveValues, vault).get(ID)
    assert stored is not None and stored.value.values == values | {"CHAT_RETRY_COUNT": "2"}


async def test_a_document_that_can_not_be_read_leaves_the_settings_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = process()
    await one.set(MAX_CHOICES="5")
    await one.store.write([Put(kind=SETTINGS, id=ID, value=b"\x01what another secret has sealed")])
    with caplog.at_level(logging.WARNING):
        await one.watch.catch_up()
    assert one.live.current.max_choices == 5
    assert "settings not read" in caplog.text


async def test_a_document_that_is_gone_leaves_what_the_start_has() -> None:
    one = process()
    await one.set(MAX_CHOICES="5")
    await one.store.write([Collection(one.store, SETTINGS, LiveValues, Vault(new_document())).delete(ID)])
    await one.watch.catch_up()
    assert one.live.current == BASE


async def test_one_part_that_fails_does_not_keep_a_change_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    one = process()
    told: list[Settings] = []

    def fail(settings: Settings) -> None:
        raise ValueError(OLD)

    one.live.on_change(fail)
    one.live.on_change(told.append)
    await one.set(MAX_CHOICES="5")
    assert [each.max_choices for each in told] == [5]
    assert "could not be applied" in caplog.text


async def test_a_change_that_was_written_holds_though_the_store_is_lost_right_after() -> None:
    one = process(DeafAfterwards(FakeClock()))
    assert await one.set(MAX_CHOICES="5") == [("MAX_CHOICES", None, "5")]
    assert len(await one.live.history()) == 1


def test_no_live_variable_may_hold_a_secret() -> None:
    assert [variable.name for variable in LIVE if variable.secret] == []
    assert {"PROXY_URL", "REDIS_URL", "API_KEY"}.isdisjoint(variable.name for variable in LIVE)
