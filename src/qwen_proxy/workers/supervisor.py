"""Keeps worker processes running on one port, and replaces them without a gap.

| what happens | what follows |
|---|---|
| a worker ends by itself | another after 0.5 s, doubling to 30 s while they end within a minute; the others go on |
| a worker holds too much memory | it is replaced |
| SIGHUP, or changed code with --reload | every worker is replaced, one after the other |
| SIGTERM, SIGINT | no more connections; drain for SHUTDOWN_GRACE_SECONDS; a second one ends everything at once |
| this process ends | each worker hears its channel close, drains and ends |

To replace is to start another on the same socket, wait until it accepts, and only then retire the one before.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.workers import listening
from qwen_proxy.workers.keeping import Desk
from qwen_proxy.workers.messages import DriftCount, FromSupervisor, Survey
from qwen_proxy.workers.process import WorkerProcess

log = logging.getLogger(__name__)

WORKER_COMMAND: Final = (sys.executable, "-m", "qwen_proxy", "worker")
HOPELESS_STARTS: Final = 3  # of a worker that was never ready: starting it again will not help


class SupervisorOptions(Struct, frozen=True, kw_only=True):
    """One worker per listener. `environ` None: the workers inherit this process's. `watched`: code for --reload."""

    command: tuple[str, ...] = WORKER_COMMAND
    environ: Mapping[str, str] | None = None
    max_memory_bytes: int | None = None
    memory_check_seconds: float = 5.0
    drain_seconds: float = 1800.0
    shutdown_grace_seconds: float = 30.0
    ready_seconds: float = 60.0
    first_backoff_seconds: float = 0.5
    last_backoff_seconds: float = 30.0
    steady_seconds: float = 60.0  # one that lived so long has not crashed at start, nor grown by being started
    watched: Path | None = None
    watch_seconds: float = 1.0


class _Slot:
    """The place of one worker. `current` accepts, or will; those it followed may still drain."""

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.current: WorkerProcess | None = None
        self.living: set[WorkerProcess] = set()
        self.is_replacing = False
        self.was_ready = False
        self.quick_ends = 0


