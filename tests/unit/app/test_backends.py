"""The backends besides the site as one process has them, from the environment and from what is kept, and their keys."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.key_health import KeyHealth
from qwen_proxy.accounts.model import DIRECT, Feature, Outcome, OutcomeKind
from qwen_proxy.app.backends import ApiBackends, api_options, backend_transport, exit_of, open_backends
from qwen_proxy.app.commons import Commons, Kept, live_settings, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.backend_book import BackendBook, health_id, key_id
from qwen_proxy.config.backends import BackendForm, Thinking, spec_of
from qwen_proxy.config.settings import load
from qwen_proxy.ground.errors import CredentialRejected, NotFound, ShuttingDown, StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.places import memory_place
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import BACKEND_KEY
from qwen_proxy.state.store import Change, Written
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.opening import FilePlace
from tests.support.openai_server import OpenAIServer, answer
from tests.support.waiting import until

GOOD, BAD, WORSE = "sk-good", "sk-bad", "sk-worse"


class Process(Struct, frozen=True):
    commons: Commons
    backends: ApiBackends

    async def learn(self) -> None:
        await self.commons.watch.catch_up()

    def states(self, name: str = "lab") -> list[str]:
        return [report.state.value for report in self.backends.reports(name)]

    async def kept(self) -> set[str]:
        return {record.id for record in await self.commons.store.find(BACKEND_KEY)}

    def about(self, key: str, name: str = "lab") -> str:
        return health_id(name, key_id(self.commons.vault, Secret(key)))


@asynccontextmanager
async def process(kept: Kept | None = None, **settings: str) -> AsyncGenerator[Process]:
    machine = Machine()
    async with open_commons(kept or memory_place(machine.ids), machine) as commons:
        live = live_settings(load(settings, None), commons)
        async with open_backends(live, commons, machine, chat_base_url="http://127.0.0.1:9") as backends:
            await commons.watch.load()
            yield Process(commons, backends)


def lab(server: OpenAIServer, *keys: str, models: Sequence[str] = (), enabled: bool | None = None) -> BackendForm:
    return BackendForm(name="lab", base_url=server.base_url, keys=keys, models=tuple(models) or None, enabled=enabled)


def names(one: Process) -> list[str]:
    return [backend.name for backend in one.backends.current()]


# --- what there is


async def test_the_environment_comes_first_and_what_is_switched_off_is_not_served() -> None:
    forms = [
        {"name": "second", "base_url": "http://a/v1"},
        {"name": "off", "base_url": "http://a/v1", "enabled": False},
        {"name": "first", "base_url": "http://a/v1"},
    ]
    environ = {"BACKENDS": msgspec.json.encode(forms).decode(), "QWEN_CODE_ENABLED": "true"}
    async with process(None, **environ) as one:
        await one.backends.book.add(BackendForm(name="added", base_url="http://a/v1"))
        assert names(one) == ["second", "first", "qwen-code"]
        await one.learn()
        assert names(one) == ["second", "first", "added", "qwen-code"]
        await one.backends.book.edit("first", BackendForm(enabled=False))
        await one.learn()
        assert names(one) == ["second", "added", "qwen-code"]
        assert one.backends.reports("nobody") == []


async def test_a_switch_leaves_the_backend_as_it_is_and_a_change_keeps_its_keys_health() -> None:
    async with OpenAIServer(GOOD) as server, process() as one:
        await one.backends.book.add(lab(server, BAD, GOOD))
        await one.backends.test("lab")
        (before,) = one.backends.current()
        for enabled in (False, True):
            await one.backends.book.edit("lab", BackendForm(enabled=enabled))
            await one.learn()
        assert list(one.backends.current()) == [before]
        await one.backends.book.edit("lab", BackendForm(prefix="x/"))
        await one.learn()
        (after,) = one.backends.current()
        assert (after.prefix, after.leasing is before.leasing, one.states()) == ("x/", True, ["retired", "ready"])


async def test_one_that_is_removed_lets_nobody_in_any_more() -> None:
    async with OpenAIServer() as server, process() as one:
        await one.backends.book.add(lab(server, GOOD))
        await one.learn()
        (backend,) = one.backends.current()
        await one.backends.book.remove("lab")
        await one.learn()
        assert not one.backends.current() and one.backends.reports("lab") == []

        async with asyncio.timeout(10):
            with pytest.raises(ShuttingDown):
                while True:  # its pool is closed by a task
                    async with backend.leasing.lease(Feature.CHAT, deadline=0.0):
                        await asyncio.sleep(0)


async def test_a_protocol_of_another_version_costs_only_its_backend(caplog: pytest.LogCaptureFixture) -> None:
    async with process() as one:
        newer = BackendBook(one.commons.store, one.commons.vault, [], protocols=("odd", "openai"))
        await newer.add(BackendForm(name="newer", base_url="http://a/v1", protocol="odd"))
        await newer.add(BackendForm(name="plain", base_url="http://a/v1"))
        await one.learn()
        assert names(one) == ["plain"] and "protocol is unknown" in caplog.text
        with pytest.raises(NotFound):
            await one.backends.test("newer")


# --- tests of keys


async def test_a_test_tries_every_key_and_is_learned_from() -> None:
    async with OpenAIServer(GOOD) as server, process() as one:
        await one.backends.book.add(lab(server, BAD, GOOD))
        refused, taken = await one.backends.test("lab")  # which this process has not heard of yet
        assert (bool(refused.problem), refused.models, taken.models) == (True, (), ("m-1", "m-2"))
        assert one.states() == ["retired", "ready"]
        server.keys_taken = (BAD, GOOD)
        assert [each.problem for each in await one.backends.test("lab")] == ["", ""]
        await one.learn()
        assert one.states() == ["ready", "ready"] and await one.kept() == {one.about(BAD)}
        with pytest.raises(NotFound):
            await one.backends.test("nobody")


async def test_a_server_that_is_down_is_no_fault_of_a_key() -> None:
    async with OpenAIServer() as server, process() as one:
        server.refusals[GOOD] = lambda: answer(503, b"{}")
        await one.backends.book.add(lab(server, GOOD))
        (tried,) = await one.backends.test("lab")
        assert "503" in tried.problem and one.states() == ["ready"] and await one.kept() == set()


async def test_models_come_with_the_first_key_that_is_taken() -> None:
    async with OpenAIServer(GOOD) as server, process() as one:
        await one.backends.book.add(lab(server, BAD, GOOD, WORSE))
        await one.learn()
        (backend,) = one.backends.current()
        catalogue = await backend.catalogue.get()
        assert [model.id for model in catalogue.models] == ["m-1", "m-2"]
        assert one.states() == ["retired", "ready", "ready"]


async def test_without_a_key_that_is_taken_there_is_no_list_and_it_says_why() -> None:
    async with OpenAIServer(GOOD) as server, process() as one:
        await one.backends.book.add(lab(server, BAD, WORSE))
        await one.learn()
        (backend,) = one.backends.current()
        with pytest.raises(CredentialRejected):
            await backend.catalogue.get()
        assert one.states() == ["retired", "retired"]
        shortage = backend.shortage()
        assert shortage is not None and "invalid_api_key" in str(shortage)
        await one.backends.book.edit("lab", BackendForm(models=("m-9",)))
        await one.learn()
        (backend,) = one.backends.current()
        assert [model.id for model in (await backend.catalogue.get()).models] == ["m-9"]  # which nobody is asked for


# --- over processes


async def test_what_is_known_of_a_key_holds_for_a_backend_that_begins_later() -> None:
    async with OpenAIServer() as server, process() as one:
        healths = Collection(one.commons.store, BACKEND_KEY, KeyHealth, one.commons.vault)
        for about in (one.about(BAD), one.about(GOOD, "lab-2")):
            await one.commons.store.write([healths.put(about, KeyHealth(retired="elsewhere"))])
        await one.learn()
        await one.backends.book.add(lab(server, GOOD, BAD))
        await one.learn()
        assert one.states() == ["ready", "retired"]


async def test_what_it_holds_of_limits_is_told() -> None:
    async with OpenAIServer() as server, process() as one, one.commons.membership:
        await one.backends.book.add(
            BackendForm(name="lab", base_url=server.base_url, concurrency=1, models=("m-1",), key=GOOD)
        )
        await one.learn()
        (backend,) = one.backends.current()
        assert list(one.backends.held()) == [] and not one.backends.is_hungry
        deadline = Machine().clock.monotonic() + 30
        async with backend.leasing.lease(Feature.CHAT, deadline=deadline):
            assert [(hold.name, hold.count) for hold in one.backends.held()] == [("backend:lab", 1)]
            waiting = backend.leasing.lease(Feature.CHAT, deadline=deadline)
            task = asyncio.ensure_future(waiting.__aenter__())  # noqa: TID251
            await until(lambda: one.backends.is_hungry)
        await asyncio.wait_for(task, 10)
        await waiting.__aexit__(None, None, None)
        assert list(one.backends.held()) == [] and not one.backends.is_hungry


async def test_what_one_process_learns_of_a_key_all_know_also_one_that_starts_later(tmp_path: Path) -> None:
    kept = Kept(FilePlace(tmp_path / "kept.db"), Secret("s" * 32))
    async with OpenAIServer(GOOD) as server, process(kept) as one, process(kept) as two:
        await one.backends.book.add(lab(server, BAD, GOOD))
        await one.backends.test("lab")
        await until_kept(one, {one.about(BAD)})
        await two.learn()
        assert two.states() == ["retired", "ready"]
        async with process(kept) as three:
            assert three.states() == ["retired", "ready"]


async def test_a_key_that_is_removed_takes_what_is_known_of_it_along_and_begins_anew(tmp_path: Path) -> None:
    kept = Kept(FilePlace(tmp_path / "kept.db"), Secret("s" * 32))
    async with OpenAIServer(GOOD) as server, process(kept) as one, process(kept) as two:
        await one.backends.book.add(lab(server, BAD, GOOD))
        await one.backends.test("lab")
        await until_kept(one, {one.about(BAD)})
        await two.learn()
        await one.backends.book.remove_keys("lab", [key_id(one.commons.vault, Secret(BAD))])
        assert await one.kept() == set()
        for each in (one, two):
            await each.learn()
            assert each.states() == ["ready"]
        await one.backends.book.add_keys("lab", [BAD])
        for each in (one, two):
            await each.learn()
            assert each.states() == ["ready", "ready"]


async def test_what_a_process_wrote_before_it_heard_of_a_removal_goes_with_the_next_change(tmp_path: Path) -> None:
    kept = Kept(FilePlace(tmp_path / "kept.db"), Secret("s" * 32))
    async with OpenAIServer(GOOD) as server, process(kept) as one, process(kept) as two:
        await one.backends.book.add(lab(server, BAD, GOOD))
        for each in (one, two):
            await each.learn()
        await one.backends.book.remove_keys("lab", [key_id(one.commons.vault, Secret(BAD))])
        (backend,) = two.backends.current()
        still_there = key_id(two.commons.vault, Secret(BAD))
        async with backend.leasing.lease(Feature.CHAT, deadline=0.0, only_account=still_there) as lease:
            lease.report(Outcome(kind=OutcomeKind.CREDENTIAL_REJECTED))
        await until_kept(one, {one.about(BAD)})
        await one.backends.book.add_keys("lab", [WORSE])
        assert await one.kept() == set()


async def until_kept(one: Process, ids: set[str]) -> None:
    """It is written by a task."""
    async with asyncio.timeout(10):
        while await one.kept() != ids:  # noqa: ASYNC110 - it is in the store
            await asyncio.sleep(0.005)


class Broken(MemoryStore):
    async def write(self, changes: Sequence[Change]) -> Written:
        raise StoreUnavailable("down")


async def test_a_store_that_is_down_costs_no_knowledge_of_a_key(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    async with OpenAIServer(GOOD) as server, open_commons(memory_place(machine.ids), machine) as whole:
        commons = replace(whole, store=Broken(machine.clock))
        forms = [{"name": "lab", "base_url": server.base_url, "keys": [BAD, GOOD]}]
        live = live_settings(load({"BACKENDS": msgspec.json.encode(forms).decode()}, None), whole)
        async with open_backends(live, commons, machine, chat_base_url="http://127.0.0.1:9") as backends:
            (backend,) = backends.current()
            assert (await backend.catalogue.get()).models
            await until(lambda: "was not kept" in caplog.text)
            assert [report.state.value for report in backends.reports("lab")] == ["retired", "ready"]


async def test_a_record_that_can_not_be_read_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with OpenAIServer() as server, process() as one:
        await one.backends.book.add(lab(server, GOOD, BAD))
        healths = Collection(one.commons.store, BACKEND_KEY, KeyHealth, one.commons.vault)
        retired = healths.put(one.about(BAD), KeyHealth(retired="elsewhere"))
        await one.commons.store.write([retired, replace(retired, id=one.about(GOOD), value=b"odd")])
        await one.learn()
        assert one.states() == ["ready", "retired"] and "can't be read" in caplog.text


# --- what a description becomes


def test_a_server_of_ones_own_is_not_behind_the_general_proxy() -> None:
    settings = load({"PROXY_URL": "http://proxy:1"}, None)
    api = spec_of(BackendForm(name="api-1", base_url="http://a/v1"))
    own = spec_of(BackendForm(preset="vllm", base_url="http://a"))
    assert (exit_of(api, settings), exit_of(own, settings)) == ("http://proxy:1", DIRECT)
    assert exit_of(spec_of(BackendForm(exit="http://its:1"), own), settings) == "http://its:1"


def test_what_an_upstream_is_told() -> None:
    form = BackendForm(preset="coding-plan", key=GOOD, models=("m",), headers={"X-A": "b"})
    told = api_options(spec_of(form), DIRECT)
    assert (told.name, told.models, told.headers, told.thinking, told.exit) == (
        "coding-plan",
        ("m",),
        (("X-A", "b"),),
        Thinking.DASHSCOPE,
        DIRECT,
    )
    assert told.usual_models and told.base_url.startswith("https://coding-intl.")


def test_silence_before_an_answer_has_the_limit_of_silence_inside_it() -> None:
    options = backend_transport(load({}, None))
    assert options.headers_seconds == max(options.headers_seconds, options.idle_seconds)
