"""Who looks after responses that nobody is at work on, over every store."""

import msgspec
import pytest

from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.response_keeper import GONE, LOOK_SECONDS, UNWRITTEN, ResponseKeeper
from qwen_proxy.api.stored_responses import Job, KeptResponse, ResponseJob, StoredResponses
from qwen_proxy.protocols.openai_responses_kept import status_of
from qwen_proxy.state.kinds import RESPONSE
from qwen_proxy.state.store import Delete, Put, Store
from qwen_proxy.state.vault import Vault, new_document
from tests.support.clock import FakeClock
from tests.support.stores import ShakyStore
from tests.support.waiting import until


class House:
    """Jobs of this process, `us`, and of others, of which only `living` is there."""

    def __init__(self, store: Store) -> None:
        self.store = ShakyStore(store)
        self.kept = StoredResponses(self.store, Vault(new_document()), lambda: 3600.0)
        self.own = OwnJobs("us")
        self.is_keeper = True
        self.asked_again: list[str] = []
        self.can_be_asked = False
        self.clock = FakeClock()
        self.keeper = ResponseKeeper(
            self.kept,
            self.own,
            self._ask_again,
            living=self._living,
            is_keeper=lambda: self.is_keeper,
            clock=self.clock,
        )

    async def _ask_again(self, job: Job) -> bool:
        self.asked_again.append(job.id)
        return self.can_be_asked

    async def _living(self) -> set[str]:
        return {"us", "living"}

    async def begin(self, name: str, owner: str, *, has_content: bool = False) -> str:
        id = f"resp_{name}"
        told = msgspec.json.encode({"id": id, "created_at": 1, "model": "m", "status": "in_progress", "output": []})
        kept = KeptResponse(key_id="key", response=told, input=b"[]")
        await self.kept.begin(id, kept, ResponseJob(owner=owner, has_content=has_content))
        return id

    async def told(self, id: str) -> str:
        """Its status, and behind a failure what is said of it."""
        response = (await self.kept.get(id, "key")).response
        reasons = [why for why in (GONE, UNWRITTEN) if why.encode() in response]
        return ": ".join([status_of(response), *reasons])


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


async def test_the_keeper_ends_what_those_have_left_that_are_gone(house: House) -> None:
    gone, living = await house.begin("gone", "gone"), await house.begin("living", "living")
    mine = await house.begin("mine", "us")
    house.own.begin(mine)
    await house.keeper.look()
    assert await house.told(gone) == f"failed: {GONE}"
    assert (await house.told(living), await house.told(mine)) == ("in_progress", "in_progress")
    assert {job.id for job in await house.kept.jobs()} == {living, mine}


async def test_only_that_is_asked_again_of_which_nobody_has_seen_anything(house: House) -> None:
    house.can_be_asked = True
    unseen, seen = await house.begin("unseen", "gone"), await house.begin("seen", "gone", has_content=True)
    await house.keeper.look()
    assert house.asked_again == [unseen]
    assert (await house.told(unseen), await house.told(seen)) == ("in_progress", f"failed: {GONE}")


async def test_who_is_not_the_keeper_asks_for_nothing_but_what_it_has_left_itself(house: House) -> None:
    house.is_keeper = False
    gone, mine = await house.begin("gone", "gone"), await house.begin("mine", "us")
    house.store.asked.clear()
    await house.keeper.look()
    assert house.store.asked == []
    house.own.begin(mine)
    house.own.end(mine, is_known=False)
    await house.keeper.look()
    assert (await house.told(gone), await house.told(mine)) == ("in_progress", f"failed: {UNWRITTEN}")
    assert house.asked_again == []
    house.store.asked.clear()
    await house.keeper.look()
    assert house.store.asked == []


@pytest.mark.parametrize("is_keeper", [True, False])
async def test_what_is_left_while_the_store_does_not_answer_is_ended_when_it_does(
    house: House, is_keeper: bool
) -> None:
    house.is_keeper = is_keeper
    mine = await house.begin("mine", "us")
    house.own.begin(mine)
    house.own.end(mine, is_known=False)
    house.store.is_down = True
    async with house.keeper:
        for _ in range(3):
            await house.clock.advance(LOOK_SECONDS)
        house.store.is_down = False
        await house.clock.advance(LOOK_SECONDS)
        await until(lambda: not house.own.left)
    assert await house.told(mine) == f"failed: {UNWRITTEN}"


async def test_a_job_whose_response_can_not_be_read_is_forgotten(house: House) -> None:
    broken = await house.begin("broken", "gone")
    fine = await house.begin("fine", "gone")
    await house.store.write([Put(kind=RESPONSE, id=broken, value=b"not what is written here")])
    await house.keeper.look()
    assert await house.kept.jobs() == []
    assert await house.told(fine) == f"failed: {GONE}"


async def test_a_job_whose_response_is_not_there_is_forgotten(house: House) -> None:
    id = await house.begin("halved", "gone")
    await house.store.write([Delete(kind=RESPONSE, id=id)])
    await house.keeper.look()
    assert await house.kept.jobs() == []
