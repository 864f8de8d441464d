"""A store with batches in it, processes that may become keeper and die, and a site that signs in as told."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Sequence
from contextlib import asynccontextmanager

from qwen_proxy.accounts.bulk.batches import Batches
from qwen_proxy.accounts.bulk.book import BatchBook
from qwen_proxy.accounts.bulk.model import Batch, BatchLine, LineStatus
from qwen_proxy.accounts.bulk.runner import BatchRunner
from qwen_proxy.accounts.bulk.work import Enrolment
from qwen_proxy.accounts.lines import read_lines
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Change, Changes, Kind, Record, Written
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.state.watching import Watch
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock


class Line(MemoryStore):
    """A process's way to the records of a store, which may be cut for a while, or for good when the process dies."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        super().__init__(clock)
        self.is_up = True
        self.calls = 0
        self.dies_at = -1  # of the moments before and after calls
        self.cut_at: Container[int] = ()  # moments; behind a write the answer is lost
        self.meanwhile: dict[int, Callable[[], Awaitable[object]]] = {}  # what others do at such a moment
        self.died = asyncio.Event()
        self._store = store

    async def _pass(self) -> None:
        if self.calls == self.dies_at:
            self.died.set()
        self.calls += 1
        if (act := self.meanwhile.pop(self.calls, None)) is not None:
            await act()
        if self.died.is_set():
            await asyncio.Event().wait()  # a dead process does nothing more
        if not self.is_up or self.calls in self.cut_at:
            raise StoreUnavailable("cut")

    async def get(self, kind: Kind, id: str) -> Record | None:
        await self._pass()
        return await self._store.get(kind, id)

    async def find(self, kind: Kind, *, after: str = "", limit: int = 1000) -> list[Record]:
        await self._pass()
        return await self._store.find(kind, after=after, limit=limit)

    async def write(self, changes: Sequence[Change]) -> Written:
        await self._pass()
        written = await self._store.write(changes)
        await self._pass()
        return written

    async def generation(self) -> int:
        return await self._store.generation()

    async def changes(self, since: int) -> Changes:
        return await self._store.changes(since)

    async def wait(self, since: int, timeout_seconds: float) -> int:
        return await self._store.wait(since, timeout_seconds)


class Process:
    """What one process has of all this."""

    def __init__(self, hall: "Hall") -> None:
        self.line = Line(hall.store, hall.clock)
        self.watch = Watch(self.line, hall.clock)
        self.book = BatchBook(self.line, hall.vault)
        self.batches = Batches(self.book, self.watch, hall.clock, SystemIds(), lambda: hall.concurrency)
        enrolment = Enrolment(hall.sign_in, hall.add, hall.find)
        self.runner = BatchRunner(
            self.book, enrolment, self.watch, hall.clock, random.Random(3), lambda: hall.concurrency
        )


class Hall:
    """errors: of sign-ins by name, used up one by one. accounts: those that were added, by id."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.vault = Vault(new_document())
        self.concurrency = 5
        self.errors: dict[str, list[Exception]] = {}
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, str] = {}
        self.attempts: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most_under_way = 0
        self.most_through_one = 0
        self.takes_seconds = 1.0
        self.free_at: dict[str, float] = {}
        self.spacing_seconds = 0.0
        self.add_errors: list[Exception] = []

    async def sign_in(self, account: Account) -> Credential:
        name = account.id.partition("@")[0]
        await self.clock.sleep(max(0.0, self.free_at.get(account.exit, 0.0) - self.clock.monotonic()))
        self.free_at[account.exit] = self.clock.monotonic() + self.spacing_seconds
        self.attempts.append(name)
        self.under_way[account.exit] += 1
        self.most_under_way = max(self.most_under_way, self.under_way.total())
        self.most_through_one = max(self.most_through_one, self.under_way[account.exit])
        try:
            await self.clock.sleep(self.takes_seconds)
        finally:
            self.under_way[account.exit] -= 1
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        return Credential(account_id=account.id, token=Secret(f"token of {name}"), exit=account.exit)

    async def add(self, account: Account, credential: Credential) -> None:
        if self.add_errors:
            raise self.add_errors.pop(0)
        self.accounts[account.id] = account
        self.tokens[account.id] = credential.token.reveal()

    async def find(self, account_id: str) -> Account | None:
        return self.accounts.get(account_id)

    @asynccontextmanager
    async def process(self, *, is_keeper: bool = True, watches: bool = True) -> AsyncGenerator[Process]:
        """watches: hears of what others write; one that does not lets days pass quickly."""
        process = Process(self)
        async with Tasks() as tasks, process.runner:
            await process.watch.load()
            if watches:
                tasks.spawn(process.watch.run(), name="watch")
            if is_keeper:
                process.runner.start()
            yield process

    # --- a look from outside

    @property
    def book(self) -> BatchBook:
        return BatchBook(self.store, self.vault)

    async def create(self, text: str, *labels: str) -> str:
        await self.clock.advance(0.01)  # ids of one moment have no order
        batches = Process(self).batches
        return (await batches.create(read_lines(text, set(self.accounts)), labels=labels, by="key_1")).id

    async def batch(self, id: str) -> Batch:
        entry = await self.book.get(id)
        assert entry is not None
        return entry.value

    async def lines(self, id: str) -> dict[int, BatchLine]:
        return {number: entry.value async for number, entry in self.book.each_line(id)}

    async def statuses(self, id: str) -> dict[str, str]:
        return {line.email.partition("@")[0]: line.status.value for line in (await self.lines(id)).values()}

    async def check(self, id: str) -> None:
        """The batch's counts are those of its lines, and passwords are kept only where they are needed."""
        batch, lines = await self.batch(id), await self.lines(id)
        counts = Counter(line.status for line in lines.values())
        assert len(lines) == batch.total
        assert counts[LineStatus.INVALID] == batch.invalid
        assert counts[LineStatus.SKIPPED] == batch.skipped + batch.repeated
        assert counts[LineStatus.SUCCEEDED] == batch.succeeded
        assert counts[LineStatus.CANCELLED] == batch.cancelled
        assert sorted(batch.failed) == [n for n, line in lines.items() if line.status is LineStatus.FAILED]
        assert sorted(batch.active) == [n for n, line in lines.items() if line.status is LineStatus.RUNNING]
        assert counts[LineStatus.PENDING] + counts[LineStatus.RUNNING] == batch.open
        needed = (LineStatus.PENDING, LineStatus.RUNNING, LineStatus.FAILED)
        assert all((line.password is not None) is (line.status in needed) for line in lines.values())


def pasted(*names: str, exit: str = "") -> str:
    rest = f"|{exit}" if exit else ""
    return "".join(f"{name}@x.org:pw-{name}{rest}\n" for name in names)
