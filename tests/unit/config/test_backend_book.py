"""Backends that are kept beside those of the environment: added, changed, removed, and their keys one by one."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from qwen_proxy.config.backend_book import (
    NO_KEY,
    PAGE,
    BackendBook,
    BackendOrigin,
    KeptBackend,
    health_id,
    key_id,
    together,
)
from qwen_proxy.config.backends import BackendForm, spec_of
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound
from qwen_proxy.ground.secret import Secret
from qwen_proxy.state.kinds import BACKEND, BACKEND_KEY
from qwen_proxy.state.store import Append, Change, Put, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

VAULT = Vault(new_document())
BASE = "http://lab/v1"
ONE, TWO, THREE = "sk-one", "sk-two", "sk-three"
AUDIT = Append(topic="audit", value=b"line")


class House:
    """A book over a store. The environment has `env`, and `off`, which is switched off there."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(FakeClock())
        environment = [
            spec_of(BackendForm(name="env", base_url=BASE, key=ONE)),
            spec_of(BackendForm(name="off", base_url=BASE, enabled=False)),
        ]
        self.book = BackendBook(self.store, VAULT, environment)

    async def lab(self, *keys: str) -> None:
        await self.book.add(BackendForm(name="lab", base_url=BASE, keys=keys))

    async def keys(self, name: str = "lab") -> list[str]:
        return [key.reveal() for key in (await self.book.get(name)).spec.keys]

    async def note(self, *ids: str) -> None:
        """Something is kept about the health of these keys."""
        await self.store.write([Put(kind=BACKEND_KEY, id=id, value=b"{}") for id in ids])

    async def noted(self) -> set[str]:
        return {record.id for record in await self.store.find(BACKEND_KEY)}

    async def lines(self) -> int:
        return len(await self.store.log("audit"))


@pytest.fixture
def house() -> House:
    return House()


def about(key: str, name: str = "lab") -> str:
    return health_id(name, key_id(VAULT, Secret(key)))


def test_an_id_tells_nothing_of_its_key_and_is_always_the_same() -> None:
    assert key_id(VAULT, Secret(ONE)) == key_id(VAULT, Secret(ONE)) != key_id(VAULT, Secret(TWO))
    assert ONE not in key_id(VAULT, Secret(ONE)) and key_id(VAULT, Secret("")) == NO_KEY


def test_the_environment_wins_a_name_and_a_switch_holds_for_it() -> None:
    env = spec_of(BackendForm(name="env", base_url=BASE))
    other = spec_of(BackendForm(name="env", base_url="http://other/v1"))
    (known,) = together([env], {"env": KeptBackend(spec=other, enabled=False), "gone": KeptBackend()})
    assert (known.origin, known.spec.base_url, known.spec.enabled) == (BackendOrigin.ENVIRONMENT, BASE, False)


# --- added


async def test_one_is_added_once_with_its_line_of_the_audit_log(house: House) -> None:
    form = BackendForm(name="lab", base_url=BASE, key=ONE)
    added = await house.book.add(form, AUDIT)
    assert (added.spec.name, added.origin, await house.lines()) == ("lab", BackendOrigin.ADDED, 1)
    with pytest.raises(AlreadyExists):
        await house.book.add(form, AUDIT)
    with pytest.raises(AlreadyExists):
        await house.book.add(BackendForm(name="env", base_url=BASE))
    with pytest.raises(InvalidRequest) as wrong:
        await house.book.add(BackendForm(name="other", base_url=BASE, protocol="odd"))
    assert wrong.value.param == "protocol" and await house.lines() == 1


async def test_what_is_kept_of_a_key_is_kept_sealed(house: House) -> None:
    await house.lab(ONE)
    (record,) = await house.store.find(BACKEND)
    assert ONE.encode() not in record.value


# --- changed


async def test_what_a_form_leaves_out_stays(house: House) -> None:
    await house.lab(ONE)
    await house.book.edit("lab", BackendForm(enabled=False))
    changed = await house.book.edit("lab", BackendForm(prefix="x/"), AUDIT)
    assert (changed.spec.prefix, changed.spec.enabled, await house.keys()) == ("x/", False, [ONE])
    assert (await house.book.edit("lab", BackendForm(enabled=True))).spec.enabled


async def test_a_form_of_nothing_and_one_that_changes_nothing_write_nothing(house: House) -> None:
    await house.lab(ONE)
    assert (await house.book.edit("lab", BackendForm(), AUDIT)).spec.name == "lab"
    await house.book.edit("lab", BackendForm(key=ONE), AUDIT)
    assert await house.lines() == 0