class Supervisor:
    """`started()` is called once, when every worker accepts connections; `ended(pid)` when one is gone, so that what it
    held need not wait for its heartbeat to be missed. The listeners are closed by `run`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        clock: Clock,
        options: SupervisorOptions,
        started: Callable[[], None] = lambda: None,
        ended: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._slots = [_Slot(number, listener) for number, listener in enumerate(listeners)]
        self._clock = clock
        self._options = options
        self._command = options.command
        self._started = started
        self._ended = ended
        self._has_started = False
        self._tasks = Tasks()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_hopeless = False
        self._roll_wanted = asyncio.Event()
        self._past_drift: list[DriftCount] = []
        self._launching = 0
        self._all_launched = asyncio.Event()
        self._all_launched.set()

    async def run(self) -> int:
        """Until a signal ends it, or the workers can't be started: the exit code."""
        loop = asyncio.get_running_loop()
        signals = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: self.roll}
        for number, act in signals.items():
            loop.add_signal_handler(number, act)
        try:
            async with self._tasks:
                for slot in self._slots:
                    self._tasks.spawn(self._fill(slot), name=f"worker {slot.number}")
                self._tasks.spawn(self._roll_when_wanted(), name="rolling")
                if self._options.max_memory_bytes is not None:
                    self._tasks.spawn(self._watch_memory(self._options.max_memory_bytes), name="memory")
                if self._options.watched is not None:
                    self._tasks.spawn(self._watch_code(self._options.watched), name="reload")
                await self._stopping.wait()
                await self._shut_down()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            listening.close([slot.listener for slot in self._slots])
        return 1 if self._is_hopeless else 0

    def stop(self) -> None:
        """Drain and end; a second time: end at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def roll(self, command: tuple[str, ...] = ()) -> None:
        """Replace every worker, one after the other; with another command from now on where one is given."""
        self._command = command or self._command
        self._roll_wanted.set()

    def survey(self) -> Survey:
        workers = [worker for slot in self._slots for worker in slot.living]
        drift = (count for worker in workers for count in worker.desk.drift)
        return Survey(
            workers=tuple(sorted((worker.report() for worker in workers), key=lambda each: (each.slot, each.pid))),
            drift=tuple(summed((*self._past_drift, *drift))),
        )

    # --- one worker ----------------------------------------------------------------------------------------

    async def _launch(self, slot: _Slot) -> WorkerProcess:
        worker = WorkerProcess(slot.number, self._clock)

        def ready() -> None:
            worker.became_ready()
            self._became_ready(slot)

        def desk(send: Callable[[FromSupervisor], None]) -> Desk:
            return Desk(send, ready, self.survey)

        self._launching += 1
        self._all_launched.clear()
        try:
            await worker.start(self._command, self._options.environ, slot.listener, desk)
            slot.living.add(worker)
        finally:
            self._launching -= 1
            if not self._launching:
                self._all_launched.set()
        self._tasks.spawn(self._attend(slot, worker), name=f"worker {slot.number} pid {worker.pid}")
        return worker

    def _became_ready(self, slot: _Slot) -> None:
        slot.was_ready = True
        if not self._has_started and all(each.was_ready for each in self._slots):
            self._has_started = True
            self._started()

    async def _attend(self, slot: _Slot, worker: WorkerProcess) -> None:
        code = await worker.run_to_end()
        slot.living.discard(worker)
        if self._ended is not None:
            self._tasks.spawn(self._ended_soon(worker.pid), name=f"what pid {worker.pid} held")
        self._past_drift = summed((*self._past_drift, *worker.desk.drift))
        facts = {"slot": slot.number, "pid": worker.pid, "exit_code": code}
        if slot.current is not worker or self._stopping.is_set():
            log.info("worker ended", extra=facts)
            return
        log.error("worker ended by itself", extra=facts)
        slot.current = None
        is_steady = slot.was_ready and worker.age_seconds >= self._options.steady_seconds
        slot.quick_ends = 1 if is_steady else slot.quick_ends + 1
        await self._fill(slot)

    async def _ended_soon(self, pid: int) -> None:
        assert self._ended is not None
        try:
            await self._ended(pid)
        except ProxyError as error:  # its heartbeat is missed all the same
            log.warning("what a worker held is not given back yet", extra={"pid": pid, "reason": str(error)})

    async def _fill(self, slot: _Slot) -> None:
        """Start a worker, after a pause when those before it ended quickly."""
        while not self._stopping.is_set():
            if not slot.was_ready and slot.quick_ends >= HOPELESS_STARTS:
                self._is_hopeless = True
                self.stop()
                return
            if slot.quick_ends:
                pause = self._options.first_backoff_seconds * 2.0 ** min(slot.quick_ends - 1, 16)
                await self._clock.sleep(min(pause, self._options.last_backoff_seconds))
            try:
                if slot.current is None and not self._stopping.is_set():
                    slot.current = await self._launch(slot)
            except OSError as error:  # no more processes or descriptors: there may be some again
                log.error("worker can't be started", extra={"slot": slot.number, "reason": str(error)})
                slot.quick_ends += 1
            else:
                return

    async def _replace(self, slot: _Slot) -> None:
        """Its worker by another that accepts before the old one stops. A replacement that fails changes nothing."""
        if slot.is_replacing or self._stopping.is_set():
            return
        slot.is_replacing = True
        try:
            worker = await self._launch(slot)
            try:
                await asyncio.wait_for(worker.settled.wait(), self._options.ready_seconds)
            except TimeoutError:
                await worker.kill()
            if not worker.is_ready or worker.gone.is_set():
                log.error("replacement did not become ready", extra={"slot": slot.number, "pid": worker.pid})
                return
            old, slot.current = slot.current, worker
            if old is not None:
                self._tasks.spawn(old.retire(self._options.drain_seconds), name=f"retiring pid {old.pid}")
        finally:
            slot.is_replacing = False

    # --- reasons to replace --------------------------------------------------------------------------------

    async def _roll_when_wanted(self) -> None:
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            log.info("replacing all workers")
            for slot in self._slots:
                await self._replace(slot)

    async def _watch_memory(self, limit_bytes: int) -> None:
        while True:
            await self._clock.sleep(self._options.memory_check_seconds)
            for slot in self._slots:
                worker = slot.current
                if worker is None or not worker.is_ready or worker.age_seconds < self._options.steady_seconds:
                    continue
                if (used := worker.memory_bytes()) > limit_bytes:
                    facts = {"slot": slot.number, "pid": worker.pid, "memory_bytes": used, "limit_bytes": limit_bytes}
                    log.warning("worker holds too much memory", extra=facts)
                    await self._replace(slot)

    async def _watch_code(self, folder: Path) -> None:
        before = await asyncio.to_thread(modified, folder)
        while True:
            await self._clock.sleep(self._options.watch_seconds)
            after = await asyncio.to_thread(modified, folder)
            if after != before:
                before = after
                self.roll()

    # --- the end -------------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        await self._all_launched.wait()  # one that is half started can't be told to retire
        listening.close([slot.listener for slot in self._slots])
        workers = [worker for slot in self._slots for worker in slot.living]
        for worker in workers:
            self._tasks.spawn(worker.retire(self._options.shutdown_grace_seconds), name=f"retiring pid {worker.pid}")
        self._tasks.spawn(self._kill_in_a_hurry(workers), name="hurry")
        for worker in workers:
            await worker.gone.wait()

    async def _kill_in_a_hurry(self, workers: Iterable[WorkerProcess]) -> None:
        await self._hurry.wait()
        for worker in workers:
            await worker.kill()


def summed(counts: Iterable[DriftCount]) -> list[DriftCount]:
    """One count for each kind and name, the longest known first."""
    totals: dict[tuple[str, str], DriftCount] = {}
    for each in counts:
        old = totals.get((each.kind, each.name))
        totals[each.kind, each.name] = DriftCount(
            kind=each.kind,
            name=each.name,
            count=each.count + (old.count if old else 0),
            first_at=min(each.first_at, old.first_at) if old else each.first_at,
        )
    return sorted(totals.values(), key=lambda count: count.first_at)


def modified(folder: Path) -> dict[Path, int]:
    """When each Python file was last changed."""
    times: dict[Path, int] = {}
    for path in folder.rglob("*.py"):
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # an editor replaces files
            continue
    return times
