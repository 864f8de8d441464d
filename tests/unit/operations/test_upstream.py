"""Where requests go when an account's record is damaged: never to the simulated upstream for that."""

import pytest

from qwen_proxy.app.commons import DEMO, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.settings import Settings, load
from qwen_proxy.operations.places import memory_place
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.state.kinds import ACCOUNT
from qwen_proxy.state.store import Put, Record, Store

DAMAGED = "damaged@example.com"


async def damage(store: Store, id: str = DAMAGED) -> None:
    await store.write([Put(kind=ACCOUNT, id=id, value=b"\x01damaged")])


async def kept(store: Store) -> dict[str, Record]:
    return {record.id: record for record in await store.find(ACCOUNT)}


def settings(accounts: str = "") -> Settings:
    return load({"ACCOUNTS": accounts}, None)


async def test_an_installation_whose_only_account_is_damaged_is_not_simulated() -> None:
    machine = Machine()
    async with open_commons(memory_place(machine.ids), machine) as commons:
        await damage(commons.store)
        async with open_destination(settings(), commons, machine) as destination:
            assert not destination.is_simulated and destination.base_url == "https://chat.qwen.ai"
            assert list(await kept(commons.store)) == [DAMAGED]


async def test_a_damaged_account_that_is_given_again_stays_as_it_is_and_the_others_are_adopted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine()
    given = settings(f"{DAMAGED}:pw,other@example.com:pw")
    async with open_commons(memory_place(machine.ids), machine) as commons:
        await damage(commons.store)
        async with open_destination(given, commons, machine):
            assert [each.account.id for each in await commons.book.all()] == ["other@example.com"]
            assert (await kept(commons.store))[DAMAGED].value == b"\x01damaged"
    reasons = [str(record.__dict__.get("reason", "")) for record in caplog.records]
    assert any("da***@example.com" in reason for reason in reasons)
    assert DAMAGED not in "".join(reasons) + caplog.text


async def test_a_damaged_simulated_account_is_made_anew() -> None:
    machine = Machine()
    async with open_commons(memory_place(machine.ids), machine) as commons:
        await damage(commons.store, DEMO)
        async with open_destination(settings(), commons, machine) as destination:
            assert destination.is_simulated
            assert [each.account.id for each in await commons.book.all()] == [DEMO]