async def test_one_of_the_environment_is_switched_and_nothing_else(house: House) -> None:
    for enabled in (False, True):
        assert (await house.book.edit("env", BackendForm(enabled=enabled))).spec.enabled is enabled
    with pytest.raises(InvalidRequest) as wrong:
        await house.book.edit("env", BackendForm(prefix="x/", enabled=False))
    assert wrong.value.param == "name"
    with pytest.raises(InvalidRequest) as wrong:
        await house.book.edit("off", BackendForm(enabled=True))
    assert wrong.value.param == "enabled"
    assert not (await house.book.edit("off", BackendForm(enabled=False))).spec.enabled


async def test_an_added_one_behind_a_name_of_the_environment_is_there_again_when_that_goes(house: House) -> None:
    with_less = BackendBook(house.store, VAULT, [])
    await with_less.add(BackendForm(name="env", base_url="http://other/v1", key=TWO))
    await house.note(about(ONE, "env"))
    await house.book.edit("env", BackendForm(enabled=False))
    behind = await with_less.get("env")
    assert (behind.spec.base_url, behind.spec.keys, behind.spec.enabled) == ("http://other/v1", (Secret(TWO),), False)
    assert await house.noted() == {about(ONE, "env")}  # the environment's keys are its own affair


async def test_what_is_not_there_or_not_spoken_is_not_changed(house: House) -> None:
    await house.lab(ONE)
    for name in ("nobody", "web"):
        with pytest.raises(NotFound):
            await house.book.edit(name, BackendForm(prefix="x/"))
    for form in (BackendForm(protocol="odd"), BackendForm(base_url="lab"), BackendForm(name="new")):
        with pytest.raises(InvalidRequest):
            await house.book.edit("lab", form, AUDIT)
    assert await house.lines() == 0


# --- keys


async def test_keys_are_added_behind_those_that_are_there(house: House) -> None:
    await house.lab(ONE)
    await house.book.add_keys("lab", [TWO, ONE, f" {THREE} "], AUDIT)
    assert await house.keys() == [ONE, TWO, THREE]
    await house.book.add_keys("lab", [THREE], AUDIT)
    assert await house.lines() == 1  # that changed nothing


async def test_keys_are_removed_by_their_ids(house: House) -> None:
    await house.lab(ONE, TWO, THREE)
    await house.book.edit("lab", BackendForm(enabled=False))
    left = await house.book.remove_keys("lab", [key_id(VAULT, Secret(key)) for key in (THREE, ONE)], AUDIT)
    assert await house.keys() == [TWO] and not left.spec.enabled
    with pytest.raises(NotFound):
        await house.book.remove_keys("lab", [key_id(VAULT, Secret(key)) for key in (TWO, ONE)], AUDIT)
    assert await house.keys() == [TWO] and await house.lines() == 1
    await house.book.remove_keys("lab", [key_id(VAULT, Secret(TWO))])
    assert await house.keys() == []
    with pytest.raises(NotFound):
        await house.book.remove_keys("lab", [NO_KEY])


async def test_the_last_key_of_an_offer_that_wants_one_stays(house: House) -> None:
    await house.book.add(BackendForm(preset="openrouter", key=ONE))
    with pytest.raises(InvalidRequest, match="wants a key") as wrong:
        await house.book.remove_keys("openrouter", [key_id(VAULT, Secret(ONE))])
    assert wrong.value.param == "keys" and await house.keys("openrouter") == [ONE]


@pytest.mark.parametrize(
    ("name", "keys", "kind", "param"),
    [
        ("env", [TWO], InvalidRequest, "name"),
        ("lab", [], InvalidRequest, "keys"),
        ("lab", ["a b"], InvalidRequest, "keys"),
        ("nobody", [TWO], NotFound, None),
    ],
)
async def test_keys_that_can_not_be_added_are_told(
    house: House, name: str, keys: Sequence[str], kind: type[InvalidRequest | NotFound], param: str | None
) -> None:
    await house.lab(ONE)
    with pytest.raises(kind) as wrong:
        await house.book.add_keys(name, keys, AUDIT)
    assert (wrong.value.param if isinstance(wrong.value, InvalidRequest) else None) == param
    assert await house.keys() == [ONE] and await house.lines() == 0


# --- what is kept of keys goes with them


