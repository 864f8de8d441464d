"""A thread that owns a connection to the SQLite file and does what the event loop asks of it, one after the other."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Self, TypeVar

from msgspec import Struct

from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.storage.sqlite_schema import in_our_words

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]
MOST_AT_ONCE: Final = 250  # calls in one group


class Asked(Struct, frozen=True, eq=False):
    """A call and where its answer goes. is_flushed: it is not answered before it has reached the disk.

    Answers of any type lie in one queue; `DatabaseThread.ask` keeps the types together.
    """

    call: Call[Any]
    answer: asyncio.Future[Any]
    is_flushed: bool = False


Answers = Sequence[tuple[Asked, object]]  # an exception is raised where it was asked


class DatabaseThread:
    """Enter it: the connection is opened in the thread. Leaving it waits for all that was asked before.

    `answer` is given what waits, at least one, and returns an answer for each: whoever asks while it is at work is in
    the next group. A caller that is cancelled changes nothing in that: its call is done, and nobody hears of it.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], sqlite3.Connection],
        answer: Callable[[sqlite3.Connection, Sequence[Asked]], Answers],
    ) -> None:
        self._name = name
        self._open = open
        self._answer = answer
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except BaseException:
            await self._end()
            raise
        self._is_open = True
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._is_open = False
        await self._end()

    async def _end(self) -> None:
        self._asked.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()  # it has nothing left to do

    async def ask(self, call: Call[T], *, is_flushed: bool = False) -> T:
        """Raises StoreUnavailable, and what the call raises."""
        if not self._is_open:
            raise StoreUnavailable("it is closed")
        asked = Asked(call, self._loop.create_future(), is_flushed)
        self._asked.put(asked)
        return await asked.answer

    # --- in the thread

    def _run(self) -> None:
        try:
            db = self._open()
        except BaseException as error:
            self._tell(_settle, self._opened, error)
            self._tell(_settle, self._ended, None)
            return
        self._tell(_settle, self._opened, None)
        try:
            while (first := self._asked.get()) is not None:
                group, is_last = self._with_those_behind(first)
                self._tell(_hand_out, self._answered(db, group))
                if is_last:
                    break
        finally:
            try:
                db.close()
            finally:
                self._tell(_settle, self._ended, None)

    def _with_those_behind(self, first: Asked) -> tuple[list[Asked], bool]:
        group = [first]
        while len(group) < MOST_AT_ONCE:
            try:
                asked = self._asked.get_nowait()
            except Empty:
                break
            if asked is None:
                return group, True
            group.append(asked)
        return group, False

    def _answered(self, db: sqlite3.Connection, group: Sequence[Asked]) -> Answers:
        try:
            return self._answer(db, group)
        except Exception as error:  # no caller may wait for ever
            return [(asked, error) for asked in group]

    def _tell(self, function: Callable[..., None], *values: object) -> None:
        if not self._loop.is_closed():  # else nobody is there to hear it
            self._loop.call_soon_threadsafe(function, *values)


def one_by_one(db: sqlite3.Connection, group: Sequence[Asked]) -> Answers:
    """For a connection that reads: each call sees one moment, with all that was written before it began."""
    return [(asked, _read(db, asked)) for asked in group]


def _read(db: sqlite3.Connection, asked: Asked) -> object:
    try:
        db.execute("BEGIN")
        try:
            return asked.call(db)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    except sqlite3.Error as error:
        return in_our_words(error)
    except Exception as error:
        return error


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _hand_out(answers: Answers) -> None:
    for asked, value in answers:
        if not asked.answer.done():  # else its caller was cancelled
            if isinstance(value, BaseException):
                asked.answer.set_exception(value)
            else:
                asked.answer.set_result(value)
