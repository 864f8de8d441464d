"""A worker's line to its supervisor, without a process between."""

import asyncio

import pytest

from qwen_proxy.ground.errors import ShuttingDown
from qwen_proxy.workers.keeping import Desk
from qwen_proxy.workers.messages import DriftCount, DriftSeen, FromSupervisor, FromWorker, Ready, Retire, Survey
from qwen_proxy.workers.remote import SupervisorLine

DRIFT = DriftCount(kind="phase", name="odd", count=3, first_at=1.0)


class Pair:
    """What is sent arrives a loop turn later, in order."""

    def __init__(self) -> None:
        self.readies = 0
        self.retired: list[float] = []
        self.is_deaf = False
        self.desk = Desk(self.to_worker, self.ready, lambda: Survey(workers=(), drift=tuple(self.desk.drift)))
        self.line = SupervisorLine(self.to_desk, self.retired.append)

    def ready(self) -> None:
        self.readies += 1

    def to_desk(self, message: FromWorker) -> None:
        if not self.is_deaf:
            asyncio.get_running_loop().call_soon(self.desk.received, message)

    def to_worker(self, message: FromSupervisor) -> None:
        asyncio.get_running_loop().call_soon(self.line.received, message)


async def test_a_survey_tells_what_the_worker_has_said() -> None:
    pair = Pair()
    pair.to_desk(DriftSeen((DRIFT,)))
    pair.to_desk(Ready())
    assert (await pair.line.survey()).drift == (DRIFT,)
    assert pair.readies == 1


async def test_an_order_to_retire_arrives() -> None:
    pair = Pair()
    pair.line.received(Retire(7.0))
    assert pair.retired == [7.0]


async def test_one_who_left_is_not_answered() -> None:
    pair = Pair()
    asking = asyncio.get_running_loop().create_task(pair.line.survey())
    await asyncio.sleep(0)
    asking.cancel()
    assert await pair.line.survey() == Survey(workers=(), drift=())
    assert asking.cancelled()


async def test_without_a_supervisor_nothing_is_answered() -> None:
    pair = Pair()
    pair.is_deaf = True
    asking = asyncio.get_running_loop().create_task(pair.line.survey())
    await asyncio.sleep(0)
    pair.line.lost()
    with pytest.raises(ShuttingDown):
        await asking
    with pytest.raises(ShuttingDown):
        await pair.line.survey()