Turn = Callable[[BackendBook], Awaitable[object]]
TURNS: dict[str, tuple[Turn, set[str]]] = {
    "one key removed": (lambda book: book.remove_keys("lab", [key_id(VAULT, Secret(ONE))]), {TWO}),
    "other keys": (lambda book: book.edit("lab", BackendForm(keys=(TWO, THREE))), {TWO}),
    "no keys": (lambda book: book.edit("lab", BackendForm(keys=())), set()),
    "backend removed": (lambda book: book.remove("lab"), set()),
    "one key added": (lambda book: book.add_keys("lab", [THREE]), {ONE, TWO}),
    "no change of keys": (
        lambda book: book.edit("lab", BackendForm(prefix="x/")),
        {ONE, TWO, "sk-of-long-ago"},
    ),
}


@pytest.mark.parametrize(("turn", "left"), TURNS.values(), ids=TURNS)
async def test_what_is_known_of_a_key_goes_with_it(house: House, turn: Turn, left: set[str]) -> None:
    await house.lab(ONE, TWO)
    others = {about(ONE, "lab-2"), about(ONE, "la"), about(ONE, "env")}
    await house.note(about(ONE), about(TWO), about("sk-of-long-ago"), *others)
    await turn(house.book)
    assert await house.noted() == {about(key) for key in left} | others


async def test_a_name_that_was_used_before_begins_anew(house: House) -> None:
    await house.note(about(ONE), health_id("lab", NO_KEY))
    await house.lab()
    assert await house.noted() == {health_id("lab", NO_KEY)}


async def test_of_very_many_keys_all_go(house: House) -> None:
    ids = [f"lab/{number:04}" for number in range(PAGE + 1)]
    await house.lab(ONE)
    await house.note(*ids, about(ONE))
    await house.book.add_keys("lab", [TWO])
    assert await house.noted() == {about(ONE)}


# --- removed


async def test_one_is_removed_with_its_line_and_one_of_the_environment_is_not(house: House) -> None:
    await house.lab(ONE)
    assert (await house.book.remove("lab", AUDIT)).spec.name == "lab"
    assert [known.spec.name for known in await house.book.all()] == ["env", "off"] and await house.lines() == 1
    with pytest.raises(NotFound):
        await house.book.remove("lab", AUDIT)
    with pytest.raises(InvalidRequest, match="disable it"):
        await house.book.remove("env", AUDIT)
    assert await house.lines() == 1


# --- somebody else at the same time


class Busy(MemoryStore):
    """Does something of somebody else's before the next write, once."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.before: Callable[[], Awaitable[object]] | None = None

    async def write(self, changes: Sequence[Change]) -> Written:
        before, self.before = self.before, None
        if before is not None:
            await before()
        return await super().write(changes)


@pytest.fixture
def busy() -> Busy:
    return Busy()


async def test_two_who_change_keys_at_once_both_have_their_way(busy: Busy) -> None:
    house = House(busy)
    await house.lab(ONE)
    busy.before = lambda: House(busy).book.add_keys("lab", [TWO])
    await house.book.add_keys("lab", [THREE], AUDIT)
    assert await house.keys() == [ONE, TWO, THREE] and await house.lines() == 1


CHANGES: dict[str, Turn] = {
    "add_keys": lambda book: book.add_keys("lab", [TWO], AUDIT),
    "remove_keys": lambda book: book.remove_keys("lab", [key_id(VAULT, Secret(ONE))], AUDIT),
    "edit": lambda book: book.edit("lab", BackendForm(prefix="x/"), AUDIT),
}


@pytest.mark.parametrize("turn", CHANGES.values(), ids=CHANGES)
async def test_one_that_is_removed_meanwhile_is_not_brought_back(busy: Busy, turn: Turn) -> None:
    house = House(busy)
    await house.lab(ONE)
    busy.before = lambda: House(busy).book.remove("lab")
    with pytest.raises(NotFound):
        await turn(house.book)
    assert await house.store.find(BACKEND) == [] and await house.lines() == 0


async def test_who_removes_what_is_removed_meanwhile_has_removed_it(busy: Busy) -> None:
    house = House(busy)
    await house.lab(ONE)
    busy.before = lambda: House(busy).book.remove("lab")
    await house.book.remove("lab", AUDIT)
    assert await house.store.find(BACKEND) == [] and await house.lines() == 0


async def test_of_two_who_add_one_name_at_once_one_is_refused(busy: Busy) -> None:
    house = House(busy)
    busy.before = House(busy).lab
    with pytest.raises(AlreadyExists):
        await house.lab(ONE)
    assert await house.keys() == []
