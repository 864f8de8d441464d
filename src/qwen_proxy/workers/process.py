"""One worker process, as its supervisor sees it: starting, ready, retiring, gone."""

import asyncio
import logging
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence

import psutil

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.workers.channel import Channel
from qwen_proxy.workers.keeping import Desk
from qwen_proxy.workers.messages import FromSupervisor, FromWorker, Retire, WorkerReport, worker_decoder

log = logging.getLogger(__name__)

KILL_MARGIN_SECONDS = 5.0  # a worker ends by itself at its drain limit; this is for one that does not


class WorkerProcess:
    """settled: it is ready, or has ended before that. gone: it has ended."""

    def __init__(self, slot: int, clock: Clock) -> None:
        self.slot = slot
        self.settled = asyncio.Event()
        self.gone = asyncio.Event()
        self.is_ready = False
        self.is_retiring = False
        self._clock = clock
        self._started_at = clock.monotonic()
        self._process: Process
        self._channel: Channel[FromWorker]
        self._desk: Desk

    async def start(
        self,
        command: Sequence[str],
        environ: Mapping[str, str] | None,
        listener: socket.socket,
        desk: Callable[[Callable[[FromSupervisor], None]], Desk],
    ) -> None:
        """Run the command with `--slot N --channel FD --listener FD` added. `desk` answers it, given a way to send.

        A session of its own: a Ctrl-C in the terminal is for the supervisor alone. Raises OSError.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), listener.fileno())
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    *("--slot", str(self.slot), "--channel", str(fds[0]), "--listener", str(fds[1])),
                    stdin=DEVNULL,
                    env=environ,
                    pass_fds=fds,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._channel = Channel(worker_decoder(), self._received)
        self._desk = desk(self._channel.send)
        await self._channel.open(ours)

    async def run_to_end(self) -> int:
        """Its exit code; minus the signal that ended it."""
        code = await self._process.wait()
        self._channel.close()
        await self._channel.closed.wait()
        self.gone.set()
        self.settled.set()
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def desk(self) -> Desk:
        return self._desk

    @property
    def age_seconds(self) -> float:
        return self._clock.monotonic() - self._started_at

    def became_ready(self) -> None:
        self.is_ready = True
        self.settled.set()

    def memory_bytes(self) -> int:
        """Resident; 0 when it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def report(self) -> WorkerReport:
        return WorkerReport(
            slot=self.slot,
            pid=self.pid,
            state="retiring" if self.is_retiring else "ready" if self.is_ready else "starting",
            uptime_seconds=round(self.age_seconds, 1),
            memory_bytes=self.memory_bytes(),
        )

    async def retire(self, drain_seconds: float) -> None:
        """Stop accepting, drain, end; kill it when it does not. Returns when it is gone."""
        self.is_retiring = True
        self._channel.send(Retire(drain_seconds))
        try:
            await asyncio.wait_for(self.gone.wait(), drain_seconds + KILL_MARGIN_SECONDS)
        except TimeoutError:
            log.warning("worker does not end", extra={"slot": self.slot, "pid": self.pid})
            await self.kill()

    async def kill(self) -> None:
        if not self.gone.is_set():
            self._process.kill()
            await self.gone.wait()

    def _received(self, message: FromWorker) -> None:
        self._desk.received(message)
