"""The worker's side: what it was handed, and how it begins and ends."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.workers.channel import Channel
from qwen_proxy.workers.messages import (
    DriftCount,
    DriftSeen,
    FromSupervisor,
    FromWorker,
    Ready,
    supervisor_decoder,
)
from qwen_proxy.workers.remote import SupervisorLine

ORDER_SECONDS: Final = 0.5  # for the supervisor's order to arrive, when a signal went to it too


class WorkerHost:
    """What a worker's server is given.

    slot: which of the workers this is, from 0.
    listener: bound and listening. It is the server's to close; the supervisor holds the same socket open.
    line: to the supervisor, which knows of all workers.
    retired: set when the server has to stop accepting at once and let what runs come to its end, for at most
        `drain_seconds`, which is set first.
    """

    def __init__(
        self, slot: int, listener: socket.socket, send: Callable[[FromWorker], None], drain_seconds: float
    ) -> None:
        self.slot = slot
        self.listener = listener
        self.drain_seconds = drain_seconds
        self.retired = asyncio.Event()
        self.line = SupervisorLine(send, self.retire)
        self._send = send

    def ready(self) -> None:
        """The server accepts connections: the supervisor may retire its predecessor."""
        self._send(Ready())

    def report_drift(self, counts: Iterable[DriftCount]) -> None:
        """All that was counted since this process began."""
        self._send(DriftSeen(tuple(counts)))

    def retire_unless_told(self) -> None:
        """A signal asks for it. One that goes to a whole group of processes is followed by the supervisor's order."""
        if not self.retired.is_set():
            self.retire(self.drain_seconds)

    def retire(self, drain_seconds: float) -> None:
        self.drain_seconds = drain_seconds
        self.retired.set()


async def run_worker(
    slot: int,
    channel_fd: int,
    listener_fd: int,
    serve: Callable[[WorkerHost], Awaitable[None]],
    *,
    drain_seconds: float,
) -> None:
    """Be a worker, on descriptors inherited from the supervisor, until `serve` returns, which it does once it has
    drained after `retired`.

    `drain_seconds` holds when nobody orders another: when the supervisor is gone, or for SIGTERM.
    """
    async with Tasks() as tasks:
        channel: Channel[FromSupervisor]
        listener = socket.socket(fileno=listener_fd)
        host = WorkerHost(slot, listener, lambda message: channel.send(message), drain_seconds)
        channel = Channel(supervisor_decoder(), host.line.received)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, loop.call_later, ORDER_SECONDS, host.retire_unless_told)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a Ctrl-C is the supervisor's to hear
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        await channel.open(socket.socket(fileno=channel_fd))

        async def watch() -> None:
            await channel.closed.wait()
            host.line.lost()
            host.retire(drain_seconds)

        tasks.spawn(watch(), name="channel to the supervisor")
        try:
            await serve(host)
        finally:
            listener.close()
            channel.close()
            await channel.closed.wait()
