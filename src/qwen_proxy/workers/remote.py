"""The supervisor as a worker sees it."""

import asyncio
import itertools
from collections.abc import Callable

from qwen_proxy.ground.errors import ShuttingDown
from qwen_proxy.workers.messages import FromSupervisor, FromWorker, Retire, Survey, Surveyed, SurveyWanted


class SupervisorLine:
    """Questions to the supervisor, and its orders."""

    def __init__(self, send: Callable[[FromWorker], None], retire: Callable[[float], None]) -> None:
        self._send = send
        self._retire = retire
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Survey]] = {}
        self._is_alone = False

    async def survey(self) -> Survey:
        """What the supervisor knows of all workers. Raises ShuttingDown when it is gone."""
        if self._is_alone:
            raise ShuttingDown
        number = next(self._numbers)
        future: asyncio.Future[Survey] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send(SurveyWanted(number))
        try:
            return await future
        finally:
            del self._asked[number]

    def received(self, message: FromSupervisor) -> None:
        match message:
            case Retire():
                self._retire(message.drain_seconds)
            case Surveyed():
                if (future := self._asked.get(message.number)) is not None and not future.done():
                    future.set_result(message.survey)

    def lost(self) -> None:
        """The supervisor is gone: nothing more is answered."""
        self._is_alone = True
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ShuttingDown())
